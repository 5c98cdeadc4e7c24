"""Direct convolution: the micro-kernel reads x where it lies, through one pointer for each output pixel and kernel tap.

im2col would copy every pixel KH·KW times to make the rows of a matrix. Here such a row is a list of KH·KW addresses,
one a tap, each of C numbers that lie side by side in NHWC:

    output (n, oh, ow), tap (kh, kw)  ─▶  address of x[n, oh·stride − pad + kh·dilation, ow·stride − pad + kw·dilation]

A tap that falls into the padding points at a row of zeros. The gradient of the input is the same gather over gy; that
of the weights sums over the pixels and has a file of its own, direct_weights.py.
"""

from __future__ import annotations

import itertools

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.ir.copy import copy_floats, prefetch
from kernels.cpu.ir.microkernel import OVERWRITE, RECTIFY, STREAM
from kernels.cpu.machine import COLUMNS, ROWS, WIDTH
from kernels.cpu.memory import CACHE_LINE, empty, scratch
from kernels.cpu.panels import pack, pack_transposed, pad_bias, panel_place
from kernels.cpu.threads import count, parallel
from kernels.cpu.tile import multiply_tile
from kernels.geometry import Axis, phases

SHARES = 2  # a thread: one that is held up by something else on the machine does fewer of them
BLOCK_TILES = 32  # at most, that go through all panels together …
BLOCK_BYTES = 192 << 10  # … and what they read of x, again for every panel: it stays in the second-level cache
STREAM_BYTES = 32 << 20  # a y larger than that will have left the caches before it is read
WAYS = 8  # lines that a set of the first-level cache holds: more rows than these must not all fall into one set …
SAME_SET = 2048  # … as they do, or into few, if they lie a multiple of so many bytes apart
FEW_CHANNELS = 4  # up to here, a row of the window is gathered as one run


def forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    axes: tuple[Axis, Axis],
    groups: int = 1,
    relu: bool = False,
) -> np.ndarray:
    """y (N, OH, OW, O) = x (N, H, W, C) * w (KH, KW, C/groups, O) + b (O,), through ReLU if asked."""
    rows, columns = axes
    KH, KW, C, O = w.shape
    y = empty((len(x), rows.outputs, columns.outputs, O))
    mode = RECTIFY if relu else OVERWRITE
    # Only where a vector is a whole cache line: half lines would reach memory one by one.
    if 4 * WIDTH == CACHE_LINE and O % WIDTH == 0 and y.nbytes > STREAM_BYTES:
        mode |= STREAM
    panels = pack(w.reshape(KH * KW, C, O), groups)
    _gather(x, panels, pad_bias(b, groups), mode, y, axes, (0, 0), (1, 1), groups)
    return y


def input_grad(
    gy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...], axes: tuple[Axis, Axis], groups: int = 1
) -> np.ndarray:
    """gx (N, H, W, C): each phase of it (geometry.phases) is a convolution of gy with stride 1 by some of the taps."""
    rows, columns = axes
    KH, KW, C, O = w.shape
    gx = empty(x_shape)
    for (h, taps_h, phase_h), (v, taps_w, phase_w) in itertools.product(phases(rows), phases(columns)):
        if taps_h and taps_w:
            order = [kh * KW + kw for kh in taps_h for kw in taps_w]
            panels = pack_transposed(w.reshape(KH * KW, C, O), order, groups)
            step = (rows.stride, columns.stride)
            _gather(gy, panels, pad_bias(None), OVERWRITE, gx, (phase_h, phase_w), (h, v), step, groups)
        else:
            phase = gx[:, h :: rows.stride, v :: columns.stride]
            parallel(_clear, len(gx), phase, cost=phase[0].size)
    return gx


def _clear(begin: int, end: int, images: np.ndarray) -> None:
    images[begin:end] = 0


