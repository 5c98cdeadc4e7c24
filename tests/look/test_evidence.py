"""Where the answer comes from: Grad-CAM, occlusion, branch shares, layer responses, on networks made by hand."""

from __future__ import annotations

import numpy
import pytest

from minicnn import Tensor, layers, models, no_grad, ops
from minicnn.look import (
    branch_shares,
    feature_maps,
    first_filters,
    grad_cam,
    layer_responses,
    occlusion,
    occlusion_map,
    probabilities,
    stages,
    strongest,
)
from tests import device

rng = numpy.random.default_rng(2)


def normal(*shape):
    return device.there(rng.normal(size=shape).astype(numpy.float32))


def on_device(model):
    return model.to(device=device.name)


# Grad-CAM


def test_grad_cam_of_an_average_and_a_linear_layer_is_that_of_zhou():
    """With a global average behind the maps, ∂score/∂map_k is w_kc / HW everywhere: the class activation map."""
    model = on_device(
        layers.Sequential(layers.Conv2d(3, 6, 3), layers.ReLU(), layers.GlobalAvgPool(), layers.Linear(6, 4))
    )
    model[3].weight.data[:, 3] = abs(normal(6))
    x = normal(1, 8, 8, 3)
    maps = feature_maps(model, x, "1")  # (6, 6, 6)
    for label in range(4):
        w = device.host(model[3].weight.data)[:, label]
        expected = numpy.clip(maps @ w, 0, None) / 36
        numpy.testing.assert_allclose(grad_cam(model, x, label), expected, rtol=1e-4, atol=1e-6)
    assert expected.max() > 0


def test_grad_cam_of_an_earlier_layer_is_its_gradients_mean_times_its_maps():
    model = on_device(models.build("resnet-mini", 5, 3, 16))
    x = normal(1, 16, 16, 3)
    found = grad_cam(model, x, 3, "layer1")
    model.eval()
    maps = Tensor(device.there(feature_maps(model, x, "layer1")[None]), requires_grad=True)
    scores = model.fc(model.avgpool(model.layer3(model.layer2(maps))))
    scores[:, 3].sum().backward()
    expected = (device.host(maps.data) * device.host(maps.grad).mean(axis=(1, 2), keepdims=True)).sum(axis=3)[0]
    numpy.testing.assert_allclose(found, numpy.clip(expected, 0, None), rtol=1e-3, atol=1e-6)


# Occlusion


class SeesSquare(layers.Module):
    """Says class 1 where something is brighter than a half, whatever the rest looks like; else class 0."""

    def forward(self, x):
        brightest = ops.max_pool(x, x.shape[1]).flatten()  # (N, 1)
        return ops.concat(brightest * 0.0, brightest * 20.0 - 10.0)


def planted(size=24, at=(4, 14), side=4):
    x = numpy.zeros((1, size, size, 1), numpy.float32)
    x[0, at[0] : at[0] + side, at[1] : at[1] + side] = 1
    return x


def test_occlusion_finds_the_planted_square():
    found = occlusion_map(SeesSquare(), device.there(planted()), 1, size=6, stride=1)
    assert found.probability.shape == found.said.shape == (24, 24)
    assert found.whole > 0.999
    hidden = found.probability < 0.5
    rows, columns = numpy.nonzero(hidden)
    # a 6x6 square hides all of the 4x4 one at 3x3 positions, whose middle is that of the planted one, (6, 16)
    assert hidden.sum() == 9 and abs(rows.mean() - 5.5) <= 0.5 and abs(columns.mean() - 15.5) <= 0.5
    assert numpy.array_equal(found.said, numpy.where(hidden, 0, 1))
    assert (found.probability[~hidden] > 0.999).all()


def test_occlusion_in_small_batches_and_larger_steps(monkeypatch):
    model, x = on_device(models.build("resnet-mini", 5, 3, 16)), normal(1, 16, 16, 3)
    one = occlusion_map(model, x, 2, size=5, stride=3)
    assert one.probability.shape == (6, 6)
    monkeypatch.setattr(occlusion, "together", lambda height, width: 2)
    two = occlusion_map(model, x, 2, size=5, stride=3)
    numpy.testing.assert_allclose(one.probability, two.probability, rtol=1e-4)
    numpy.testing.assert_allclose(one.whole, probabilities(model, x)[0, 2], rtol=1e-5)


