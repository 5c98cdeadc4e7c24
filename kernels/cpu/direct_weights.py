"""The gradient of a convolution's weights: the same micro-kernel, with pixels as the steps of the sum.

    gw[kh, kw, c, o]  =  Σ over outputs (n, oh, ow) of  x[n, oh·stride − pad + kh·dilation, …, c] · gy[n, oh, ow, o]

A row of the register tile is one (kh, kw, c). Its segments are lines of outputs, its steps the pixels of such a line.
B is gy, packed into panels of output channels. x is copied too, with its padding, into strips of ROWS channels,

    strip s:   x[pixel 0, s·ROWS … s·ROWS + ROWS − 1],  x[pixel 1, …],  …

so that all numbers of A that the tile needs in a step lie side by side; a kernel tap is another pixel to start from.
Both copies hold one chunk of pixels, few enough for a panel of them to stay in the first-level cache, and the
micro-kernel adds chunk after chunk to gw.

The sum over all pixels is cut into slices, fixed by the shape alone, each with a gw of its own, which are added up in
order at the end: the result has the same bits for any number of threads.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.columns import add_partial
from kernels.cpu.compile import compiled
from kernels.cpu.ir.microkernel import ACCUMULATE, OVERWRITE
from kernels.cpu.machine import COLUMNS, ROWS
from kernels.cpu.memory import empty, scratch
from kernels.cpu.panels import panel_count, panel_place
from kernels.cpu.threads import count, parallel
from kernels.cpu.tile import copy_row, copy_strip, multiply_tile
from kernels.geometry import Axis

STEPS = 20480 // (4 * COLUMNS)  # pixels of a chunk: its panel of gy takes two thirds of the first-level cache
STRIP_BYTES = 320 << 10  # of x under the chunk's lines, if there are several: they stay in the second-level cache
SLICES = 8
SLICE_BYTES = 1 << 20  # of gw, up to which it is worth having SLICES of it
JOBS = 4  # a thread; one for a large gw of a 1×1 window: each job copies gy, which is little beside many taps only


def weight_grad(
    gy: np.ndarray, x: np.ndarray, w_shape: tuple[int, ...], axes: tuple[Axis, Axis], groups: int = 1
) -> np.ndarray:
    """gw (KH, KW, C/groups, O) from gy (N, OH, OW, O) and x (N, H, W, C)."""
    KH, KW, C, O = w_shape
    if all(axis.size == axis.stride == 1 and axis.before == axis.after == 0 for axis in axes):
        x, gy = _as_lines(x), _as_lines(gy)
    rows, columns = axes
    N, OH, OW, _ = gy.shape
    lines = max(1, min(OH, STEPS // OW, STRIP_BYTES // (4 * rows.stride * x.shape[2] * x.shape[3])))
    images = max(1, min(N, STEPS // (OW * OH))) if lines == OH else 1  # several only with all of their lines
    slices = min(SLICES if 4 * KH * KW * C * O <= SLICE_BYTES else 1, -(-N // images) * -(-OH // lines))
    per_thread = 1 if KH * KW == slices == 1 else JOBS
    bands = max(1, min(per_thread * count() // slices, C // ROWS))
    jobs = slices * bands

    channels = -(-C // bands)  # of the widest band
    WH = (lines - 1) * rows.stride + (KH - 1) * rows.dilation + 1
    WW = max(columns.before + x.shape[2], (OW - 1) * columns.stride + (KW - 1) * columns.dilation + 1)
    tiles = -(-KH * KW * channels // ROWS)
    sums = scratch("weight sums", (slices, KH * KW * C * O)) if slices > 1 else empty((1, KH * KW * C * O))
    parallel(
        _sum_jobs, jobs, x, gy, rows, columns, groups, bands, sums,
        scratch("weight strips", (jobs, groups, -(-channels // ROWS), images, WH, WW, ROWS)),
        # An odd number of lines of the cache from panel to panel: with an even one they would share few of its sets.
        scratch("weight panels", (jobs, groups * panel_count(O // groups), images * lines * OW | 1, COLUMNS)),
        scratch("weight tables", (jobs, tiles, images, lines, ROWS), np.int64),
        scratch("weight targets", (jobs, tiles, ROWS), np.int64),
        scratch("weight spare", (O,)),
        cost=N * OH * OW * KH * KW * C * O // (64 * jobs),
    )  # fmt: skip
    if slices == 1:
        return sums.reshape(w_shape)
    gw = empty((KH * KW * C * O,))
    parallel(add_partial, gw.size, sums, gw, cost=slices)
    return gw.reshape(w_shape)


def _as_lines(a: np.ndarray) -> np.ndarray:
    """For a 1×1 window: all pixels as one image, in lines as long as possible."""
    pixels = a.size // a.shape[3]
    line = max(n for n in range(1, STEPS + 1) if pixels % n == 0)
    return a.reshape(1, pixels // line, line, a.shape[3])


@compiled
def _sum_jobs(begin, end, x, gy, rows, columns, groups, bands, sums, strips, panels, tables, targets, spare):
    """Jobs [begin, end); job = (slice, band) sums one slice of the chunks for one band of each group's input channels.

    sums (slices, KH·KW·C/groups·O). Of each job's own, strips[job] (groups, strips, images, WH, WW, ROWS) and
    panels[job] (panels, pixels, COLUMNS) hold a chunk of x and of gy; tables[job] (tiles, images, lines, ROWS) and
    targets[job] (tiles, ROWS) are the addresses of the tiles' rows in strips and sums.
    """
    N, OH, OW, O = gy.shape
    C = x.shape[3] // groups
    _, _, strip_count, images, WH, WW, _ = strips.shape
    _, tiles, _, lines, _ = tables.shape
    line_chunks = (OH + lines - 1) // lines
    chunks = (N + images - 1) // images * line_chunks
    pixel_bytes = 4 * COLUMNS  # of a panel

    for job in range(begin, end):
        part, band = job // bands, job % bands
        c0, c1 = C * band // bands, C * (band + 1) // bands
        table, target, strip, panel = tables[job], targets[job], strips[job], panels[job]

        taps_channels = rows.size * columns.size * (c1 - c0)
        for i in range(tiles * ROWS):
            row = min(i, taps_channels - 1)  # past the end, read the last row again and write to the spare one
            tap, c = row // (c1 - c0), row % (c1 - c0)
            target[i // ROWS, i % ROWS] = (
                sums[part].ctypes.data + 4 * (tap * C + c0 + c) * O if i < taps_channels else spare.ctypes.data
            )
            for n in range(images):
                for line in range(lines):
                    h = line * rows.stride + tap // columns.size * rows.dilation
                    w = tap % columns.size * columns.dilation
                    place = ((c // ROWS * images + n) * WH + h) * WW + w
                    table[i // ROWS, n, line, i % ROWS] = strip.ctypes.data + 4 * (place * ROWS + c % ROWS)

        mode = OVERWRITE
        for chunk in range(chunks * part // len(sums), chunks * (part + 1) // len(sums)):
            n, oh = chunk // line_chunks * images, chunk % line_chunks * lines
            present, height = min(images, N - n), min(lines, OH - oh)
            for i in range(present):
                for group in range(groups):
                    top, left = oh * rows.stride - rows.before, columns.before
                    _copy_strips(x[n + i], top, left, group * C + c0, group * C + c1, strip[group], i)
                _copy_panels(gy[n + i, oh : oh + height], groups, panel, i * lines * OW)
            for p in range(len(panel)):
                group, column = panel_place(p, len(panel), groups)
                for tile in range(tiles):
                    multiply_tile(
                        table.ctypes.data + 8 * ROWS * lines * images * tile, present * height, OW,
                        4 * ROWS * columns.stride, 4 * ROWS * WW * WH * images * strip_count * group,
                        panel.ctypes.data + pixel_bytes * panel.shape[1] * p, pixel_bytes, pixel_bytes * OW,
                        target.ctypes.data + 8 * ROWS * tile, 4 * (group * (O // groups) + column),
                        0, mode, min(COLUMNS, O // groups - column),
                    )  # fmt: skip
            mode = ACCUMULATE


@compiled
def _copy_strips(image, top, left, begin, end, strips, i):
    """strips[s, i, h, left + w] = image[top + h, w, begin + s·ROWS …] up to channel `end`, zeros outside the image."""
    H, W, C = image.shape
    _, images, WH, WW, _ = strips.shape
    whole = (end - begin) // ROWS
    rest = end - begin - whole * ROWS
    for row in range(WH):
        h = top + row
        inside = h >= 0 and h < H
        for s in range(len(strips)):
            strips[s, i, row, : left if inside else WW] = 0
            strips[s, i, row, left + W :] = 0
        if not inside:
            continue
        for w in range(W):
            source = image.ctypes.data + 4 * ((h * W + w) * C + begin)
            target = strips.ctypes.data + 4 * ((i * WH + row) * WW + left + w) * ROWS
            for s in range(whole):
                copy_strip(target + 4 * s * images * WH * WW * ROWS, source + 4 * s * ROWS)
            for r in range(rest):
                strips[whole, i, row, left + w, r] = image[h, w, begin + whole * ROWS + r]


@compiled
def _copy_panels(lines, groups, panels, first):
    """panels[p, first + pixel] = the COLUMNS channels of panel p of that pixel, zeros past its group's last channel."""
    _, W, O = lines.shape
    per_group = len(panels) // groups
    whole = O // groups // COLUMNS
    rest = O // groups - whole * COLUMNS
    for line in range(len(lines)):
        for w in range(W):
            pixel = first + line * W + w
            for group in range(groups):
                p, c = group * per_group, group * (O // groups)
                for q in range(whole):
                    copy_row(panels[p + q, pixel].ctypes.data, lines[line, w, c + q * COLUMNS :].ctypes.data)
                if rest:
                    panels[p + whole, pixel, rest:] = 0
                    for j in range(rest):
                        panels[p + whole, pixel, j] = lines[line, w, c + whole * COLUMNS + j]
