"""Every op, called the same way: arrays that get gradients first, drawn options after them.

Tests run over this table: gradients against numerical ones, values and gradients against PyTorch, float32 against
float64. The inputs come from tests/strategies.py, and from the table of the kernels where an op has one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

from minicnn import Generator, Tensor, ops
from tests.device import np
from tests.kernels.cases import (
    alone,
    batches,
    branches,
    constants,
    contrast_maps,
    linears,
    lrn_options,
    matrices,
    residual_convolutions,
    residuals,
    smoothing,
    wide_maps,
)
from tests.strategies import Drawn, Shape, convolutions, drawn, maps, pools


class Call(NamedTuple):
    inputs: st.SearchStrategy[Drawn]
    f: Callable  # (*Tensors, **options) -> Tensor


@st.composite
def broadcast(draw: Callable) -> tuple[Shape, Shape]:
    """Two shapes of one to three axes that NumPy's rules bring together: axes of 1, and axes that one has not."""
    full = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))

    def part() -> Shape:
        kept = full[draw(st.integers(0, len(full) - 1)) :]
        return tuple(draw(st.sampled_from([1, n])) for n in kept)

    return part(), part()


@st.composite
def products(draw: Callable) -> tuple[Shape, Shape]:
    """Two stacks of matrices; leading axes broadcast."""
    n, m, p, batch = (draw(st.integers(1, 4)) for _ in range(4))
    stacks = [(), (1,), (batch,)]
    return (*draw(st.sampled_from(stacks)), n, m), (*draw(st.sampled_from(stacks)), m, p)


any_shape = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
pairs = drawn(broadcast())
single = drawn(alone(any_shape))
three_axes = alone(st.tuples(*[st.integers(1, 4)] * 3))
reductions = drawn(three_axes, axis=st.sampled_from([None, 0, -1, (0, 2), (1, -1), (0, 1, 2)]), keepdims=st.booleans())
indices = st.sampled_from(
    [0, -1, slice(None, None, -2), (Ellipsis, 0), (slice(None), None, 0), [0, 0, -1], (slice(None), np.array([0, 0]))]
)
keyed = {"p": st.sampled_from([0.0, 0.3, 0.5]), "seed": st.integers(0, 2**64 - 1)}
biasless = convolutions().map(lambda d: Drawn(d.shapes[:2], d.options, d.seed, d.layout))


def positive(x):
    """Away from 0 and from the negative, for log, sqrt and division."""
    return x * x + 0.5


def labels(x, probabilities: bool) -> np.ndarray:
    """For logits (N, K): class numbers, or rows of probabilities."""
    n, classes = x.shape
    if not probabilities:
        return (np.arange(n) * 5 + 1) % classes
    rows = np.random.default_rng(n).uniform(0.1, 1, (n, classes))
    return (rows / rows.sum(axis=1, keepdims=True)).astype(x.dtype)


def cross_entropy(x, probabilities, **options):
    return ops.cross_entropy(x, labels(x, probabilities), **options)


def evaluated(op):
    """The op in evaluation, with running statistics that do not depend on x."""
    return lambda x, gamma, beta, *residual: op(x, gamma, beta, *residual, running=constants(x.data), training=False)