def test_occlusion_hides_nothing_outside_the_square_and_all_inside():
    """The probability at a position is that of the image with the square blotted out by hand."""
    model, x = on_device(models.build("resnet-mini", 5, 3, 16)), normal(1, 16, 16, 3)
    found = occlusion_map(model, x, 4, size=4, stride=4)  # centres at 2, 6, 10, 14
    by_hand = device.host(x).copy()
    by_hand[0, 4:8, 12:16] = 0
    numpy.testing.assert_allclose(found.probability[1, 3], probabilities(model, device.there(by_hand))[0, 4], rtol=1e-4)


@pytest.mark.parametrize(("options", "what"), [({"size": 25}, "square"), ({"stride": 0}, "step")])
def test_occlusion_refuses_impossible_squares(options, what):
    with pytest.raises(ValueError, match=f"the {what} must be 1 to 24 pixels, got"):
        occlusion_map(SeesSquare(), device.there(planted()), 1, **options)


# Branches


class Branches(layers.Module):
    """Two branches of 3 and 1 channels, a pool, and what looks at them: a convolution, or a linear layer."""

    def __init__(self, behind):
        self.mixed = layers.Concat(
            branch1=layers.Conv2d(2, 3, 1),
            branch2=layers.Sequential(layers.Conv2d(2, 2, 1), layers.Conv2d(2, 1, 3, pad=1)),
        )
        self.pool = layers.AvgPool(2)
        self.behind = behind

    def forward(self, x):
        x = self.pool(self.mixed(x))
        if isinstance(self.behind, layers.Linear):
            return self.behind(x.flatten())
        return self.behind(x).mean(axis=(1, 2))


def share(values):
    return [value / sum(values) for value in values]


def mass(*weights):
    return float(sum(numpy.abs(device.host(w.data)).sum() for w in weights))


