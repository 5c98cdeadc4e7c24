"""Max, average and global average pooling with their gradients (pooling.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import BLOCK, Array, Shape, blocks, contiguous, expect, fast, kernels_of, lanes
from kernels.geometry import Axis, Padding, Pair, windows

_kernels = kernels_of(__file__)


def _launch(kernel: str, over: Array, rows: Axis, cols: Axis, *arguments: Any, **types: Any) -> None:
    """`kernel` with a thread for each position and channel of `over`; types of elements as in pooling.cu."""
    block, c = lanes(over.shape[3]), over.shape[3]
    positions = over.size // c
    geometry = zip(*((a.length, a.outputs, a.size, a.stride, a.before) for a in (rows, cols)), strict=True)
    length, outputs, *window = geometry
    *arrays, rest = arguments
    sizes = (positions, *length, c, *outputs, *(side for pair in window for side in pair), *rest)
    types = {"T": over.dtype, "WINNER": np.uint8} | types
    _kernels.launch(kernel, blocks(positions, block[1]), block, *arrays, *sizes, **types)


def max_pool(
    x: Array, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False
) -> tuple[Array, Array]:
    """Keep the largest value of each window, and remember which it was.

    x (N, H, W, C) -> y and winners, both (N, OH, OW, C). The winner is the tap kh·KW + kw of the first maximum in scan
    order, uint8 if KH·KW <= 256, else int32. Padding is −inf. A NaN wins, of several the last, as in PyTorch; in a
    window of nothing but −inf the winner is tap 0.
    """
    if not fast(x):
        return reference.max_pool(x, size, stride=stride, pad=pad, ceil=ceil)
    rows, cols = windows(x.shape, size, stride, pad, ceil=ceil)
    xp, shape = array_module(x), (len(x), rows.outputs, cols.outputs, x.shape[3])
    y = xp.empty(shape, x.dtype)
    winners = xp.empty(shape, np.uint8 if rows.size * cols.size <= 256 else np.int32)
    _launch("max_pool", y, rows, cols, contiguous(x), y, winners, (), WINNER=winners.dtype)
    return y, winners


def max_pool_grad(
    gy: Array,
    winners: Array,
    x_shape: Shape,
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
) -> Array:
    """gx of max_pool: the winner of a window gets its whole gradient, the others none."""
    if not fast(gy):
        return reference.max_pool_grad(gy, winners, x_shape, size, stride=stride, pad=pad, ceil=ceil)
    rows, cols = windows(x_shape, size, stride, pad, ceil=ceil)
    expect("max_pool_grad", (x_shape[0], rows.outputs, cols.outputs, x_shape[3]), gy=gy, winners=winners)
    gx = array_module(gy).empty(x_shape, gy.dtype)
    arrays = contiguous(gy), contiguous(winners), gx
    _launch("max_pool_grad", gx, rows, cols, *arrays, (), WINNER=winners.dtype)
    return gx


def _counted(axis: Axis, count_pad: bool) -> tuple[int, int]:
    """The positions, from the first up to the last, by whose number in a window its sum is divided."""
    return (-axis.before, axis.length + axis.after) if count_pad else (0, axis.length)


def avg_pool(
    x: Array, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False, count_pad: bool = False
) -> Array:
    """Replace each window by its mean.

    x (N, H, W, C) -> (N, OH, OW, C). `count_pad` False divides by the real elements of the window, True by all the
    elements of the window inside the padded map.
    """
    if not fast(x):
        return reference.avg_pool(x, size, stride=stride, pad=pad, ceil=ceil, count_pad=count_pad)
    rows, cols = windows(x.shape, size, stride, pad, ceil=ceil)
    y = array_module(x).empty((len(x), rows.outputs, cols.outputs, x.shape[3]), x.dtype)
    counted = *_counted(rows, count_pad), *_counted(cols, count_pad)
    _launch("avg_pool", y, rows, cols, contiguous(x), y, counted)
    return y


def avg_pool_grad(
    gy: Array,
    x_shape: Shape,
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
    count_pad: bool = False,
) -> Array:
    """gx of avg_pool: each element of a window gets the same share, gy / elements."""
    if not fast(gy):
        return reference.avg_pool_grad(gy, x_shape, size, stride=stride, pad=pad, ceil=ceil, count_pad=count_pad)
    rows, cols = windows(x_shape, size, stride, pad, ceil=ceil)
    expect("avg_pool_grad", (x_shape[0], rows.outputs, cols.outputs, x_shape[3]), gy=gy)
    gx = array_module(gy).empty(x_shape, gy.dtype)
    counted = *_counted(rows, count_pad), *_counted(cols, count_pad)
    _launch("avg_pool_grad", gx, rows, cols, contiguous(gy), gx, counted)
    return gx


def global_avg_pool(x: Array) -> Array:
    """The mean of each channel over the whole map: (N, H, W, C) -> (N, C)."""
    if not fast(x):
        return reference.global_avg_pool(x)
    n, h, w, c = x.shape
    y, block = array_module(x).empty((n, c), x.dtype), lanes(c)
    types = {"T": x.dtype, "WINNER": np.uint8}
    _kernels.launch("global_avg_pool", (-(-c // block[0]), n), block, contiguous(x), y, h * w, c, **types)
    return y


def global_avg_pool_grad(gy: Array, x_shape: Shape) -> Array:
    """gx of global_avg_pool: each of the H·W positions gets gy / (H·W). gy (N, C) -> x_shape (N, H, W, C)."""
    if not fast(gy):
        return reference.global_avg_pool_grad(gy, x_shape)
    n, h, w, c = x_shape
    expect("global_avg_pool_grad", (n, c), gy=gy)
    gx = array_module(gy).empty(x_shape, gy.dtype)
    types = {"T": gy.dtype, "WINNER": np.uint8}
    arguments = (contiguous(gy), gx, h * w, c, gx.size)
    _kernels.launch("global_avg_pool_grad", blocks(gx.size, BLOCK), (BLOCK,), *arguments, **types)
    return gx
