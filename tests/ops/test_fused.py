"""A fused op is its composition: values, all gradients, running statistics."""

from __future__ import annotations

import contextlib

import pytest

import kernels
from minicnn import Tensor, observe, ops
from tests.device import np
from tests.strategies import spread

X, W, B, GAMMA, BETA, RESIDUAL = ((3, 5, 4, 4), (3, 2, 2, 6), (6,), (4,), (4,), (3, 5, 4, 4))
FUSED = {
    "bn_relu": (ops.bn_relu, [X, GAMMA, BETA], {"running": True}),
    "bn_relu, residual": (ops.bn_relu, [X, GAMMA, BETA, RESIDUAL], {"running": True}),
    "bn_relu, residual, no running": (ops.bn_relu, [X, GAMMA, BETA, RESIDUAL], {}),
    "bn_relu, momentum and eps": (ops.bn_relu, [X, GAMMA, BETA], {"running": True, "momentum": 0.7, "eps": 0.1}),
    "bn_relu, evaluation": (ops.bn_relu, [X, GAMMA, BETA], {"running": True, "training": False}),
    "bn_relu, evaluation, residual": (
        ops.bn_relu,
        [X, GAMMA, BETA, RESIDUAL],
        {"running": True, "training": False, "eps": 0.1},
    ),
    "bn_relu of vectors": (ops.bn_relu, [(7, 4), GAMMA, BETA], {"running": True}),
    "conv_relu": (ops.conv_relu, [X, W, B], {"groups": 2}),
    "conv_relu, no bias": (ops.conv_relu, [X, W], {"groups": 2, "stride": 2}),
    "conv_relu, residual": (ops.conv_relu, [X, W, B, (3, 2, 3, 6)], {"groups": 2, "stride": 2, "pad": (0, 1)}),
    "conv_relu, all options": (
        ops.conv_relu,
        [X, W, B],
        {"groups": 2, "stride": (1, 2), "pad": ((2, 0), (1, 1)), "dilation": (2, 1)},
    ),
}
PARTS = {"bn_relu": {"batch_norm", "add", "relu"}, "conv_relu": {"conv2d", "add", "relu"}}


def test_every_fused_op_is_here():
    public = {name for name in ops.__all__ if "fused" in getattr(getattr(ops, name), "__module__", "")}
    assert public == {name.partition(",")[0].partition(" ")[0] for name in FUSED} == set(PARTS)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", FUSED)
def test_fused_equals_composed(name, backend, dtype, tolerance):
    op, shapes, options = FUSED[name]
    rng = np.random.default_rng(3)
    arrays = [spread(rng, shape).astype(dtype) for shape in shapes]
    gy = None

    def outcome(context):
        nonlocal gy
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        running = np.linspace(-0.3, 0.3, 4, dtype=dtype), np.linspace(0.5, 2, 4, dtype=dtype)
        events = []
        with kernels.use(backend), context, observe(events.append):
            y = op(*tensors, **(options | ({"running": running} if "running" in options else {})))
            gy = rng.standard_normal(y.shape).astype(dtype) if gy is None else gy
            y.backward(gy)
        return [y.data, *(x.grad for x in tensors), *running], {e.name for e in events}

    fused, names = outcome(contextlib.nullcontext())
    composed, part_names = outcome(ops.fused.disabled())
    assert names == {op.__name__}
    assert part_names <= PARTS[op.__name__]
    assert "relu" in part_names
    assert 0 < np.count_nonzero(fused[0]) < fused[0].size  # the ReLU works on both of its sides
    for a, b in zip(fused, composed, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1))
    if options.get("running") and options.get("training", True):
        assert not np.allclose(fused[-2], np.linspace(-0.3, 0.3, 4))


def test_disabled_ends_with_its_block_even_after_an_error():
    def names():
        events, one = [], np.ones((1, 2, 2, 1))
        with observe(events.append):
            ops.conv_relu(Tensor(one), np.ones((1, 1, 1, 1)))
        return [e.name for e in events]

    with pytest.raises(KeyError), ops.fused.disabled():
        assert names() == ["conv2d", "relu"]
        raise KeyError
    assert names() == ["conv_relu"]