@pytest.mark.parametrize("kind", ["convolution", "grouped convolution", "linear"])
def test_branch_shares(kind):
    behind = {
        "convolution": layers.Conv2d(4, 6, 1),
        "grouped convolution": layers.Conv2d(4, 6, 1, groups=2),
        "linear": layers.Linear(3 * 3 * 4, 6),
    }[kind]
    model = on_device(Branches(behind))
    one, two = branch_shares(model, normal(1, 6, 6, 2), 5)
    w = device.host(behind.weight.data)
    assert [(s.module, s.branch) for s in (one, two)] == [("mixed", "branch1"), ("mixed", "branch2")]
    assert [s.channels for s in (one, two)] == [0.75, 0.25]
    mixed = model.mixed
    own = share([mass(mixed.branch1.weight), mass(mixed.branch2[0].weight, mixed.branch2[1].weight)])
    numpy.testing.assert_allclose([one.own_weights, two.own_weights], own, rtol=1e-5)

    # by channel of the map: what looks at it, and the gradient of score 5, which is the same at every position
    if kind == "grouped convolution":  # outputs 0, 1, 2 see channels 0 and 1, outputs 3, 4, 5 see 2 and 3
        looks = [abs(w[0, 0, c % 2, 3 * (c // 2) : 3 * (c // 2) + 3]).sum() for c in range(4)]
        gradient = [0, 0, abs(w[0, 0, 0, 5]), abs(w[0, 0, 1, 5])]
    else:
        by_channel = abs(w).reshape(-1, 4, 6)
        looks, gradient = by_channel.sum(axis=(0, 2)), by_channel[..., 5].sum(axis=0)
    behind_shares, gradient_shares = share([sum(looks[:3]), looks[3]]), share([sum(gradient[:3]), gradient[3]])
    numpy.testing.assert_allclose([one.weights_behind, two.weights_behind], behind_shares, rtol=1e-5)
    numpy.testing.assert_allclose([one.gradient, two.gradient], gradient_shares, rtol=1e-5)


def test_every_inception_module_of_googlenet_has_four_branches():
    shares = branch_shares(on_device(models.build("googlenet", 5, 3, 32)), normal(1, 32, 32, 3), 0)
    assert len(shares) == 36
    for i in range(0, 36, 4):
        module = shares[i : i + 4]
        assert [s.branch for s in module] == ["branch1", "branch2", "branch3", "branch4"]
        for measure in ("channels", "own_weights", "weights_behind", "gradient"):
            assert sum(getattr(s, measure) for s in module) == pytest.approx(1)
    assert [s.module for s in shares[::4]] == [
        f"inception{n}" for n in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    ]


def test_a_branch_may_be_split_itself_and_its_layers_lie_side_by_side():
    class Split(layers.Module):
        """As the last modules of Inception-v3: a pair of convolutions on a common one is a branch."""

        def __init__(self):
            self.stem = layers.Conv2d(2, 2, 1)
            self.one = layers.Conv2d(2, 1, 1)
            self.wide_1, self.wide_2a, self.wide_2b = (layers.Conv2d(2, n, 1) for n in (2, 1, 2))

        def forward(self, x):
            x = self.stem(x)
            wide = self.wide_1(x)
            return ops.concat(self.one(x), ops.concat(self.wide_2a(wide), self.wide_2b(wide))).mean(axis=(1, 2))

    model = on_device(Split())
    shares = branch_shares(model, normal(1, 4, 4, 2), 0)
    assert [(s.branch, s.channels, s.weights_behind, s.gradient) for s in shares] == [
        ("one", 0.25, 0, 1),
        ("wide_2a+wide_2b", 0.75, 0, 0),
    ]
    own = share([mass(model.one.weight), mass(model.wide_1.weight, model.wide_2a.weight, model.wide_2b.weight)])
    numpy.testing.assert_allclose([s.own_weights for s in shares], own, rtol=1e-5)


def test_a_network_without_branches_has_no_shares():
    assert branch_shares(on_device(models.build("resnet-mini", 5, 3, 16)), normal(1, 16, 16, 3), 0) == []


# Maps, filters, responses


def test_feature_maps_are_what_the_layers_before_compute():
    model = on_device(
        layers.Sequential(layers.Conv2d(3, 4, 3), layers.ReLU(), layers.MaxPool(2), layers.Conv2d(4, 2, 1))
    )
    x = normal(1, 8, 8, 3)
    with no_grad():
        for count in (1, 2, 3):
            y = layers.Sequential(*list(model)[:count])(Tensor(x))
            numpy.testing.assert_allclose(feature_maps(model, x, str(count - 1)), device.host(y.data)[0], rtol=1e-5)


def test_strongest_channels_come_first():
    maps = numpy.zeros((2, 2, 4))
    maps[1, 0] = [3, 7, -1, 5]
    assert strongest(maps, 3) == [1, 3, 0]


def test_stages_are_the_last_layers_of_each_size():
    x = normal(1, 32, 32, 3)
    assert stages(on_device(models.build("resnet-mini", 5, 3, 32)), x) == [
        "relu", "layer1.0.relu_1", "layer2.0.relu_1", "layer3.0.relu_1",
    ]  # fmt: skip


def test_first_filters_are_the_stems():
    model = models.build("resnet-mini", 5, 3, 16)
    name, w = first_filters(model)
    assert name == "conv1" and w is model.conv1.weight.data
    with pytest.raises(ValueError, match="SeesSquare has no convolution"):
        first_filters(SeesSquare())


def test_responses_are_measured_behind_batch_norm_and_before_relu():
    model = on_device(
        layers.Sequential(
            layers.Conv2d(3, 4, 3, bias=False),
            layers.BatchNorm(4),
            layers.ReLU(),
            layers.Conv2d(4, 2, 3),
            layers.ReLU(),
        )
    )
    model[1].running_mean[:], model[1].running_var[:] = normal(4), abs(normal(4)) + 1
    x = normal(3, 8, 8, 3)
    found = layer_responses(model, x)
    model.eval()
    with no_grad():
        first = model[1](model[0](Tensor(x)))
        second = model[3](ops.relu(first))
    assert list(found) == ["0", "3"]
    numpy.testing.assert_allclose(found["0"], device.host(first.data).std(), rtol=1e-5)
    numpy.testing.assert_allclose(found["3"], device.host(second.data).std(), rtol=1e-5)
