"""Convolution as matrix products: blocks of windows are laid out as rows (im2col), and BLAS multiplies them by w.

    y (N·OH·OW, O) = col (N·OH·OW, KH·KW·C) @ w (KH·KW·C, O)

The whole of col would be KH·KW times as large as x. Only a block of its rows exists at a time, small enough to stay in
a core's cache between the copy and the product; bias and ReLU reach a block of y while it is there, too. How windows
are cut into blocks depends on the shapes alone: the same bits on any number of threads.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu import blas
from kernels.cpu.compile import compiled
from kernels.cpu.joining import concat
from kernels.cpu.layout import copy_to, rows_of
from kernels.cpu.memory import scratch
from kernels.cpu.threads import parallel
from kernels.geometry import Axis, Padding, Pair, phases, windows

Axes = tuple[Axis, Axis]

BLOCK_BYTES = 1 << 20  # of col, about what a core keeps in cache,
BLOCK_ROWS = (192, 2048)  # but at least as many windows as pay for BLAS's own copy of w, made in each product
PARTIAL_BYTES = 32 << 20  # of partial sums for gw (or two of them, where they are larger)


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    """y (N, OH, OW, O), block by block."""
    axes = windows(x.shape, (w.shape[0], w.shape[1]), stride, pad, dilation)
    return _by_group(x, w, b, axes, groups, relu=False)


def conv2d_relu(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    """relu(conv2d(x, w, b)), applied to each block of y."""
    axes = windows(x.shape, (w.shape[0], w.shape[1]), stride, pad, dilation)
    return _by_group(x, w, b, axes, groups, relu=True)


def _by_group(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, axes: Axes, groups: int, relu: bool) -> np.ndarray:
    pieces = [
        _correlate(x[..., c], w[..., o], axes, None if b is None else b[o], relu)
        for c, o in _group_slices(x.shape[3], w.shape[3], groups)
    ]
    return _joined(pieces)


def conv2d_input_grad(
    gy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    """gx is a convolution of gy, too: with w turned round, and with its O coming in and its C going out.

    Along one axis, window o holds position h with its tap k where h = o·stride − before + k·dilation. Hence

        gx[h] = Σ_k gy[(h + before − k·dilation) / stride] · w[k]ᵀ      over the k for which the division is exact.

    With stride 1 it always is. Otherwise it is so for the same taps at all positions that are a multiple of the stride
    apart: each such phase of gx is a convolution of stride 1 with those taps, and no work is done for nothing.
    """
    rows, cols = windows(x_shape, (w.shape[0], w.shape[1]), stride, pad, dilation)

    def grad(gy: np.ndarray, w: np.ndarray) -> np.ndarray:
        if rows.stride == cols.stride == 1:
            ((_, taps_h, phase_h),), ((_, taps_w, phase_w),) = phases(rows), phases(cols)
            return _correlate(gy, _turned(w, taps_h, taps_w), (phase_h, phase_w))
        gx = np.zeros((*x_shape[:3], w.shape[2]), gy.dtype)
        for h, taps_h, phase_h in phases(rows):
            for v, taps_w, phase_w in phases(cols):
                if taps_h and taps_w:
                    phase = _correlate(gy, _turned(w, taps_h, taps_w), (phase_h, phase_w))
                    copy_to(gx[:, h :: rows.stride, v :: cols.stride], phase)
        return gx

    return _joined([grad(gy[..., o], w[..., o]) for _, o in _group_slices(x_shape[3], w.shape[3], groups)])


def _turned(w: np.ndarray, taps_h: list[int], taps_w: list[int]) -> np.ndarray:
    """Some taps of w, as (KH', KW', O, C)."""
    return w[taps_h][:, taps_w].transpose(0, 1, 3, 2)


def conv2d_weight_grad(
    gy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    """gw (KH·KW·C, O) = colᵀ @ gy: a sum over all windows, taken by BLAS within a block, then over the blocks in order.

    Blocks are added up in a few fixed runs, which threads can work on at once, then the runs' partial sums.
    """
    axes = windows(x.shape, (w_shape[0], w_shape[1]), stride, pad, dilation)

    def grad(gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        x, gy = np.ascontiguousarray(x), rows_of(gy)
        shape = (w_shape[0] * w_shape[1] * x.shape[3], gy.shape[1])  # of gw
        blocks = _blocks(len(gy), shape[0] * x.itemsize)
        runs = min(len(blocks), 16, max(2, PARTIAL_BYTES // (shape[0] * shape[1] * x.itemsize)))
        partial = scratch("partial", (runs, *shape), x.dtype)

        def add_up(begin: int, end: int) -> None:
            with blas.one_thread():
                for run in range(begin, end):
                    first, *others = blocks[len(blocks) * run // runs : len(blocks) * (run + 1) // runs]
                    np.matmul(_col_rows(first, x, axes).T, gy[first], out=partial[run])
                    for p in others:
                        product = scratch("product", shape, x.dtype)
                        np.matmul(_col_rows(p, x, axes).T, gy[p], out=product)
                        partial[run] += product

        parallel(add_up, runs, cost=len(gy) * shape[0] // runs)
        gw = np.empty(shape, x.dtype)
        parallel(add_partial, gw.size, partial.reshape(runs, -1), gw.reshape(-1), cost=runs)
        return gw.reshape(*w_shape[:2], *(x.shape[3], gy.shape[1]))

    return _joined([grad(gy[..., o], x[..., c]) for c, o in _group_slices(x.shape[3], w_shape[3], groups)])


@compiled
def add_partial(begin, end, partial, total):
    """total = the rows of partial, added in order."""
    partial, total = partial[:, begin:end], total[begin:end]  # indices from 0 on: see elementwise.py
    for i in range(len(total)):
        total[i] = partial[0, i]
    for run in range(1, len(partial)):
        for i in range(len(total)):
            total[i] += partial[run, i]


# ---- What the three have in common ---------------------------------------------------------------------------------


def _correlate(x: np.ndarray, w: np.ndarray, axes: Axes, b: np.ndarray | None = None, relu: bool = False) -> np.ndarray:
    """y (N, OH, OW, O): all windows of x along `axes` times w (KH, KW, C, O), plus b, and through ReLU if asked."""
    x, w = np.ascontiguousarray(x), rows_of(w)
    y = np.empty((len(x), axes[0].outputs, axes[1].outputs, w.shape[1]), x.dtype)
    result = rows_of(y)
    blocks = _blocks(len(result), len(w) * x.itemsize)
    if relu and b is None:
        b = np.zeros(w.shape[1], x.dtype)

    def multiply(begin: int, end: int) -> None:
        with blas.one_thread():
            for p in blocks[begin:end]:
                np.matmul(_col_rows(p, x, axes), w, out=result[p])
                if b is not None:
                    add_bias(result[p], b, relu)

    parallel(multiply, len(blocks), cost=result.size // len(blocks) * len(w) // 8)
    return y


def _blocks(count: int, row_bytes: int) -> list[slice]:
    """All windows, cut into blocks of one size but for the last; an even number of them, like most machines' cores."""
    fewest, most = BLOCK_ROWS
    wanted = max(1, min(2, count // 64), round(count / min(most, max(fewest, BLOCK_BYTES // row_bytes))))
    size = -(-count // (wanted + wanted % 2 if wanted > 1 else 1))
    return [slice(start, min(count, start + size)) for start in range(0, count, size)]


def _col_rows(p: slice, x: np.ndarray, axes: Axes) -> np.ndarray:
    """Rows p of col (rows, KH·KW·C), what each of those windows sees: valid until this thread asks for others."""
    rows, cols = axes
    if all(a.size == a.stride == 1 and a.before == 0 and a.outputs == a.length for a in axes):
        return rows_of(x)[p]  # windows of one pixel: x is its own col
    col = scratch("col", (p.stop - p.start, rows.size * cols.size * x.shape[3]), x.dtype)
    gather(p.start, p.stop, x, rows, cols, col)
    return col


@compiled
def gather(begin, end, x, rows, cols, col):
    """col[p - begin] = what window p, begin <= p < end, sees of x (N, H, W, C); zeros where it reaches beyond it."""
    C, zero = x.shape[3], x.dtype.type(0)
    x, col = x.reshape(-1), col.reshape(-1)
    unsigned = np.uint64  # with signed indices each access would ask whether it counts from the end
    taps = cols.size if cols.dilation == 1 else 1  # lie side by side in x as they do in col: one copy for all of them
    for p in range(begin, end):
        n, oh, ow = p // (rows.outputs * cols.outputs), p // cols.outputs % rows.outputs, p % cols.outputs
        for i in range(rows.size):
            h = oh * rows.stride - rows.before + i * rows.dilation
            for j in range(0, cols.size, taps):
                w = ow * cols.stride - cols.before + j * cols.dilation
                first = min(max(0, -w), taps)  # the taps first to last - 1 lie inside the map
                last = max(first, min(taps, cols.length - w)) if 0 <= h < rows.length else first
                source = unsigned(((n * rows.length + h) * cols.length + w) * C)
                target = unsigned((((p - begin) * rows.size + i) * cols.size + j) * C)
                for c in range(unsigned(first * C)):
                    col[target + c] = zero
                for c in range(unsigned(first * C), unsigned(last * C)):
                    col[target + c] = x[source + c]
                for c in range(unsigned(last * C), unsigned(taps * C)):
                    col[target + c] = zero


@compiled
def add_bias(y, b, relu):
    """y += b in every row; then, if asked, 0 where that is negative."""
    zero = y.dtype.type(0)
    for p in range(len(y)):
        row = y[p]
        for o in range(len(b)):
            v = row[o] + b[o]
            row[o] = zero if relu and v < zero else v


def _group_slices(channels: int, outputs: int, groups: int) -> list[tuple[slice, slice]]:
    """The channels of x and of y that belong to each group."""
    c, o = channels // groups, outputs // groups
    return [(slice(g * c, (g + 1) * c), slice(g * o, (g + 1) * o)) for g in range(groups)]


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """The groups' results side by side along the last axis."""
    return pieces[0] if len(pieces) == 1 else concat(*pieces)
