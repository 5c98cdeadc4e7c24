"""Convolution: im2col in pieces and cuBLAS (columns.py, gemm.py), or with groups the product of convolution.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import array_module, reference
from kernels.cuda import columns, gemm
from kernels.cuda.arrays import Array, Shape, blocks, contiguous, expect, fast, kernels_of
from kernels.cuda.elementwise import finish
from kernels.geometry import Axis, Padding, Pair, windows

_kernels = kernels_of(__file__)

TILE, THREADS = 64, 256  # as in convolution.cu
SLICE = 1024  # rows of a sum of weight gradients, at the least
BLOCKS = 512  # among which those sums are shared, if there are so many slices


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Slide filters over a map: each output is the product of a filter with the window under it.

    x (N, H, W, C), w (KH, KW, C/G, O), b (O,) -> (N, OH, OW, O).
    """
    if not fast(x, w, b):
        return reference.conv2d(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    rows, cols = windows(x.shape, w.shape[:2], stride, pad, dilation)
    return _forward(x, w, b, None, False, rows, cols, groups)


def conv2d_relu(
    x: Array,
    w: Array,
    b: Array | None = None,
    residual: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """= relu(conv2d(x, w, b) + residual), with one pass over what the product wrote, while the cache still has it.

    residual (N, OH, OW, O); None adds nothing.
    """
    options: dict[str, Any] = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    if not fast(x, w, b, residual):
        return reference.conv2d_relu(x, w, b, residual, **options)
    rows, cols = windows(x.shape, w.shape[:2], stride, pad, dilation)
    return _forward(x, w, b, residual, True, rows, cols, groups)


def _forward(
    x: Array, w: Array, b: Array | None, residual: Array | None, rectify: bool, rows: Axis, cols: Axis, groups: int
) -> Array:
    x, w = contiguous(x), contiguous(w)
    b, residual = (None if a is None else contiguous(a) for a in (b, residual))
    o, y_shape = w.shape[3], (len(x), rows.outputs, cols.outputs, w.shape[3])
    expect("conv2d", (rows.size, cols.size, x.shape[3] // groups, o), w=w)
    expect("conv2d", (o,), b=b)
    expect("conv2d", y_shape, residual=residual)
    y = array_module(x).empty(y_shape, x.dtype)
    if groups > 1:
        tiles = -(-len(y.reshape(-1, o)) // TILE), -(-(o // groups) // TILE), groups
        dimensions = _dimensions(x.shape, o, rows, cols, groups)
        _kernels.launch("conv2d", tiles, (THREADS,), x, w, b, residual, y, rectify, *dimensions, T=x.dtype)
        return y
    matrix, w = y.reshape(-1, o), w.reshape(-1, o)
    added = None if residual is None else residual.reshape(-1, o)
    finishes = b is not None or residual is not None or rectify
    for part, col in columns.pieces(x, rows, cols, beside=o if finishes else 0):
        gemm.matmul(col, w, out=matrix[part])
        finish(matrix[part], b, None if added is None else added[part], rectify)
    return y


def _dimensions(x_shape: Shape, o: int, rows: Axis, cols: Axis, groups: int) -> tuple[int, ...]:
    """N, H, W, C, O, OH, OW, then the windows and G: how the kernels' parameters end."""
    return (*x_shape, o, rows.outputs, cols.outputs, *columns.geometry(rows, cols), groups)


def conv2d_input_grad(
    gy: Array, w: Array, x_shape: Shape, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1, groups: int = 1
) -> Array:
    """gx of conv2d: every output sends its gradient back through the filter to the window that it saw.

    gy (N, OH, OW, O), w (KH, KW, C/G, O) -> x_shape (N, H, W, C).
    """
    if not fast(gy, w):
        options: dict[str, Any] = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
        return reference.conv2d_input_grad(gy, w, x_shape, **options)
    gy, w = contiguous(gy), contiguous(w)
    rows, cols = windows(x_shape, w.shape[:2], stride, pad, dilation)
    expect("conv2d_input_grad", (*w.shape[:2], x_shape[3] // groups, w.shape[3]), w=w)
    expect("conv2d_input_grad", (x_shape[0], rows.outputs, cols.outputs, w.shape[3]), gy=gy)
    if groups == rows.stride == cols.stride == 1:
        # At stride 1 the windows that saw a position lie side by side as well: gx is a convolution of gy, with the
        # filter turned about. A piece of its columns is as small as need be, where col2im needs whole images.
        return _forward(gy, w[::-1, ::-1].swapaxes(2, 3), None, None, False, _turned(rows), _turned(cols), 1)
    gx = array_module(gy).empty(x_shape, gy.dtype)
    if groups > 1:
        _, h, wide, c = x_shape
        tiles = -(-(len(gx) * h * wide) // TILE), -(-(c // groups) // TILE), groups
        dimensions = _dimensions(x_shape, w.shape[3], rows, cols, groups)
        _kernels.launch("conv2d_input_grad", tiles, (THREADS,), gy, w, gx, *dimensions, T=gy.dtype)
        return gx
    _gather_by_images(gy, w, gx, rows, cols)
    return gx


def _turned(axis: Axis) -> Axis:
    """The windows of the convolution of gy that is gx, at stride 1; where theirs had less padding, these have more."""
    reach = axis.dilation * (axis.size - 1)
    before, after = reach - axis.before, reach - axis.after
    return Axis(axis.outputs, axis.size, 1, before, after, axis.dilation, axis.length)


def _gather_by_images(gy: Array, w: Array, gx: Array, rows: Axis, cols: Axis) -> None:
    """gx = col2im(gy @ wᵀ), for as many images at a time as leave their columns in the cache."""
    n, o = len(gx), w.shape[3]
    w = w.reshape(-1, o)  # (KH·KW·C, O)
    places = rows.outputs * cols.outputs  # of an image
    most = max(1, min(n, columns.cache_bytes(gy) // (places * len(w) * gy.itemsize)))
    stored = array_module(gy).empty((most * places, len(w)), gy.dtype)  # (images·OH·OW, KH·KW·C), one after the other
    for first in range(0, n, most):
        images = slice(first, min(first + most, n))
        upstream = gy[images].reshape(-1, o)
        columns.gather(gemm.matmul(upstream, w.T, out=stored[: len(upstream)]), gx[images], rows, cols)


def conv2d_weight_grad(
    gy: Array, x: Array, w_shape: Shape, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1, groups: int = 1
) -> Array:
    """gw of conv2d: each weight collects input times output gradient over all the places where it was used.

    gy (N, OH, OW, O), x (N, H, W, C) -> w_shape (KH, KW, C/G, O).
    """
    if not fast(gy, x):
        options: dict[str, Any] = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
        return reference.conv2d_weight_grad(gy, x, w_shape, **options)
    gy, x = contiguous(gy), contiguous(x)
    rows, cols = windows(x.shape, (w_shape[0], w_shape[1]), stride, pad, dilation)
    expect("conv2d_weight_grad", (len(x), rows.outputs, cols.outputs, w_shape[3]), gy=gy)
    expect("conv2d_weight_grad", (*x.shape[:3], groups * w_shape[2]), x=x)
    if groups > 1:
        return _weight_grad_in_slices(gy, x, w_shape, rows, cols, groups)
    o = w_shape[3]
    matrix = gy.reshape(-1, o)
    make = array_module(x).empty if gy.size else array_module(x).zeros
    gw = make(w_shape, np.float32)  # returned itself: a view of it would be copied where gradients are kept
    for part, col in columns.pieces(x, rows, cols):
        gemm.matmul(col.T, matrix[part], out=gw.reshape(-1, o), accumulate=part.start > 0)
    return gw.astype(x.dtype, copy=False)


def _weight_grad_in_slices(gy: Array, x: Array, w_shape: Shape, rows: Axis, cols: Axis, groups: int) -> Array:
    xp, o, depth = array_module(x), w_shape[3], rows.size * cols.size * w_shape[2]
    tiles = -(-depth // TILE), -(-(o // groups) // TILE)
    count = gy.size // o
    # The number of slices depends on shapes alone: a sum in the same order on every card.
    slices = max(1, min(-(-count // SLICE), BLOCKS // (tiles[0] * tiles[1] * groups)))
    parts = xp.empty((slices, depth, o), np.float32)
    dimensions = _dimensions(x.shape, o, rows, cols, groups)
    grid = (*tiles, groups * slices)
    each = -(-count // slices)
    _kernels.launch("conv2d_weight_grad", grid, (THREADS,), gy, x, parts, each, *dimensions, T=x.dtype)
    gw = xp.empty(w_shape, x.dtype)
    _kernels.launch("sum_slices", blocks(gw.size, THREADS), (THREADS,), parts, gw, slices, gw.size, T=x.dtype)
    return gw
