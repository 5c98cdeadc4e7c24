"""AlexNet, ZFNet and NIN: the maps that their papers give, their starts and variants, and that they learn."""

from __future__ import annotations

import numpy
import pytest

import kernels
import minicnn
from minicnn import Tensor, init, layers, models, no_grad, optim
from minicnn.summary import profile
from tests import by_heart, device
from tests.device import np

NETS = {
    "alexnet": ("alexnet", {}),
    "alexnet of torchvision": ("alexnet", {"variant": "torchvision"}),
    "zfnet": ("zfnet", {}),
    "zfnet with lcn": ("zfnet", {"norm": "lcn"}),
    "nin": ("nin", {}),
    "vgg-c with linear 1x1": ("vgg-c", {"linear_1x1": True}),
}

LARGE = pytest.mark.not_on_host("takes a step on larger images")


def build(name: str, num_classes: int | None = None, channels: int = 3, side: int | None = None, **variant):
    minicnn.seed(0)
    return models.build(name, num_classes, channels, side, **variant).to(device.name)


def ops(model) -> list[tuple[str, int]]:
    """(op, side of its map) of all that a network computes on maps."""
    return [(row.op, row.shape[0]) for row in profile(model) if len(row.shape) == 3]


# ---- What the papers print -----------------------------------------------------------------------------------------


@pytest.mark.cpu_only("looks at sizes alone")
@pytest.mark.parametrize(
    ("name", "side", "variant", "maps"),
    [
        ("alexnet", 227, {}, [55, 27, 27, 13, 13, 13, 13, 6]),
        ("alexnet", 224, {}, [54, 27, 27, 13, 13, 13, 13, 6]),
        ("alexnet", 224, {"variant": "torchvision"}, [55, 27, 27, 13, 13, 13, 13, 6]),
        ("zfnet", 224, {}, [110, 55, 26, 13, 13, 13, 13, 6]),
        ("nin", 224, {}, [54, 54, 54, 27, 27, 27, 27, 13, 13, 13, 13, 6, 6, 6, 6]),
        ("nin", 227, {}, [55, 55, 55, 27, 27, 27, 27, 13, 13, 13, 13, 6, 6, 6, 6]),
        ("nin", 32, {}, [32, 32, 32, 16, 16, 16, 16, 8, 8, 8, 8]),
    ],
)
def test_maps_have_the_sides_of_the_paper(name, side, variant, maps):
    with init.skipped():
        model = models.build(name, image_size=side, **variant)
    assert [side for op, side in ops(model) if op in ("conv_relu", "max_pool", "avg_pool")] == maps


@pytest.mark.cpu_only("looks at names alone")
def test_where_responses_are_normalised():
    with init.skipped():
        alexnet, zfnet = models.build("alexnet"), models.build("zfnet", norm="lcn")
    assert [op for op, _ in ops(alexnet)][:6] == ["conv_relu", "lrn", "max_pool"] * 2
    assert [op for op, _ in ops(zfnet)][:6] == ["conv_relu", "max_pool", "lcn"] * 2


@pytest.mark.cpu_only("looks at names alone")
@pytest.mark.parametrize("side", [32, 224])
def test_alexnet_of_torchvision_has_its_names(side):
    names = [*(f"features.{i}" for i in (0, 3, 6, 8, 10)), *(f"classifier.{i}" for i in (1, 4, 6))]
    with init.skipped():
        model = models.build("alexnet", image_size=side, variant="torchvision")
    assert list(model.state_dict()) == [f"{layer}.{part}" for layer in names for part in ("weight", "bias")]


def test_nin_has_the_classes_of_the_data_it_is_for():
    with init.skipped():
        assert models.build("nin").num_classes == 1000
        cifar = models.build("nin", image_size=32)
        assert cifar.num_classes == cifar.config["num_classes"] == 10
        assert models.build(**cifar.config).config == cifar.config


# ---- How they start ------------------------------------------------------------------------------------------------


def test_initialisations_of_alexnet():
    def of(model, attribute: str) -> list[float]:
        values = {name: tensor.data for name, tensor in model.named_parameters() if name.endswith(attribute)}
        return [float(value.std() if attribute == "weight" else value.mean()) for value in values.values()]

    one = build("alexnet", 10, side=32)
    assert of(one, "bias") == [0, 1, 0, 1, 1, 1, 1, 0]
    assert of(one, "weight") == pytest.approx([0.01] * 8, rel=0.05)
    caffe = build("alexnet", 10, side=32, init="caffe")
    assert of(caffe, "bias") == pytest.approx([0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0])
    assert of(caffe, "weight") == pytest.approx([*[0.01] * 5, 0.005, 0.005, 0.01], rel=0.05)
    he = build("alexnet", 10, side=32, init="he")
    assert not any(of(he, "bias"))
    fans = [75, 25 * 48, 9 * 256, 9 * 192, 9 * 192, 16 * 256, 512]
    assert of(he, "weight") == pytest.approx([*((2 / fan) ** 0.5 for fan in fans), 0.01], rel=0.05)


@pytest.mark.parametrize(
    ("name", "variant", "layer", "std"),
    [
        ("zfnet", {"init": "paper"}, lambda model: model.features[4], 0.01),
        ("zfnet", {}, lambda model: model.features[4], (2 / (25 * 96)) ** 0.5),
        ("nin", {}, lambda model: model.mlpconv2[0], (2 / (25 * 96)) ** 0.5),
        ("nin", {"init": "paper"}, lambda model: model.mlpconv2[0], 0.05),
    ],
)
def test_initialisations_of_zfnet_and_nin(name, variant, layer, std):
    model = build(name, 10, side=32, **variant)
    assert float(layer(model).weight.data.std()) == pytest.approx(std, rel=0.01)


