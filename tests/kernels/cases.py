"""Every kernel that has a gradient, called the same way: inputs, forward, backward.

Tests run over this table: the gradient against a numerical one, float32 against float64, the reference against
PyTorch, a fast backend against the reference. `k` is the backend under test, options are those that were drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from hypothesis import strategies as st

from kernels.geometry import windows
from tests.device import np
from tests.strategies import Drawn, Shape, channels, convolutions, drawn, maps, pools


class Case(NamedTuple):
    inputs: st.SearchStrategy[Drawn]
    forward: Callable  # (k, *arrays, **options) -> y
    backward: Callable  # (k, gy, y, *arrays, **options) -> one gradient for each array


def conv_grads(k, gy, x, w, b, options):
    return (
        k.conv2d_input_grad(gy, w, x.shape, **options),
        k.conv2d_weight_grad(gy, x, w.shape, **options),
        k.bias_grad(gy),
    )


def with_residual(draw: Drawn) -> Drawn:
    """A convolution's (x, w, b), and a map to add to its result."""
    (n, *_), (kh, kw, _, o), _ = draw.shapes
    stride, pad, dilation = (draw.options[name] for name in ("stride", "pad", "dilation"))
    rows, cols = windows(draw.shapes[0], (kh, kw), stride, pad, dilation)
    return replace(draw, shapes=(*draw.shapes, (n, rows.outputs, cols.outputs, o)))