def _gather(
    x: np.ndarray, panels: np.ndarray, bias: np.ndarray, mode: int, y: np.ndarray, axes: tuple[Axis, Axis],
    first: tuple[int, int], step: tuple[int, int], groups: int,
) -> None:  # fmt: skip
    """y[first + (a, b) · step] = bias + Σ over the taps of window (a, b) in x of x[tap] · panels[tap].

    panels (P, KH·KW, C/groups, COLUMNS).
    """
    rows, columns = axes
    down, right = -rows.before, -columns.before  # from a window's first pixel, without padding, to its first tap
    if x.shape[3] <= FEW_CHANNELS and groups == columns.dilation == 1:
        # With no padding left to look out for, the KW·C numbers under a row of the window are one run.
        x, down, right = _padded(x, rows, columns)
        panels = panels.reshape(len(panels), rows.size, -1, COLUMNS)
        taps = [(down + kh * rows.dilation, right) for kh in range(rows.size)]
    else:
        downs = [down + kh * rows.dilation for kh in range(rows.size)]
        taps = list(itertools.product(downs, [right + kw * columns.dilation for kw in range(columns.size)]))
    C, O = x.shape[3], y.shape[3]
    steps = panels.shape[2]
    shares = SHARES * count()
    tiles = -(-len(x) * rows.outputs * columns.outputs // ROWS)
    row = max(C, steps)  # numbers from an address on that may be read
    lines = 3 if len(taps) > 1 else 1  # of x, roughly, under a line of windows
    block = max(1, min(BLOCK_TILES, BLOCK_BYTES // (4 * ROWS * C * lines), tiles // (4 * shares)))
    offsets = np.array([(h, w, 4 * C * (h * x.shape[2] + w)) for h, w in taps], np.int64)
    copied = len(taps) == 1 and ROWS > WAYS and 4 * C * columns.stride % SAME_SET == 0
    parallel(
        _gather_shares, shares, shares, x, panels, bias, mode, y, rows, columns, first, step, offsets, groups, block,
        scratch("direct tables", (shares, 2, block, len(taps), ROWS), np.int64),
        scratch("direct targets", (shares, 2, block, ROWS), np.int64),
        scratch("direct copies", (shares, 2, block, ROWS, row + COLUMNS) if copied else (shares, 2, 0, 0, 0)),
        np.zeros(row, np.float32), scratch("direct spare", (O,)),
        cost=tiles * ROWS * len(taps) * steps * O // (64 * shares),
    )  # fmt: skip


@compiled
def _gather_shares(
    begin, end, shares, x, panels, bias, mode, y, rows, columns, first, step, offsets, groups, block,
    tables, targets, copies, zeros, spare,
):  # fmt: skip
    """Shares [begin, end) of the tiles. A tile is ROWS pixels, wherever they are; a share goes through it in blocks.

    For each block the addresses of its rows are written down once, in tables[share] (2, block, T, ROWS) for A and
    targets[share] (2, block, ROWS) for C, and then serve all panels. This happens one block ahead, in two places that
    take turns, so that the rows of the next block can be fetched from memory while this one is multiplied.
    """
    tiles = (len(x) * rows.outputs * columns.outputs + ROWS - 1) // ROWS
    blocks = (tiles + block - 1) // block
    for share in range(begin, end):
        table, target, copy = tables[share], targets[share], copies[share]
        start, stop = blocks * share // shares, blocks * (share + 1) // shares
        present = 0  # tiles in the block before `index`
        for index in range(start, stop + 1):
            coming = min(tiles - index * block, block) if index < stop else 0
            now, then = (index + 1) % 2, index % 2
            _write_addresses(
                x, y, rows, columns, first, step, offsets, index * block, coming,
                table[then], target[then], copy[then], zeros, spare,
            )  # fmt: skip
            unread = table[then, :coming, -1]  # where windows overlap, only the last tap is new to the cache
            _multiply_block(table[now, :present], target[now], unread, panels, bias, mode, y, groups)
            present = coming


@compiled
def _multiply_block(table, target, rows_after, panels, bias, mode, y, groups):
    """y[target] = bias + table · panels, while the rows at rows_after (tiles, ROWS) travel to the cache."""
    O = y.shape[3]
    T, steps = panels.shape[1:3]
    row_bytes = 4 * COLUMNS  # of a panel
    lines = (4 * groups * steps + CACHE_LINE - 1) // CACHE_LINE  # of the cache, under a row of x
    for p in range(len(panels)):
        group, column = panel_place(p, len(panels), groups)
        first_line, end_line = lines * p // len(panels), lines * (p + 1) // len(panels)
        for tile in range(len(table)):
            if tile < len(rows_after):
                for r in range(ROWS):
                    for line in range(first_line, end_line):
                        prefetch(rows_after[tile, r] + CACHE_LINE * line)
            multiply_tile(
                table.ctypes.data + 8 * ROWS * T * tile, T, steps, 4, 4 * group * steps,
                panels.ctypes.data + p * T * steps * row_bytes, row_bytes, steps * row_bytes,
                target.ctypes.data + 8 * ROWS * tile, 4 * (group * (O // groups) + column),
                bias.ctypes.data + p * row_bytes if len(bias) else 0,
                mode, min(COLUMNS, O // groups - column),
            )  # fmt: skip


@compiled
def _write_addresses(
    x, y, rows, columns, first, step, offsets, first_tile, present, table, target, copies, zeros, spare
):
    """The rows of A and C of the tiles from `first_tile` on.

    What the last tile has past the last pixel reads zeros and goes to the spare row. Where rows of x would fight for
    the same places in the cache, `copies` (block, ROWS, numbers of a row + …) take their place.
    """
    _, H, W, C = x.shape
    _, YH, YW, O = y.shape
    top, left, bottom, right = offsets[0, 0], offsets[0, 1], offsets[-1, 0], offsets[-1, 1]  # taps come in this order
    x_step, y_step = 4 * C * columns.stride, 4 * O * step[1]  # from a pixel to the next one in its line
    pixel = first_tile * ROWS
    line, b = pixel // columns.outputs, pixel % columns.outputs
    n, a = line // rows.outputs, line % rows.outputs
    for tile in range(present):
        r = 0
        while r < ROWS:
            if n == len(x):
                table[tile, :, r] = zeros.ctypes.data
                target[tile, r] = spare.ctypes.data
                r += 1
                continue
            place = (n * YH + first[0] + a * step[0]) * YW + first[1] + b * step[1]
            pixel_of_y = y.ctypes.data + 4 * O * place
            h0, w0 = a * rows.stride, b * columns.stride
            window = x.ctypes.data + 4 * C * ((n * H + h0) * W + w0)
            rows_inside = h0 + top >= 0 and h0 + bottom < H
            last = w0 + (ROWS - 1) * columns.stride + right  # column under the last window, if this tile has one line
            if r == 0 and rows_inside and w0 + left >= 0 and last < W and b + ROWS <= columns.outputs:
                for i in range(ROWS):
                    target[tile, i] = pixel_of_y + i * y_step
                for t in range(len(offsets)):
                    for i in range(ROWS):
                        table[tile, t, i] = window + offsets[t, 2] + i * x_step
                r, b = ROWS, b + ROWS
            else:
                target[tile, r] = pixel_of_y
                all_inside = rows_inside and w0 + left >= 0 and w0 + right < W
                for t in range(len(offsets)):
                    table[tile, t, r] = window + offsets[t, 2]
                    if not all_inside:
                        h, w = h0 + offsets[t, 0], w0 + offsets[t, 1]
                        if h < 0 or h >= H or w < 0 or w >= W:
                            table[tile, t, r] = zeros.ctypes.data
                r, b = r + 1, b + 1
            if b == columns.outputs:
                a, b = a + 1, 0
                if a == rows.outputs:
                    n, a = n + 1, 0
        if copies.size:
            for r in range(ROWS):
                copy = copies[tile, r].ctypes.data
                copy_floats(copy, table[tile, 0, r], len(zeros))
                table[tile, 0, r] = copy


def _padded(x: np.ndarray, rows: Axis, columns: Axis) -> tuple[np.ndarray, int, int]:
    """x with the padding that the windows reach into, and how far down and right in it the first window starts."""
    N, H, W, C = x.shape
    top, bottom = _reach(rows)
    left, right = _reach(columns)
    if top or bottom or left or right:
        padded = scratch("padded x", (N, top + H + bottom, left + W + right, C))
        parallel(_pad, N, x, top, left, padded, cost=padded[0].size)
        x = padded
    return x, top - rows.before, left - columns.before


def _reach(axis: Axis) -> tuple[int, int]:
    """How far the windows reach out of the axis, before and after."""
    last = (axis.outputs - 1) * axis.stride - axis.before + (axis.size - 1) * axis.dilation
    return max(0, axis.before), max(0, last - (axis.length - 1))


@compiled
def _pad(begin, end, x, top, left, padded):
    _, H, W, C = x.shape
    for n in range(begin, end):
        for row in range(padded.shape[1]):
            line, h = padded[n, row], row - top
            if h >= 0 and h < H:
                line[:left] = 0
                copy_floats(line[left:].ctypes.data, x[n, h].ctypes.data, W * C)
                line[left + W :] = 0
            else:
                line[:] = 0
