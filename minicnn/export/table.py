"""Each op of `minicnn.ops` in ONNX's operators: TABLE, one function an op.

A function takes the graph, the op's result and the op's own arguments, as raw arrays whose shapes count, and returns
what the result has become in the graph. Windows that `ceil` adds are given as padding that makes room for them:
by its `ceil_mode` ONNX, up to version 19, means one window more where the last lies wholly in padding, onnxruntime not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernels import reference
from kernels.geometry import Axis, Padding, Pair, padding, pair, windows
from minicnn.export.graph import Array, Flattened, Graph, order

# ---- Convolution and fully connected layers ------------------------------------------------------------------------


def conv2d(
    graph: Graph,
    y: Array,
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> str:
    """The weight (KH, KW, C/groups, O) becomes (O, C/groups, KH, KW)."""
    (top, bottom), (left, right) = padding(pad)
    inputs = [graph.name(x), graph.constant(w, w.transpose(3, 2, 0, 1))]
    if b is not None:
        inputs.append(graph.constant(b))
    return graph.node(
        "Conv",
        *inputs,
        kernel_shape=w.shape[:2],
        strides=pair(stride),
        pads=(top, left, bottom, right),
        dilations=pair(dilation),
        group=groups,
    )


def linear(graph: Graph, y: Array, x: Array, w: Array, b: Array | None = None) -> str:
    """The weight (in, out) becomes (out, in); reordered where the input is a map that lies as C, H, W there."""
    flat = graph.flattened(x)
    if flat is None:
        rows, weight = graph.name(x), w.T
    else:
        _, h, width, c = flat.shape
        rows = graph.node("Flatten", graph.name(flat), axis=1)
        weight = w.reshape(h, width, c, -1).transpose(2, 0, 1, 3).reshape(w.shape).T
    inputs = [rows, graph.constant(w, weight)]
    if b is not None:
        inputs.append(graph.constant(b))
    return graph.node("Gemm", *inputs, transB=1)


# ---- Pooling -------------------------------------------------------------------------------------------------------


def _past(axis: Axis) -> int:
    """How far the last window reaches past the input."""
    return max((axis.outputs - 1) * axis.stride - axis.before + axis.size - axis.length, 0)


def _pool(graph: Graph, kind: str, value: str, rows: Axis, cols: Axis, **attributes: Any) -> str:
    return graph.node(
        kind,
        value,
        kernel_shape=(rows.size, cols.size),
        strides=(rows.stride, cols.stride),
        pads=(rows.before, cols.before, _past(rows), _past(cols)),
        **attributes,
    )


def max_pool(
    graph: Graph, y: Array, x: Array, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False
) -> str:
    return _pool(graph, "MaxPool", graph.name(x), *windows(x.shape, size, stride, pad, ceil=ceil))


def avg_pool(
    graph: Graph,
    y: Array,
    x: Array,
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
    count_pad: bool = False,
) -> str:
    rows, cols = windows(x.shape, size, stride, pad, ceil=ceil)
    value = graph.name(x)
    if count_pad and (_past(rows) > rows.after or _past(cols) > cols.after):
        # What `ceil` adds does not count, but the padding does: that has to be real, and then it is not padding.
        value = _padded(graph, value, [(0, 0), rows[3:5], cols[3:5], (0, 0)])
        rows, cols = (
            axis._replace(length=axis.before + axis.length + axis.after, before=0, after=0) for axis in (rows, cols)
        )
        count_pad = False
    return _pool(graph, "AveragePool", value, rows, cols, count_include_pad=int(count_pad))


def global_avg_pool(graph: Graph, y: Array, x: Array) -> str:
    return graph.node("Flatten", graph.node("GlobalAveragePool", graph.name(x)), axis=1)


# ---- Normalisation -------------------------------------------------------------------------------------------------


def batch_norm(
    graph: Graph,
    y: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    running: tuple[Array, Array] | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    training: bool = True,
) -> str:
    if training or running is None:
        raise graph.cannot("training=True")
    if x.ndim not in (2, 4):
        raise graph.cannot(f"x of {x.ndim} axes")
    constants = (graph.constant(v) for v in (gamma, beta, *running))
    return graph.node("BatchNormalization", graph.name(x), *constants, epsilon=eps)


def lrn(
    graph: Graph, y: Array, x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> str:
    """ONNX multiplies the mean of the window by alpha, not its sum."""
    if x.ndim != 4:
        raise graph.cannot(f"x of {x.ndim} axes")
    return graph.node("LRN", graph.name(x), size=size, alpha=alpha * size, beta=beta, bias=k)


def lcn(graph: Graph, y: Array, x: Array, *, size: int = 9, eps: float = 1e-8) -> str:
    """From its parts: v = x − blur(x), σ = √blur(v²), y = v / max(σ, mean of σ, eps)."""
    point = np.zeros((1, size, size), np.float32)
    point[0, size // 2, size // 2] = 1
    bell = reference._blur(point, size)[None]  # (1, 1, size, size): what a blur makes of a point is its weights
    weight = graph.constant(bell)

    def blur(value: str) -> str:
        mean = graph.node("ReduceMean", value, axes=[1])  # (N, 1, H, W)
        return graph.node("Conv", mean, weight, kernel_shape=(size, size), pads=(size // 2,) * 4)

    v = graph.node("Sub", graph.name(x), blur(graph.name(x)))
    sigma = graph.node("Sqrt", blur(graph.node("Mul", v, v)))
    mean = graph.node("ReduceMean", sigma, axes=[2, 3])
    return graph.node("Div", v, graph.node("Max", sigma, mean, graph.constant(eps)))


# ---- Arithmetic ----------------------------------------------------------------------------------------------------


def _elementwise(kind: str) -> Callable[..., str]:
    def convert(graph: Graph, y: Array, *operands: Any) -> str:
        return graph.node(kind, *(graph.name(a, y.ndim) for a in operands))

    return convert


def power(graph: Graph, y: Array, x: Array, *, exponent: float) -> str:
    return graph.node("Pow", graph.name(x), graph.name(exponent))


def matmul(graph: Graph, y: Array, a: Array, b: Array) -> str:
    return graph.theirs(graph.node("MatMul", graph.ours(a), graph.ours(b)), y.ndim)


def softmax(graph: Graph, y: Array, x: Array) -> str:
    return graph.node("Softmax", graph.name(x), axis=order(x.ndim).index(x.ndim - 1))


def _reduction(kind: str) -> Callable[..., str]:
    def convert(
        graph: Graph, y: Array, x: Array, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
    ) -> str:
        given = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        reduced, lie = [i % x.ndim for i in given], order(x.ndim)
        where = [lie.index(i) for i in reduced]
        if kind == "ReduceSum":
            value = graph.node(kind, graph.name(x), graph.integers(*where), keepdims=int(keepdims))
        else:
            value = graph.node(kind, graph.name(x), axes=where, keepdims=int(keepdims))
        if keepdims:
            return value
        left = [i for i in lie if i not in reduced]
        return graph.rearranged(value, left, [sorted(left)[i] for i in order(y.ndim)])

    return convert


def cast(graph: Graph, y: Array, x: Array, *, dtype: Any) -> str:
    if np.dtype(dtype).itemsize < 4:
        raise graph.cannot(f"dtype={np.dtype(dtype)}")
    return graph.name(x)


def dropout(graph: Graph, y: Array, x: Array, p: float, *, rng: Any, training: bool = True) -> str:
    raise graph.cannot("training=True")  # in evaluation it does nothing, and nothing is seen of it


# ---- Shapes --------------------------------------------------------------------------------------------------------


def _padded(graph: Graph, value: str, widths: Sequence[Sequence[int]]) -> str:
    """`value` between zeros, (before, after) of each axis in the order that they have here."""
    lie = [widths[i] for i in order(len(widths))]
    return graph.node("Pad", value, graph.integers(*(before for before, _ in lie), *(after for _, after in lie)))


def pad(graph: Graph, y: Array, x: Array, *, widths: Any) -> str:
    whole = np.broadcast_to(widths, (x.ndim, 2)).tolist()
    if any(whole[0]):
        raise graph.cannot("padding of the batch")
    return _padded(graph, graph.name(x), whole)


def pad_channels(graph: Graph, y: Array, x: Array, before: int, after: int) -> str:
    return _padded(graph, graph.name(x), [(0, 0)] * (x.ndim - 1) + [(before, after)])


def subsample(graph: Graph, y: Array, x: Array, stride: Pair) -> str:
    return _sliced(graph, x, [slice(None), *(slice(None, None, step) for step in pair(stride)), slice(None)])


def concat(graph: Graph, y: Array, *xs: Array, axis: int = -1) -> str:
    return graph.node("Concat", *(graph.name(x) for x in xs), axis=order(y.ndim).index(axis % y.ndim))


def transpose(graph: Graph, y: Array, x: Array, *, axes: tuple[int, ...] | None = None) -> str:
    wanted = range(x.ndim)[::-1] if axes is None else [i % x.ndim for i in axes]
    return graph.rearranged(graph.name(x), list(order(x.ndim)), [wanted[i] for i in order(y.ndim)])


def reshape(graph: Graph, y: Array, x: Array, *, shape: int | tuple[int, ...]) -> str | Flattened:
    if x.ndim == 4 and y.shape == (graph.batch, x[0].size):
        return Flattened(x)
    return _reshaped(graph, graph.ours(x), x, y)


def _reshaped(graph: Graph, value: str, x: Array, y: Array) -> str:
    """A value with its axes as here and the elements of y, in the shape of y; the batch stays what it is."""
    if not x.ndim or not y.ndim or len(x) != graph.batch or len(y) != graph.batch:
        raise graph.cannot(f"a change of shape from {x.shape} to {y.shape}, which moves the batch,")
    return graph.theirs(graph.node("Reshape", value, graph.integers(0, *y.shape[1:])), y.ndim)


def getitem(graph: Graph, y: Array, x: Array, *, index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, list) or hasattr(part, "shape") for part in parts):
        raise graph.cannot("an index that is an array")
    taken: list[Any] = [part for part in parts if part is not None]
    dots = taken.index(Ellipsis) if Ellipsis in taken else len(taken)
    taken[dots : dots + 1] = [slice(None)] * (x.ndim - len(taken) + (Ellipsis in taken))
    if taken[0] != slice(None):
        raise graph.cannot("an index into the batch")
    # i is the slice from i to i + 1, whose axis is dropped then; from −1 it goes to the end
    slices = [part if isinstance(part, slice) else slice(part, part + 1 or None) for part in taken]
    value = _sliced(graph, x, slices)
    if y.ndim == x.ndim and None not in parts:
        return value
    return _reshaped(graph, graph.rearranged(value, list(order(x.ndim)), list(range(x.ndim))), x, y)


def _sliced(graph: Graph, x: Array, slices: list[slice]) -> str:
    """x, of each axis the part that a slice says."""
    axes = [i for i, part in enumerate(slices) if part != slice(None)]
    if not axes:
        return graph.name(x)
    starts, stops, steps = zip(*(slices[i].indices(x.shape[i]) for i in axes), strict=True)
    ends = [stop if stop >= 0 else -x.shape[i] - 1 for i, stop in zip(axes, stops, strict=True)]  # −1: before the first
    where = [order(x.ndim).index(i) for i in axes]
    return graph.node("Slice", graph.name(x), *(graph.integers(*n) for n in (starts, ends, where, steps)))


# Left out are `cross_entropy`, which is of training, and what is watched in parts: `ops.fused` and `flatten`.
TABLE: dict[str, Callable[..., str | Flattened]] = {
    "add": _elementwise("Add"),
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "cast": cast,
    "concat": concat,
    "conv2d": conv2d,
    "div": _elementwise("Div"),
    "dropout": dropout,
    "exp": _elementwise("Exp"),
    "getitem": getitem,
    "global_avg_pool": global_avg_pool,
    "lcn": lcn,
    "linear": linear,
    "log": _elementwise("Log"),
    "lrn": lrn,
    "matmul": matmul,
    "max": _reduction("ReduceMax"),
    "max_pool": max_pool,
    "maximum": _elementwise("Max"),
    "mean": _reduction("ReduceMean"),
    "mul": _elementwise("Mul"),
    "neg": _elementwise("Neg"),
    "pad": pad,
    "pad_channels": pad_channels,
    "pow": power,
    "relu": _elementwise("Relu"),
    "reshape": reshape,
    "sigmoid": _elementwise("Sigmoid"),
    "softmax": softmax,
    "sqrt": _elementwise("Sqrt"),
    "sub": _elementwise("Sub"),
    "subsample": subsample,
    "sum": _reduction("ReduceSum"),
    "tanh": _elementwise("Tanh"),
    "transpose": transpose,
}