CALLS: dict[str, Call] = {
    "add": Call(pairs, lambda a, b: a + b),
    "sub": Call(pairs, lambda a, b: a - b),
    "mul": Call(pairs, lambda a, b: a * b),
    "div": Call(pairs, lambda a, b: a / positive(b)),
    "maximum": Call(pairs, lambda a, b: ops.maximum(a, 2.5 * b)),
    "maximum, number": Call(single, lambda a: ops.maximum(0.0, a)),
    "neg": Call(single, lambda x: -x),
    "pow": Call(
        drawn(alone(any_shape), exponent=st.sampled_from([-1.5, 0.5, 1, 2, 3])),
        lambda x, exponent: positive(x) ** exponent,
    ),
    "exp": Call(single, ops.exp),
    "log": Call(single, lambda x: ops.log(positive(x))),
    "sqrt": Call(single, lambda x: ops.sqrt(positive(x))),
    "matmul": Call(drawn(products()), lambda a, b: a @ b),
    "sum": Call(reductions, ops.sum),
    "mean": Call(reductions, ops.mean),
    "max": Call(reductions, ops.max),
    "reshape": Call(drawn(alone(maps())), lambda x: ops.reshape(x, shape=(x.shape[-1], -1))),
    "flatten": Call(drawn(alone(maps())), ops.flatten),
    "transpose": Call(drawn(three_axes, axes=st.sampled_from([None, (1, 2, 0), (0, -1, 1)])), ops.transpose),
    "pad": Call(drawn(three_axes, widths=st.sampled_from([0, 2, (1, 0), ((0, 1), (2, 0), (1, 1))])), ops.pad),
    "getitem": Call(drawn(three_axes, index=indices), ops.getitem),
    "conv2d": Call(convolutions(), ops.conv2d),
    "conv2d, no bias": Call(biasless, ops.conv2d),
    "conv_relu": Call(convolutions(), ops.conv_relu),
    "conv_relu, residual": Call(residual_convolutions, ops.conv_relu),
    "linear": Call(drawn(linears), ops.linear),
    "linear, no bias": Call(drawn(linears.map(lambda shapes: shapes[:2])), ops.linear),
    "max_pool": Call(pools(), ops.max_pool),
    "avg_pool": Call(pools(), ops.avg_pool),
    "avg_pool, count_pad": Call(pools(), lambda x, **options: ops.avg_pool(x, count_pad=True, **options)),
    "global_avg_pool": Call(drawn(alone(maps())), ops.global_avg_pool),
    "batch_norm": Call(drawn(batches, eps=st.sampled_from([1e-5, 1e-3])), ops.batch_norm),
    "batch_norm, evaluation": Call(drawn(batches), evaluated(ops.batch_norm)),
    "bn_relu": Call(drawn(residuals), ops.bn_relu),
    "bn_relu, no residual": Call(drawn(batches), ops.bn_relu),
    "bn_relu, evaluation": Call(drawn(residuals), evaluated(ops.bn_relu)),
    "lrn": Call(drawn(alone(wide_maps), **lrn_options), lambda x, /, **options: ops.lrn(x, **options)),
    "lcn": Call(
        drawn(alone(contrast_maps), size=st.sampled_from([1, 3, 5]), eps=st.sampled_from([1e-8, 1.0])), ops.lcn
    ),
    "relu": Call(single, ops.relu),
    "sigmoid": Call(single, ops.sigmoid),
    "tanh": Call(single, ops.tanh),
    "dropout": Call(drawn(alone(maps()), **keyed), lambda x, p, seed: ops.dropout(x, p, rng=Generator(seed))),
    "concat": Call(drawn(branches), ops.concat),
    "concat, first axis": Call(
        drawn(st.lists(st.integers(1, 3), min_size=1, max_size=3).map(lambda ns: tuple((n, 2, 3) for n in ns))),
        lambda *xs: ops.concat(*xs, axis=0),
    ),
    "pad_channels": Call(drawn(alone(maps()), before=st.integers(0, 3), after=st.integers(0, 3)), ops.pad_channels),
    "subsample": Call(drawn(alone(maps()), stride=st.sampled_from([1, 2, 3, (2, 1)])), ops.subsample),
    "softmax": Call(drawn(alone(matrices)), ops.softmax),
    "cross_entropy": Call(
        drawn(
            alone(matrices),
            probabilities=st.booleans(),
            label_smoothing=smoothing,
            reduction=st.sampled_from(["mean", "sum", "none"]),
        ),
        cross_entropy,
    ),
}


def run(name: str, arrays, options, upstream=None):
    """(y, gy, gradients) of one call; gy is drawn at random unless given."""
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    y = CALLS[name].f(*tensors, **options)
    gy = np.random.default_rng(7).standard_normal(y.shape) if upstream is None else upstream
    gy = np.asarray(gy, y.dtype)
    y.backward(gy)
    return y.data, gy, [x.grad for x in tensors]