def constants(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, var) for batch norm in evaluation: fixed, whatever x is."""
    c = x.shape[-1]
    return np.linspace(-0.5, 0.5, c, dtype=x.dtype), np.linspace(0.5, 2, c, dtype=x.dtype)


def targets(logits: np.ndarray, probabilities: bool) -> np.ndarray:
    """Labels for logits (N, K): class numbers, or rows of weights that need not sum to 1."""
    n, classes = logits.shape
    if probabilities:
        return np.linspace(0, 1, n * classes, dtype=logits.dtype).reshape(n, classes)
    return (np.arange(n, dtype=np.uint8) * 5 + 1) % classes


def alone(shapes: st.SearchStrategy[Shape]) -> st.SearchStrategy[tuple[Shape]]:
    return st.tuples(shapes)


matrices = st.tuples(st.integers(1, 6), st.integers(2, 9))
residual_convolutions = convolutions().map(with_residual)
linears = st.builds(lambda n, i, o: ((n, i), (i, o), (o,)), *[st.integers(1, 7)] * 3)
batches = maps(least=3).map(lambda shape: (shape, shape[-1:], shape[-1:]))  # x, gamma, beta
residuals = batches.map(lambda shapes: (*shapes, shapes[0]))
branches = maps().flatmap(
    lambda shape: st.lists(channels, min_size=1, max_size=4).map(lambda cs: tuple((*shape[:-1], c) for c in cs))
)
lrn_options = {
    "size": st.sampled_from([1, 3, 5, 7]),
    "alpha": st.sampled_from([1e-4, 0.9, 1.1]),  # a tiny alpha hides every mistake
    "beta": st.sampled_from([0.5, 0.75, 1.0]),
    "k": st.sampled_from([1.0, 2.0]),
}
wide_maps = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12))
contrast_maps = st.tuples(st.integers(1, 2), st.integers(3, 6), st.integers(3, 6), st.integers(2, 4))
smoothing = st.sampled_from([0.0, 0.1, 0.5])
keys = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


CASES: dict[str, Case] = {
    "conv2d": Case(
        convolutions(),
        lambda k, x, w, b, **options: k.conv2d(x, w, b, **options),
        lambda k, gy, y, x, w, b, **options: conv_grads(k, gy, x, w, b, options),
    ),
    "conv2d_relu": Case(
        convolutions(),
        lambda k, x, w, b, **options: k.conv2d_relu(x, w, b, **options),
        lambda k, gy, y, x, w, b, **options: conv_grads(k, k.relu_grad(gy, y), x, w, b, options),
    ),
    "conv2d_relu, residual": Case(
        residual_convolutions,
        lambda k, x, w, b, residual, **options: k.conv2d_relu(x, w, b, residual, **options),
        lambda k, gy, y, x, w, b, residual, **options: (
            *conv_grads(k, k.relu_grad(gy, y), x, w, b, options),
            k.relu_grad(gy, y),
        ),
    ),
    "linear": Case(
        drawn(linears),
        lambda k, x, w, b: k.linear(x, w, b),
        lambda k, gy, y, x, w, b: (k.linear_input_grad(gy, w), k.linear_weight_grad(gy, x), k.bias_grad(gy)),
    ),
    "max_pool": Case(
        pools(),
        lambda k, x, **options: k.max_pool(x, **options)[0],
        lambda k, gy, y, x, **options: (k.max_pool_grad(gy, k.max_pool(x, **options)[1], x.shape, **options),),
    ),
    "avg_pool": Case(
        pools(),
        lambda k, x, **options: k.avg_pool(x, **options),
        lambda k, gy, y, x, **options: (k.avg_pool_grad(gy, x.shape, **options),),
    ),
    "avg_pool, count_pad": Case(
        pools(),
        lambda k, x, **options: k.avg_pool(x, **options, count_pad=True),
        lambda k, gy, y, x, **options: (k.avg_pool_grad(gy, x.shape, **options, count_pad=True),),
    ),
    "global_avg_pool": Case(
        drawn(alone(maps())),
        lambda k, x: k.global_avg_pool(x),
        lambda k, gy, y, x: (k.global_avg_pool_grad(gy, x.shape),),
    ),
    "batch_norm": Case(
        drawn(batches, eps=st.sampled_from([1e-5, 1e-3])),
        lambda k, x, gamma, beta, eps: k.batch_norm(x, gamma, beta, *k.batch_norm_stats(x), eps=eps),
        lambda k, gy, y, x, gamma, beta, eps: k.batch_norm_grad(gy, x, gamma, *k.batch_norm_stats(x), eps=eps),
    ),
    "batch_norm, evaluation": Case(
        drawn(batches),
        lambda k, x, gamma, beta: k.batch_norm(x, gamma, beta, *constants(x)),
        lambda k, gy, y, x, gamma, beta: k.batch_norm_eval_grad(gy, x, gamma, *constants(x)),
    ),
    "bn_relu": Case(
        drawn(residuals),
        lambda k, x, gamma, beta, residual: k.bn_relu(x, gamma, beta, *k.batch_norm_stats(x), residual),
        lambda k, gy, y, x, gamma, beta, residual: k.bn_relu_grad(gy, y, x, gamma, *k.batch_norm_stats(x)),
    ),
    "bn_relu, evaluation, no residual": Case(
        drawn(batches),
        lambda k, x, gamma, beta: k.bn_relu(x, gamma, beta, *constants(x)),
        lambda k, gy, y, x, gamma, beta: k.bn_relu_eval_grad(gy, y, x, gamma, *constants(x))[:3],
    ),
    "lrn": Case(
        drawn(alone(wide_maps), **lrn_options),
        lambda k, x, /, **options: k.lrn(x, **options),
        lambda k, gy, y, x, /, **options: (k.lrn_grad(gy, x, **options),),
    ),
    "lcn": Case(
        drawn(alone(contrast_maps), size=st.sampled_from([1, 3, 5, 9]), eps=st.sampled_from([1e-8, 1.0])),
        lambda k, x, **options: k.lcn(x, **options),
        lambda k, gy, y, x, **options: (k.lcn_grad(gy, x, **options),),
    ),
    "relu": Case(drawn(alone(maps())), lambda k, x: k.relu(x), lambda k, gy, y, x: (k.relu_grad(gy, y),)),
    "sigmoid": Case(drawn(alone(maps())), lambda k, x: k.sigmoid(x), lambda k, gy, y, x: (k.sigmoid_grad(gy, y),)),
    "tanh": Case(drawn(alone(maps())), lambda k, x: k.tanh(x), lambda k, gy, y, x: (k.tanh_grad(gy, y),)),
    "concat": Case(
        drawn(branches),
        lambda k, *xs: k.concat(*xs),
        lambda k, gy, y, *xs: k.concat_grad(gy, tuple(x.shape[-1] for x in xs)),
    ),
    "pad_channels": Case(
        drawn(alone(maps()), before=st.integers(0, 3), after=st.integers(0, 3)),
        lambda k, x, before, after: k.pad_channels(x, before, after),
        lambda k, gy, y, x, before, after: (k.pad_channels_grad(gy, before, after),),
    ),
    "subsample": Case(
        drawn(alone(maps()), stride=st.sampled_from([1, 2, 3, (2, 1)])),
        lambda k, x, stride: k.subsample(x, stride),
        lambda k, gy, y, x, stride: (k.subsample_grad(gy, x.shape, stride),),
    ),
    "softmax": Case(drawn(alone(matrices)), lambda k, x: k.softmax(x), lambda k, gy, y, x: (k.softmax_grad(gy, y),)),
    "cross_entropy": Case(
        drawn(alone(matrices), probabilities=st.booleans(), label_smoothing=smoothing),
        lambda k, x, probabilities, **options: k.cross_entropy(x, targets(x, probabilities), **options)[0],
        lambda k, gy, y, x, probabilities, **options: (
            k.cross_entropy_grad(gy, k.softmax(x), targets(x, probabilities), **options),
        ),
    ),
    "dropout": Case(
        drawn(alone(maps()), p=st.sampled_from([0.0, 0.3, 0.5]), key=keys),
        lambda k, x, p, key: k.dropout(x, p, key),
        lambda k, gy, y, x, p, key: (k.dropout(gy, p, key),),
    ),
}
