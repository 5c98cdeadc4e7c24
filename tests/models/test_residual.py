"""Every order of a residual unit and every kind of shortcut: against its formula, against PyTorch, and in training."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from functools import partial

import numpy
import pytest

import kernels
import minicnn
from minicnn import Tensor, init, interop, models, no_grad, observe, ops, optim
from minicnn.layers import BatchNorm, Conv2d
from minicnn.models.residual import SKIPS, UNITS, Unit
from minicnn.models.resnet import BasicBlock, Bottleneck, ResNet
from tests import by_heart, device
from tests.device import np

# One by one: each order with the identity, each shortcut in the original order.
FORMS = [(unit, "identity") for unit in UNITS] + [("original", skip) for skip in SKIPS[1:]]


def order(unit: str, depth: int) -> tuple[list[str], list[str]]:
    """What `depth` layers do one after another, and what is done to the sum (Figure 4)."""
    f, after = {
        "original": (["conv BN"] + ["ReLU conv BN"] * (depth - 1), "ReLU"),
        "bn-after-add": (["conv"] + ["BN ReLU conv"] * (depth - 1), "BN ReLU"),
        "relu-before-add": (["conv BN ReLU"] * depth, ""),
        "relu-only-preact": (["ReLU conv BN"] * depth, ""),
        "full-preact": (["BN ReLU conv"] * depth, ""),
    }[unit]
    return " ".join(f).split(), after.split()


def normalised(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    centred = x - x.mean(axis=(0, 1, 2))
    return centred / ((centred * centred).mean(axis=(0, 1, 2)) + 1e-5).sqrt() * gamma + beta


def formula(block: Unit, w: dict[str, Tensor], x: Tensor, stride: int, first: bool) -> Tensor:
    """What the block computes in training, of arithmetic and convolutions; `w` are its parameters."""
    before, after = order(block.unit, block.depth)
    if first and before[0] != "conv":
        before = before[before.index("conv") :]
    strides = [block_conv.options["stride"] for block_conv in convolutions(block)]
    numbers = itertools.count(1)
    bn_numbers = itertools.count(2 if first and block.unit == "full-preact" else 1)

    def run(steps: list[str], x: Tensor) -> Tensor:
        for step in steps:
            if step == "conv":
                i = next(numbers)
                kernel = w[f"conv{i}.weight"]
                x = ops.conv2d(x, kernel, stride=strides[i - 1], pad=kernel.shape[0] // 2)
            elif step == "BN":
                i = next(bn_numbers)
                x = normalised(x, w[f"bn{i}.weight"], w[f"bn{i}.bias"])
            else:
                x = x * Tensor((x.data > 0).astype(x.dtype))
        return x

    start = before.index("conv")
    a = run(before[:start], x)
    f = run(before[start:], a)
    if "downsample.0.weight" in w:
        h = ops.conv2d(a, w["downsample.0.weight"], stride=stride)
        h = normalised(h, w["downsample.1.weight"], w["downsample.1.bias"]) if "downsample.1.weight" in w else h
    else:
        zeros = f.shape[3] - x.shape[3]
        h = x[:, ::stride, ::stride].pad(((0, 0), (0, 0), (0, 0), (zeros // 2, zeros - zeros // 2)))
    if block.skip == "scale":
        h, f = 0.3 * h, 0.7 * f
    elif block.skip == "dropout":
        kept = ops.dropout(Tensor(np.ones(h.shape)), 0.4, rng=minicnn.Generator(3))
        h = h * kept
    elif "gate" in block.skip:
        g = 1 / (1 + (-ops.conv2d(a, w["gate.weight"], w["gate.bias"], stride=stride)).exp())
        h, f = (1 - g) * h, (g * f if block.skip == "exclusive-gate" else f)
    return run(after, h + f)


def convolutions(block: Unit) -> list[Conv2d]:
    return [getattr(block, f"conv{i}") for i in range(1, block.depth + 1)]


BLOCKS: dict[str, Callable[..., Unit]] = {
    "1 layer": partial(BasicBlock, span=1),
    "2 layers": BasicBlock,
    "3 layers": partial(BasicBlock, span=3),
    "bottleneck": partial(Bottleneck, stride_in="3x3"),
    "bottleneck as in the paper": partial(Bottleneck, stride_in="1x1"),
}
SHAPES = {  # width (a bottleneck's is a quarter), stride, shortcut, first
    "of the same shape": (8, 1, "A", False),
    "of the same shape, first": (8, 1, "A", True),
    "projected without need": (8, 1, "C", False),
    "padded": (12, 2, "A", False),
    "projected": (12, 2, "B", False),
    "projected, first": (12, 1, "B", True),
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_its_formula(unit, skip, kind):
    rng = np.random.default_rng(1)
    for case, (width, stride, shortcut, first) in SHAPES.items():
        block = BLOCKS[kind](
            8, width // 4 if "bottleneck" in kind else width, stride, shortcut=shortcut, first=first,
            unit=unit, skip=skip, skip_scale=0.3, residual_scale=0.7, skip_dropout=0.4,
        )  # fmt: skip
        block.to(device.name, np.float64)
        if skip == "dropout":
            block.dropout.rng = minicnn.Generator(3)
        parameters = dict(block.named_parameters())
        for tensor in parameters.values():
            tensor.data += rng.normal(0, 0.3, tensor.shape)
        copies = {name: Tensor(tensor.data.copy(), requires_grad=True) for name, tensor in parameters.items()}
        x, again = (Tensor(a, requires_grad=True) for a in [rng.normal(0, 1, (3, 6, 6, 8))] * 2)

        with kernels.use("reference"):
            y, expected = block(x), formula(block, copies, again, stride, first)
            gy = rng.normal(0, 1, y.shape)
            y.backward(gy)
            expected.backward(gy)
        pairs = {"y": (y.data, expected.data), "gx": (x.grad, again.grad)}
        pairs |= {name: (parameters[name].grad, copies[name].grad) for name in parameters}
        for name, (value, wanted) in pairs.items():
            atol, message = 1e-10 * max(np.abs(wanted).max(), 1), f"{name} of a unit {case}"
            np.testing.assert_allclose(value, wanted, rtol=0, atol=atol, err_msg=message)


def tiny(block: Callable[..., Unit], in_channels: int = 3, **form) -> ResNet:
    stem = Conv2d(in_channels, 8, 3, pad=1, bias=False)
    return ResNet(partial(block, shortcut="B", **form), (2, 1, 1), (8, 8, 16), 10, stem=stem).to(device.name)


@pytest.mark.parametrize(("unit", "skip"), FORMS)
def test_a_step_is_the_same_on_all_backends(unit, skip):
    x = Tensor(np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype(np.float32))

    def step(backend: str) -> tuple[float, dict]:
        minicnn.seed(0)
        model = tiny(BasicBlock, unit=unit, skip=skip, gate_bias=-1.0)
        with kernels.use(backend):
            loss = models.loss(model(x), np.array([1, 7, 0, 3]))
            loss.backward()
            optim.SGD(model.parameters(), lr=0.1).step()
        assert all(tensor.grad.any() for tensor in model.parameters())
        return loss.item(), model.state_dict()

    (loss, state), (expected_loss, expected) = step("cpu"), step("reference")
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    for name, array in state.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-3, err_msg=name)


@pytest.mark.not_on_host("takes a hundred steps and more")
@pytest.mark.parametrize(("unit", "skip"), FORMS)
def test_learns_32_images_by_heart(unit, skip):
    minicnn.seed(0)
    model = tiny(BasicBlock, in_channels=1, unit=unit, skip=skip, gate_bias=-1.0)
    by_heart.learn(model, *by_heart.some_images(32), lr=5e-3, steps=150)


def logits(model: ResNet) -> np.ndarray:
    model.to(device.name)
    x = Tensor(np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32))
    with no_grad():
        return model(x).data


def test_a_shortcut_scaled_to_nothing_leaves_a_plain_network():
    plain = models.build("plain20")
    scaled = models.build("resnet20", skip="scale", skip_scale=0.0)
    scaled.load_state_dict(plain.state_dict())
    np.testing.assert_allclose(logits(scaled), logits(plain), rtol=1e-5, atol=1e-6)


def test_a_closed_gate_is_none():
    identity = models.build("resnet20")
    gated = models.build("resnet20", skip="shortcut-gate", gate_bias=-100.0)
    gated.load_state_dict(identity.state_dict(), strict=False)
    np.testing.assert_allclose(logits(gated), logits(identity), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("skip", ["exclusive-gate", "shortcut-gate"])
def test_gates_start_from_their_bias(skip):
    with init.skipped():
        biases = [
            (key, tensor.data)
            for key, tensor in models.build("resnet20", skip=skip, gate_bias=-3.0).named_parameters()
            if key.endswith("gate.bias")
        ]
    assert len(biases) == 9
    assert all((bias == -3).all() for _, bias in biases)


def test_a_convolution_on_every_shortcut_is_option_c():
    minicnn.seed(2)
    a = models.build("resnet20", skip="conv1x1")
    minicnn.seed(2)
    b = models.build("resnet20", shortcut="C")
    assert a.state_dict().keys() == b.state_dict().keys()
    np.testing.assert_array_equal(logits(a), logits(b))


@pytest.mark.parametrize(("span", "units"), [(1, 18), (2, 9), (3, 6)])
def test_shortcuts_span_one_two_or_three_layers(span, units):
    model = models.build("resnet20", span=span, unit="full-preact")
    blocks = [module for module in model.modules() if isinstance(module, Unit)]
    assert [block.depth for block in blocks] == [span] * units
    assert logits(model).shape == (2, 10)


def test_full_preactivation_is_computed_in_fused_ops():
    names: list[str] = []
    with observe(lambda event: names.append(event.name)):
        logits(tiny(BasicBlock, unit="full-preact"))
    # 4 units of 2 convolutions, 2 projections; the stem's activation is the first unit's, the last one follows the sum
    expected = ["conv2d"] * 11 + ["bn_relu"] * 9 + ["add"] * 4 + ["global_avg_pool", "linear"]
    assert sorted(names) == sorted(expected)


@pytest.mark.not_on_host("goes through a thousand layers and back")
def test_resnet_1001_goes_back_through_all_its_layers():
    """And that with a stack for no more than a few hundred calls."""
    minicnn.seed(0)
    model = models.build("resnet1001", unit="full-preact").to(device.name)
    x = Tensor(np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32))
    frame, calls = sys._getframe(), 0
    while frame:
        frame, calls = frame.f_back, calls + 1
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(calls + 200)
        with kernels.use("reference"):
            models.loss(model(x), np.array([1, 7])).backward()
        sizes = [float(np.abs(tensor.grad).max()) for tensor in model.parameters()]
        del model
    finally:
        sys.setrecursionlimit(limit)
    assert numpy.isfinite(sizes).all() and all(sizes)


def test_running_statistics_are_kept_by_every_batch_norm():
    model = tiny(Bottleneck, stride_in="3x3", unit="full-preact", skip="conv1x1")
    before = {name: array.copy() for name, array in model.named_buffers()}
    logits(model)
    assert len(before) == 2 * sum(isinstance(module, BatchNorm) for module in model.modules())
    assert all((array != before[name]).any() for name, array in model.named_buffers())


class TestAgainstTorch:
    """Whole small networks with the same weights: logits in evaluation, and all weights after a step, in float64."""

    @pytest.mark.parametrize(
        ("block", "form"),
        [
            (BasicBlock, {"unit": "full-preact"}),
            (partial(Bottleneck, stride_in="3x3"), {"unit": "full-preact"}),
            (BasicBlock, {"skip": "exclusive-gate"}),
            (BasicBlock, {"skip": "shortcut-gate"}),
            (partial(Bottleneck, stride_in="3x3"), {"skip": "exclusive-gate"}),
        ],
    )
    def test_logits_and_a_training_step(self, block, form):
        torch = pytest.importorskip("torch")
        from tests.models import torch_residual

        torch.manual_seed(0)
        theirs = torch_residual.Net(block is not BasicBlock, **form).double()
        with torch.no_grad():
            for tensor in theirs.state_dict().values():
                if tensor.ndim == 1:
                    tensor += torch.rand(tensor.shape)  # no gamma of 1, no beta of 0
        ours = tiny(block, **form).to(dtype=np.float64)
        interop.load_torch(ours, theirs.state_dict())
        x = np.random.default_rng(0).normal(size=(4, 12, 12, 3))
        images = torch.from_numpy(device.host(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
        with no_grad(), torch.no_grad():
            y, expected = ours.eval()(Tensor(x)).numpy(), theirs.eval()(images).numpy()
        numpy.testing.assert_allclose(y, expected, rtol=0, atol=1e-10 * abs(expected).max())

        labels = [1, 7, 0, 3]
        torch.nn.functional.cross_entropy(theirs.train()(images), torch.tensor(labels)).backward()
        torch.optim.SGD(theirs.parameters(), lr=0.1).step()
        models.loss(ours.train()(Tensor(x)), np.array(labels)).backward()
        optim.SGD(ours.parameters(), lr=0.1).step()
        stepped = {name: value for name, value in theirs.state_dict().items() if "num_batches" not in name}
        result = interop.to_torch(ours)
        assert result.keys() == stepped.keys()
        for name, value in result.items():
            numpy.testing.assert_allclose(value, stepped[name].numpy(), rtol=1e-8, atol=1e-9, err_msg=name)