# ---- Variants ------------------------------------------------------------------------------------------------------


@pytest.mark.cpu_only("looks at sizes alone")
def test_zfnet_of_table_3_is_wider():
    with init.skipped():
        model = models.build("zfnet", image_size=32, wide=True)
    assert [layer.weight.shape[3] for layer in model.features if hasattr(layer, "weight")] == [96, 256, 512, 1024, 512]


@pytest.mark.cpu_only("looks at sizes alone")
def test_linear_1x1_convolutions_have_the_weights_but_no_relu():
    with init.skipped():
        linear, published = (models.build("vgg-c", image_size=32, linear_1x1=flag) for flag in (True, False))
    weights = [[tensor.shape for tensor in model.parameters()] for model in (linear, published)]
    assert weights[0] == weights[1]
    without_relu = [row.layer for row in profile(linear) if row.op == "conv2d"]
    assert [dict(linear.named_modules())[name].weight.shape[:2] for name in without_relu] == [(1, 1)] * 3
    assert [row.op for row in profile(published)].count("conv2d") == 0


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        ("alexnet", {"variant": "caffe"}, "alexnet: variant must be 'paper' or 'torchvision', got 'caffe'"),
        ("alexnet", {"init": "zero"}, "alexnet: init must be one of paper, caffe, he, got 'zero'"),
        ("alexnet", {"groups": 5}, "alexnet: Conv2d: groups=5 must divide both 96 and 256 channels"),
        (
            "alexnet",
            {"image_size": 2},
            "alexnet: image_size 2 is too small: .* 1x1 map after features.7",
        ),
        ("zfnet", {"norm": "bn"}, "zfnet: norm must be 'lrn' or 'lcn', got 'bn'"),
        ("zfnet", {"init": "zero"}, "zfnet: init must be one of he, paper, got 'zero'"),
        ("nin", {"init": "zero"}, "nin: init must be one of he, paper, got 'zero'"),
        ("nin", {"image_size": 2}, "nin: image_size 2 is too small: .* 1x1 map after pool2, a 3x3 AvgPool"),
        ("vgg-b", {"linear_1x1": True}, "vgg-b: linear_1x1 needs 1x1 convolutions, which vgg-c alone has"),
    ],
)
def test_errors_say_what_is_wrong(name, variant, message):
    with init.skipped(), pytest.raises(ValueError, match=message) as error:
        models.build(name, **variant)
    assert "\n" not in str(error.value)


# ---- Learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("side", [28, pytest.param(32, marks=LARGE), pytest.param(64, marks=LARGE)])
@pytest.mark.parametrize("net", NETS)
def test_a_training_step_on_small_images(net, side, backend):
    name, variant = NETS[net]
    model = build(name, 10, side=side, **variant)
    x = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32)
    with kernels.use(backend):
        loss = models.loss(model(Tensor(x)), np.array([7]))
        loss.backward()
    assert np.isfinite(loss.item())
    for key, tensor in model.named_parameters():
        assert np.isfinite(tensor.grad).all(), key
    assert model.features[0].weight.grad.any() if name != "nin" else model.mlpconv1[0].weight.grad.any()


@pytest.mark.not_on_host("takes many steps")
@pytest.mark.parametrize(
    ("name", "variant"),
    [("alexnet", {"init": "he"}), ("zfnet", {}), ("zfnet", {"norm": "lcn"}), ("nin", {})],  # "paper" takes its time
)
def test_learns_32_images_by_heart(name, variant):
    x, labels = by_heart.some_images(32)
    model = build(name, 10, 1, 8, **variant)
    for module in model.modules():
        if isinstance(module, layers.Dropout):
            module.p = 0.0
    by_heart.learn(model, x[:, 3:-3, 3:-3], labels, lr=1e-3, steps=120)


@pytest.mark.cpu_only("compares backends of NumPy arrays")
def test_backends_agree_on_zfnet_with_contrast_normalisation():
    model = build("zfnet", 10, side=32, norm="lcn", init="he").eval()
    x = Tensor(numpy.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(numpy.float32))
    logits = []
    for backend in ("reference", "cpu"):
        with kernels.use(backend), no_grad():
            logits.append(model(x).numpy())
    numpy.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-4 * abs(logits[0]).max())


def test_filters_are_held_at_a_root_mean_square():
    model = build("zfnet", 10, side=32, init="paper")  # 0.01
    w = model.features[0].weight.data
    w[..., :5] *= 30.0  # 0.3
    w[0, 0, 0, 7] = np.nan
    before, linear = w.copy(), model.classifier[0].weight.data * 20
    model.classifier[0].weight.data = linear.copy()
    optim.clip_filter_rms(model, 0.1)

    rms = np.sqrt((w * w).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(rms[:5], np.full(5, 0.1), rtol=1e-5)
    shrunk = w[..., :5] / before[..., :5]  # by one factor each
    np.testing.assert_allclose(shrunk, np.broadcast_to(shrunk[0, 0, 0], shrunk.shape), rtol=1e-5)
    assert np.isnan(w[..., 7]).all()
    others = [5, 6, *range(8, 96)]
    assert np.array_equal(w[..., others], before[..., others])
    assert np.array_equal(model.classifier[0].weight.data, linear)
