"""The registry, the sizes that networks adapt to, and what is refused."""

from __future__ import annotations

import pytest

import kernels
import minicnn
from minicnn import Tensor, init, models, no_grad, ops
from tests import device
from tests.device import np

SMALL_IMAGE_MODELS = ["vgg-a", "vgg-a-lrn", "googlenet", "resnet18", "resnet20", "plain20", "resnet-mini"]


def images(n: int, side: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, side, side, channels)).astype(np.float32)


def test_names_are_those_that_build_takes():
    with init.skipped():
        for name in models.names():
            assert models.build(name, num_classes=3).num_classes == 3
    assert {"vgg16", "vgg-a-lrn", "vgg-b-5x5", "googlenet", "resnet1202", "plain110"} <= set(models.names())


@pytest.mark.parametrize(
    ("name", "classes", "side"),
    [("vgg-a", 1000, 224), ("googlenet", 1000, 224), ("resnet50", 1000, 224), ("resnet20", 10, 32)],
)
def test_none_means_what_the_paper_has(name, classes, side):
    with init.skipped():
        model = models.build(name).to(device.name)
    assert (model.name, model.num_classes, model.in_channels, model.image_size) == (name, classes, 3, side)


def test_an_alias_builds_the_network_it_stands_for():
    with init.skipped():
        assert models.build("vgg16", image_size=32).config == models.build("vgg-d", image_size=32).config


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("vgg-c", {"bn": True, "image_size": 32, "num_classes": 7}),
        ("googlenet", {"variant": "torchvision", "aux_logits": False, "image_size": 32}),
        ("resnet50", {"shortcut": "C", "stride_in": "1x1", "in_channels": 1}),
        ("resnet56", {"unit": "full-preact", "span": 3, "shortcut": "B"}),
        ("resnet20", {"skip": "scale", "skip_scale": 0.25, "residual_scale": 0.5}),
        ("plain20", {}),
    ],
)
def test_config_rebuilds_the_model(name, variant):
    minicnn.seed(5)
    model = models.build(name, **variant).to(device.name)
    minicnn.seed(5)
    again = models.build(**model.config)
    assert again.config == model.config
    for (key, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert np.array_equal(a, b), key


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("name", SMALL_IMAGE_MODELS)
def test_a_training_step_on_small_images_stays_finite(name, side, backend):
    minicnn.seed(0)
    model = models.build(name, num_classes=10, in_channels=1, image_size=side).to(device.name)
    with kernels.use(backend):
        loss = models.loss(model(Tensor(images(2, side, 1))), np.array([1, 7]))
        loss.backward()
    assert np.isfinite(loss.item())
    for key, tensor in model.named_parameters():
        assert np.isfinite(tensor.grad).all(), key
    assert any(tensor.grad.any() for tensor in model.parameters())


@pytest.mark.parametrize("name", ["vgg-a", "googlenet", "resnet18"])
@pytest.mark.parametrize("side", [16, 64, 65, 96])
def test_other_image_sizes_fit(name, side):
    with init.skipped():
        model = models.build(name, num_classes=4, image_size=side).to(device.name)
    with no_grad():
        outputs = model(Tensor(images(1, side)))
    for logits in outputs if isinstance(outputs, tuple) else (outputs,):
        assert logits.shape == (1, 4)


def test_googlenet_returns_auxiliary_logits_in_training_only():
    model = models.build("googlenet", num_classes=5, image_size=32).to(device.name)
    x = Tensor(images(2, 32))
    with no_grad():
        assert [logits.shape for logits in model(x)] == [(2, 5)] * 3
        assert model.eval()(x).shape == (2, 5)
        without = models.build("googlenet", num_classes=5, image_size=32, aux_logits=False).to(device.name)
        assert without(x).shape == (2, 5)


def test_googlenet_initialisations():
    def start(**variant):
        model = models.build("googlenet", num_classes=5, image_size=32, **variant).to(device.name)
        return model.inception3a.branch2[1].conv  # 3x3 on 96 channels

    limit = (3 / (9 * 96)) ** 0.5
    assert 0.99 * limit < np.abs(start().weight.data).max() <= limit
    assert (start().bias.data == np.float32(0.2)).all()
    assert float(start(init="he").weight.data.std()) == pytest.approx((2 / (9 * 96)) ** 0.5, rel=0.01)
    assert not start(init="he").bias.data.any()
    assert float(start(variant="torchvision").weight.data.std()) == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("init_name", ["he", "glorot", "paper"])
def test_vgg_initialisations(init_name):
    weight = models.build("vgg-a", image_size=32, init=init_name).features[8].weight.data  # 3x3x256x256
    expected = {"glorot": (2 / (9 * 512)) ** 0.5, "he": (2 / (9 * 256)) ** 0.5, "paper": 0.01}[init_name]
    assert float(weight.std()) == pytest.approx(expected, rel=0.01)


def test_loss_adds_the_auxiliary_heads_with_their_weight():
    rng = np.random.default_rng(0)
    main, aux1, aux2 = (Tensor(rng.normal(size=(4, 3))) for _ in range(3))
    labels = np.array([0, 2, 1, 1])
    parts = [ops.cross_entropy(logits, labels, label_smoothing=0.1).item() for logits in (main, aux1, aux2)]
    assert models.loss(main, labels, label_smoothing=0.1).item() == parts[0]
    total = models.loss((main, aux1, aux2), labels, label_smoothing=0.1).item()
    assert total == pytest.approx(parts[0] + 0.3 * (parts[1] + parts[2]), rel=1e-12)


def test_dense_vgg_equals_vgg_on_its_own_size_and_averages_on_larger_images():
    minicnn.seed(1)
    model = models.build("vgg-a", num_classes=6, image_size=96).to(device.name).eval()
    dense = model.dense().eval()
    large = Tensor(images(2, 128))
    with no_grad():
        x = Tensor(images(2, 96))
        np.testing.assert_allclose(dense(x).data, model(x).data, rtol=1e-4, atol=1e-5)
        # A 3x3 window on the 4x4 map of 128 pixels fits in four places.
        maps = model.features(large).data
        corners = [maps[:, i : i + 3, j : j + 3] for i in (0, 1) for j in (0, 1)]
        expected = np.stack([model.classifier(Tensor(corner).flatten()).data for corner in corners]).mean(axis=0)
        np.testing.assert_allclose(dense(large).data, expected, rtol=1e-4, atol=1e-5)
    shared = {id(tensor) for tensor in model.parameters()}
    assert {id(tensor) for tensor in dense.parameters()} == shared


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("resnet21", {}), "unknown model 'resnet21': did you mean .*resnet20"),
        (("transformer", {}), "unknown model 'transformer': choose from"),
        (("resnet18", {"stride_in": "1x1"}), r"resnet18: unknown keyword stride_in; it takes shortcut='B'"),
        (("plain20", {"bn": True}), "plain20: unknown keyword bn; it takes no variants"),
        (("resnet20", {"shortcut": "D"}), "resnet20: shortcut must be 'A', 'B' or 'C', got 'D'"),
        (("resnet50", {"stride_in": "5x5"}), "resnet50: stride_in must be '1x1' or '3x3', got '5x5'"),
        (
            ("resnet20", {"unit": "preact"}),
            "resnet20: unit must be one of original, bn-after-add, .*, full-preact, got 'preact'",
        ),
        (("resnet164", {"skip": "none"}), "resnet164: skip must be one of identity, scale, .*, dropout, got 'none'"),
        (("resnet20", {"skip": "dropout", "skip_dropout": 1}), "resnet20: skip_dropout must be .* below 1, got 1"),
        (("resnet20", {"span": 4}), "resnet20: span must be 1, 2 or 3, got 4"),
        (("resnet32", {"span": 3}), "resnet32: span 3 does not divide the 10 layers of a stage"),
        (("googlenet", {"variant": "caffe"}), "googlenet: variant must be 'paper' or 'torchvision', got 'caffe'"),
        (("vgg-a", {"init": "zero"}), "vgg-a: init must be one of he, glorot, paper, got 'zero'"),
        (("googlenet", {"init": "zero"}), "googlenet: init must be one of caffe, he, torchvision, got 'zero'"),
        (("resnet20", {"num_classes": 0}), "resnet20: num_classes must be at least 1, got 0"),
        (("vgg16", {"image_size": 8}), "vgg-d: image_size 8 is too small: .* features.23"),
        (("googlenet", {"image_size": 4}), "googlenet: image_size 4 is too small: .* maxpool4"),
        (("resnet-mini", {"image_size": 1}), "resnet-mini: image_size 1 is too small: .* maxpool"),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(call, message):
    name, variant = call
    with init.skipped(), pytest.raises(ValueError, match=message) as error:
        models.build(name, **variant)
    assert "\n" not in str(error.value)
