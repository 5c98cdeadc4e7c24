"""im2col and col2im (columns.cu), and the columns of a convolution in pieces that stay in the cache."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import Array, Shape, address, blocks, contiguous, expect, fast, kernels_of, lanes
from kernels.geometry import Axis, Padding, Pair, windows

_kernels = kernels_of(__file__)


def geometry(rows: Axis, cols: Axis) -> tuple[int, ...]:
    """(KH, KW, SH, SW, PH, PW, DH, DW) as the kernels take them."""
    pairs = zip(rows, cols, strict=True)
    _, size, stride, before, _, dilation, _ = pairs
    return (*size, *stride, *before, *dilation)


def im2col(x: Array, size: Pair, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1) -> Array:
    """Lay the window under each output side by side: convolution becomes one matrix product.

    x (N, H, W, C), size KH or (KH, KW) -> (N, OH, OW, KH, KW, C), zeros where a window reaches into the padding.
    """
    if not fast(x):
        return reference.im2col(x, size, stride=stride, pad=pad, dilation=dilation)
    rows, cols = windows(x.shape, size, stride, pad, dilation)
    col = array_module(x).empty((len(x), rows.outputs, cols.outputs, rows.size, cols.size, x.shape[3]), x.dtype)
    _fill(col, contiguous(x), 0, len(x) * rows.outputs * cols.outputs, rows, cols)
    return col


def _fill(col: Array, x: Array, first: int, count: int, rows: Axis, cols: Axis) -> None:
    """`count` rows of the columns of x, from row `first` on."""
    wide = np.dtype(np.uint64)
    fits = x.shape[3] * x.itemsize % wide.itemsize == 0 and address(x) % wide.itemsize == 0
    unit = wide if fits else x.dtype
    x, col = x.view(unit), col.view(unit)
    _, h, w, c = x.shape
    block = lanes(cols.size * c)
    arguments = (x, col, first, count, h, w, c, rows.outputs, cols.outputs, *geometry(rows, cols))
    _kernels.launch("im2col", blocks(count, block[1]), block, *arguments, T=np.float32, UNIT=unit)


def col2im(col: Array, x_shape: Shape, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1) -> Array:
    """Add every tap back to the input position it was read from: the adjoint of im2col, <im2col x, c> = <x, col2im c>.

    col (N, OH, OW, KH, KW, C) -> x_shape (N, H, W, C). A position under several windows gets the sum of its taps.
    """
    if not fast(col):
        return reference.col2im(col, x_shape, stride=stride, pad=pad, dilation=dilation)
    rows, cols = windows(x_shape, col.shape[3:5], stride, pad, dilation)
    expect("col2im", (x_shape[0], rows.outputs, cols.outputs, rows.size, cols.size, x_shape[3]), col=col)
    gx = array_module(col).empty(x_shape, col.dtype)
    gather(contiguous(col), gx, rows, cols)
    return gx


def gather(col: Array, gx: Array, rows: Axis, cols: Axis) -> None:
    """gx = col2im(col), for the images of gx."""
    n, h, w, c = gx.shape
    block, positions = lanes(c), n * h * w
    arguments = (col, gx, positions, h, w, c, rows.outputs, cols.outputs, *geometry(rows, cols))
    _kernels.launch("col2im", blocks(positions, block[1]), block, *arguments, T=gx.dtype, UNIT=gx.dtype)


SMALLEST_CACHE = 4 << 20  # bytes of L2: of the oldest cards with tensor cores, and where kernels run on the host


@functools.cache
def _cache_of(device: int) -> int:
    import cupy

    return cupy.cuda.Device(device).attributes["L2CacheSize"]


def cache_bytes(a: Array) -> int:
    """How much of the L2 cache of the array's card a piece of columns may fill: half, the product needs the rest."""
    return max(SMALLEST_CACHE, 0 if array_module(a) is np else _cache_of(a.device.id)) // 2


def is_pointwise(rows: Axis, cols: Axis) -> bool:
    """Whether the columns of a map are the map itself: 1×1 windows, each on the next position, none on padding."""
    return all((a.size, a.stride, a.before, a.after) == (1, 1, 0, 0) for a in (rows, cols))


def pieces(x: Array, rows: Axis, cols: Axis, beside: int = 0) -> Iterator[tuple[slice, Array]]:
    """(which rows, columns) of im2col(x) as an (N·OH·OW, KH·KW·C) matrix, in pieces that stay in the L2 cache.

    Each piece is overwritten by the next, on the same stream: it never has to go to memory. The columns of 1×1 windows
    are x itself, and in one piece, unless for each row `beside` more elements shall stay in the cache with it.
    """
    n, _, _, c = x.shape
    count, length = n * rows.outputs * cols.outputs, rows.size * cols.size * c
    most = max(1, min(count, cache_bytes(x) // ((length + beside) * x.itemsize)))
    stored = None
    if not is_pointwise(rows, cols):
        stored = array_module(x).empty((most, length), x.dtype)
    elif not beside:
        most = max(1, count)
    for first in range(0, count, most):
        part = slice(first, min(first + most, count))
        if stored is None:
            yield part, x.reshape(count, c)[part]
        else:
            _fill(stored, x, first, part.stop - first, rows, cols)
            yield part, stored[: part.stop - first]
