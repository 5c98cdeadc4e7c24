"""Every op against PyTorch in float64, on both backends of NumPy arrays: values and all gradients, random upstream."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from minicnn import Generator, Tensor, ops
from tests.device import np
from tests.ops.calls import CALLS, labels, run
from tests.torch_ops import F, avg_pool, batch_norm, batch_norm_eval, conv2d, from_array, max_pool, nchw, nhwc, torch

FEWER = settings.get_profile(settings.get_current_profile_name()).max_examples // 3


def positive(x):
    return x * x + 0.5


def axes_of(x, axis):
    return tuple(range(x.ndim)) if axis is None else axis


def pad(x, widths):
    pairs = ((widths, widths),) * x.ndim if isinstance(widths, int) else widths
    pairs = pairs if isinstance(pairs[0], tuple) else (pairs,) * x.ndim
    return F.pad(x, [n for before_after in reversed(pairs) for n in before_after])


def getitem(x, index):
    if index == slice(None, None, -2):  # PyTorch has no negative steps
        return x.flip(0)[::2]
    return x[index]


def cross_entropy(x, probabilities, **options):
    return F.cross_entropy(x, from_array(labels(x.detach().numpy(), probabilities)), **options)


def dropout(x, p, seed):
    """With minicnn's mask: what it leaves of an array of ones."""
    mask = ops.dropout(Tensor(np.ones(tuple(x.shape))), p, rng=Generator(seed)).data > 0
    return x * from_array(mask) / (1 - p)


TORCH = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": lambda a, b: a / positive(b),
    "maximum": lambda a, b: torch.maximum(a, 2.5 * b),
    "maximum, number": lambda a: a.clamp(min=0),
    "neg": torch.neg,
    "pow": lambda x, exponent: positive(x) ** exponent,
    "exp": torch.exp,
    "log": lambda x: positive(x).log(),
    "sqrt": lambda x: positive(x).sqrt(),
    "matmul": torch.matmul,
    "sum": lambda x, axis, keepdims: x.sum(axes_of(x, axis), keepdims),
    "mean": lambda x, axis, keepdims: x.mean(axes_of(x, axis), keepdims),
    "max": lambda x, axis, keepdims: x.amax(axes_of(x, axis), keepdims),
    "reshape": lambda x: x.reshape(x.shape[-1], -1),
    "flatten": lambda x: x.flatten(1),
    "transpose": lambda x, axes: x.permute(axes or (2, 1, 0)),
    "pad": pad,
    "getitem": getitem,
    "conv2d": conv2d,
    "conv2d, no bias": conv2d,
    "conv_relu": lambda *arrays, **options: conv2d(*arrays, **options).relu(),
    "conv_relu, residual": lambda x, w, b, residual, **options: (conv2d(x, w, b, **options) + residual).relu(),
    "linear": lambda x, w, b: F.linear(x, w.T, b),
    "linear, no bias": lambda x, w: F.linear(x, w.T),
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "avg_pool, count_pad": lambda x, **options: avg_pool(x, **options, count_pad=True),
    "global_avg_pool": lambda x: F.adaptive_avg_pool2d(nchw(x), 1).flatten(1),
    "batch_norm": batch_norm,
    "batch_norm, evaluation": batch_norm_eval,
    "bn_relu": lambda x, gamma, beta, residual: (batch_norm(x, gamma, beta) + residual).relu(),
    "bn_relu, no residual": lambda x, gamma, beta: batch_norm(x, gamma, beta).relu(),
    "bn_relu, evaluation": lambda x, gamma, beta, residual: (batch_norm_eval(x, gamma, beta) + residual).relu(),
    "lrn": lambda x, size, alpha, beta, k: nhwc(F.local_response_norm(nchw(x), size, size * alpha, beta, k)),
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "dropout": dropout,
    "concat": lambda *xs: torch.cat(xs, dim=-1),
    "concat, first axis": lambda *xs: torch.cat(xs, dim=0),
    "pad_channels": lambda x, before, after: F.pad(x, (before, after)),
    "subsample": lambda x, stride: (
        x[:, ::stride, ::stride] if isinstance(stride, int) else x[:, :: stride[0], :: stride[1]]
    ),
    "softmax": lambda x: x.softmax(-1),
    "cross_entropy": cross_entropy,
}


def close(value, expected):
    expected = expected.detach().numpy()
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-10 * max(abs(expected).max(initial=0), 1e-30))


def test_only_what_pytorch_lacks_is_left_out():
    assert set(CALLS) - set(TORCH) == {"lcn"}


def compare(name, arrays, options):
    y, gy, grads = run(name, arrays, options)
    tensors = [from_array(a).clone().requires_grad_() for a in arrays]
    expected = TORCH[name](*tensors, **options)
    close(y, expected)
    for g, wanted in zip(grads, torch.autograd.grad(expected, tensors, from_array(gy)), strict=True):
        close(g, wanted)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", TORCH)
@settings(max_examples=FEWER)
@given(data=st.data())
def test_value_and_gradients_equal_pytorchs(name, backend, data):
    draw = data.draw(CALLS[name].inputs)
    with kernels.use(backend):
        compare(name, draw.arrays(), draw.options)


SHAPES = {"conv2d": [(2, 9, 8, 4), (3, 2, 2, 6), (6,)], "pool": [(2, 8, 7, 3)], "scores": [(5, 4)]}
NAMED = [
    ("conv2d", "conv2d", {"pad": ((2, 0), (1, 3)), "groups": 2}),
    ("conv2d", "conv2d", {"pad": ((0, 1), (2, 0)), "groups": 2, "stride": (3, 2), "dilation": (2, 3)}),
    ("conv_relu", "conv2d", {"pad": ((1, 1), (0, 2)), "groups": 2, "dilation": 2}),
    ("max_pool", "pool", {"size": 3, "stride": 2, "pad": ((0, 0), (0, 0)), "ceil": True}),
    ("max_pool", "pool", {"size": (3, 2), "stride": (2, 3), "pad": ((1, 1), (1, 1)), "ceil": True}),
    ("avg_pool", "pool", {"size": 3, "stride": 2, "pad": ((1, 1), (1, 1)), "ceil": True}),
    ("avg_pool, count_pad", "pool", {"size": 3, "stride": 2, "pad": ((1, 1), (1, 1)), "ceil": True}),
    *[
        ("cross_entropy", "scores", {"probabilities": q, "label_smoothing": e, "reduction": r})
        for q in (False, True)
        for e in (0.0, 0.2, 1.0)
        for r in ("mean", "sum", "none")
    ],
]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name, shapes, options", NAMED, ids=str)
def test_options_that_chance_might_leave_out(name, shapes, options, backend):
    rng = np.random.default_rng(math.prod(SHAPES[shapes][0]))
    with kernels.use(backend):
        compare(name, [rng.standard_normal(shape) for shape in SHAPES[shapes]], options)
