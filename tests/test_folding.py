"""A folded network computes what the network computes in evaluation, with fewer ops, and is a copy of its own."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial

import numpy
import pytest

from minicnn import Tensor, interop, layers, models, no_grad, observe, ops
from minicnn.folding import fold
from minicnn.layers import BatchNorm, Conv2d, Linear, Module, ReLU, Sequential
from minicnn.models.residual import SKIPS, UNITS
from minicnn.models.resnet import BasicBlock, Bottleneck, ResNet
from tests import device
from tests.device import np


def bottlenecks() -> ResNet:
    block = partial(Bottleneck, shortcut="B", stride_in="3x3")
    return ResNet(block, (2, 1), (8, 16), 10, stem=Conv2d(3, 8, 3, pad=1, bias=False))


def all_kinds_of_layers() -> Sequential:
    """BatchNorms after everything that can take them up, and two that stay: the first, and the one after a ReLU."""
    return Sequential(
        BatchNorm(3),
        Conv2d(3, 12, 3, pad=1, groups=3),
        BatchNorm(12, eps=0.1),
        ReLU(),
        BatchNorm(12),
        layers.Residual(Sequential(Conv2d(12, 12, 1, bias=False), BatchNorm(12))),
        layers.Concat(Sequential(Conv2d(12, 7, 3, stride=2), BatchNorm(7)), Conv2d(12, 2, 3, stride=2)),
        layers.Flatten(),
        Linear(15 * 15 * 9, 20, bias=False),
        BatchNorm(20),
        ReLU(),
        Linear(20, 10),
    )


NETWORKS: dict[str, tuple[Callable[..., Module], int]] = {  # with the number of BatchNorms that stay
    "resnet-mini": (partial(models.build, "resnet-mini"), 0),
    "resnet-mini, shortcut C": (partial(models.build, "resnet-mini", shortcut="C"), 0),
    "resnet20, shortcut A": (partial(models.build, "resnet20"), 0),
    "plain20": (partial(models.build, "plain20"), 0),
    "bottlenecks": (bottlenecks, 0),
    "vgg-a with bn": (partial(models.build, "vgg-a", 10, image_size=32, bn=True), 0),
    "googlenet": (partial(models.build, "googlenet", 10, image_size=32), 0),
    "googlenet with bn": (partial(models.build, "googlenet", 10, image_size=32, bn=True), 0),
    "bn-inception": (partial(models.build, "bn-inception", 10, image_size=32), 0),
    "inception-v3": (partial(models.build, "inception-v3", 10, image_size=32), 0),
    "all kinds of layers": (all_kinds_of_layers, 2),
}


def trained(build: Callable[..., Module], dtype: type = np.float32) -> Module:
    """As if it had been trained: every BatchNorm has statistics, gamma and beta of its own."""
    model, rng = build().to(device.name, dtype), np.random.default_rng(5)
    for name, array in model.state_dict().items():
        low, high = (0.5, 2) if name.endswith("running_var") else (-0.3, 0.3)
        array[...] += rng.uniform(low, high, array.shape) if array.ndim == 1 else 0
    return model


def images(dtype: type = np.float32) -> Tensor:
    return Tensor(np.random.default_rng(2).standard_normal((2, 32, 32, 3)).astype(dtype))


def ops_of(model: Module, *inputs: Tensor) -> list[str]:
    names: list[str] = []
    with no_grad(), observe(lambda event: names.append(event.name)):
        model(*inputs)
    return names


def close(value: Tensor, expected: Tensor, tolerance: float) -> None:
    assert value.dtype == expected.dtype
    np.testing.assert_allclose(value.data, expected.data, rtol=0, atol=tolerance * np.abs(expected.data).max())


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_network_in_evaluation(name, dtype, tolerance):
    build, staying = NETWORKS[name]
    model = trained(build, dtype)
    folded, x = fold(model), images(dtype)
    close(folded(x), model.eval()(x), tolerance)
    close(fold(folded)(x), folded(x), 0)
    assert sum(isinstance(module, BatchNorm) for module in folded.modules()) == staying
    assert not {"bn_relu", "add"} & set(ops_of(folded, x)) or name == "all kinds of layers"


@pytest.mark.parametrize("name", ["resnet-mini", "bottlenecks"])
def test_a_block_is_its_convolutions_each_with_what_follows_it(name):
    model = trained(NETWORKS[name][0])
    names = [name for name, module in model.named_modules() if isinstance(module, Conv2d)]
    projections = sum("downsample" in name for name in names)
    pool = ["max_pool"] if name == "resnet-mini" else []
    expected = ["conv_relu"] * (len(names) - projections) + ["conv2d"] * projections
    assert sorted(ops_of(fold(model), images())) == sorted([*expected, *pool, "global_avg_pool", "linear"])


def test_a_sequential_is_fused_across_the_place_of_the_batch_norm():
    model = Sequential(Conv2d(3, 4, 3), BatchNorm(4), ReLU(), Conv2d(4, 4, 1), BatchNorm(4)).to(device.name)
    assert ops_of(fold(model), images()) == ["conv_relu", "conv2d"]


def test_names_are_those_of_the_convolutions():
    folded = fold(trained(bottlenecks))
    convolutions = [
        *("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.conv3", "layer1.0.downsample.0"),
        *("layer1.1.conv1", "layer1.1.conv2", "layer1.1.conv3"),
        *("layer2.0.conv1", "layer2.0.conv2", "layer2.0.conv3", "layer2.0.downsample.0", "fc"),
    ]
    expected = [f"{name}.{part}" for name in convolutions for part in ("weight", "bias")]
    assert sorted(folded.state_dict()) == sorted(expected)

    other = fold(bottlenecks().to(device.name))
    other.load_state_dict(folded.state_dict())
    close(other(images()), folded(images()), 0)


def test_the_copy_learns_nothing_and_the_original_stays_as_it_was():
    model = trained(bottlenecks)
    model(images()).sum().backward()
    state = {name: array.copy() for name, array in model.state_dict().items()}
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}

    folded = fold(model)
    assert not folded.training and not any(module.training for module in folded.modules())
    assert not list(folded.parameters()) and not folded(images()).requires_grad
    assert folded.conv1.weight.grad is folded.fc.weight.grad is None
    for array in folded.state_dict().values():
        array[...] = 0

    assert all(module.training for module in model.modules())
    assert state.keys() == model.state_dict().keys() and grads.keys() == dict(model.named_parameters()).keys()
    assert all(np.array_equal(array, state[name]) for name, array in model.state_dict().items())
    assert all(parameter.grad is grads[name] for name, parameter in model.named_parameters())


def test_a_model_still_says_what_it_is():
    model = models.build("resnet-mini", 7)
    assert fold(model).config == model.config and fold(model).num_classes == 7


def test_a_dense_vgg():
    model = trained(NETWORKS["vgg-a with bn"][0])
    x = Tensor(np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32))
    close(fold(model).dense()(x), model.eval().dense()(x), 1e-4)
    close(fold(model.dense())(x), model.dense()(x), 1e-4)


def test_a_linear_layer_on_a_map_keeps_its_layout():
    folded = fold(Sequential(layers.Flatten(), Linear(12, 5, from_map=(2, 2, 3)), BatchNorm(5)))
    assert folded[1].from_map == (2, 2, 3)
    interop.load_torch(folded, {"1.weight": numpy.zeros((5, 12), np.float32), "1.bias": numpy.zeros(5, np.float32)})


def test_a_layer_in_several_places_is_folded_for_each():
    conv, bn = Conv2d(3, 3, 3, pad=1), BatchNorm(3)
    twice = Sequential(conv, BatchNorm(3), ReLU(), conv, bn, ReLU(), conv, ReLU(), conv, bn)
    model = trained(lambda: Sequential(twice, twice))
    folded, x = fold(model), images()
    close(folded(x), model.eval()(x), 1e-4)
    assert ops_of(folded, x) == ["conv_relu", "conv_relu", "conv_relu", "conv2d"] * 2


class Standardised(Conv2d):
    """Its filters are normalised before they are used, which would undo any scaling of its weight."""

    def forward(self, x):
        w = self.weight
        return ops.conv2d(x, w / ops.sqrt((w * w).sum(axis=(0, 1, 2), keepdims=True)), self.bias, **self.options)


class Reversed(Sequential):
    """Runs its layers from the last to the first."""

    def forward(self, x):
        for layer in reversed(list(self)):
            x = layer(x)
        return x


class PreActivation(Module):
    """Normalises before it convolves; the names alone do not say so."""

    def __init__(self):
        self.conv1, self.bn1 = Conv2d(3, 3, 3, pad=1), BatchNorm(3)

    def forward(self, x):
        return self.conv1(self.bn1.relu(x))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Sequential(Standardised(3, 4, 3), BatchNorm(4)),
        lambda: Reversed(Conv2d(3, 3, 3), BatchNorm(3)),
        PreActivation,
    ],
)
def test_what_may_compute_something_else_is_left_alone(build):
    model = trained(build)
    folded = fold(model)
    assert folded.state_dict().keys() == model.state_dict().keys()
    close(folded(images()), model.eval()(images()), 0)


class Pair(Module):
    conv_bn_pairs = (("first", "second"),)

    def __init__(self, first, second):
        self.first, self.second = first, second


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (np.zeros(3), TypeError, "fold: needs a Module, such as models.build returns, got ndarray"),
        (
            Sequential(block=Sequential(Conv2d(3, 4, 1), BatchNorm(1))),
            ValueError,
            "fold: block.0 makes 4 channels, but the BatchNorm after it has 1",
        ),
        (
            Pair(layers.MaxPool(2), BatchNorm(3)),
            TypeError,
            "fold: first and its partner must be Conv2d or Linear and BatchNorm, not MaxPool and BatchNorm",
        ),
    ],
)
def test_what_cannot_be_folded(model, error, message):
    with pytest.raises(error) as raised:
        fold(model)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("name", "most"),
    [("vgg-a with bn", 2), ("plain20", 3), ("resnet20, shortcut A", 4), ("resnet-mini", 4), ("bottlenecks", 4)],
)
def test_without_a_graph_a_map_is_freed_as_soon_as_it_is_used(name, most):
    """A layer keeps what it reads and what it writes; in a block there is also its input, and what a shortcut made."""
    folded = fold(trained(NETWORKS[name][0]))
    maps: list[weakref.ref] = []
    alive: list[int] = []

    def count(event):
        if event.outputs[0].ndim == 4:
            maps.append(weakref.ref(event.outputs[0]))
        alive.append(sum(array() is not None for array in maps))

    gc.collect()
    gc.disable()
    try:
        with no_grad(), observe(count):
            folded(images())
    finally:
        gc.enable()
    assert max(alive) <= most


@pytest.mark.parametrize("block", [BasicBlock, partial(BasicBlock, span=1), partial(Bottleneck, stride_in="3x3")])
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("unit", UNITS)
def test_residual_units_of_every_form(unit, skip, block):
    """What stays is what follows a sum: a BatchNorm after each addition, or before each but the first convolution."""
    block = partial(block, shortcut="B", unit=unit, skip=skip, gate_bias=-0.5)
    stem = Conv2d(3, 8, 3, pad=1, bias=False)
    model = trained(lambda: ResNet(block, (2, 1, 1), (8, 8, 16), 10, stem=stem), np.float64)
    folded, x = fold(model), images(np.float64)
    close(folded(x), model.eval()(x), 1e-12)
    staying = 4 if unit in ("bn-after-add", "full-preact") else 0
    assert sum(isinstance(module, BatchNorm) for module in folded.modules()) == staying
