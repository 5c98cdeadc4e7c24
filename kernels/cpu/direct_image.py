"""The gradient of a convolution's input where that has few channels, as an image has: a product, then sums.

direct.input_grad would fill 3 of the micro-kernel's columns. Here a line of outputs is multiplied by all taps at once,

    columns[ow, (kh, kw, c)]  =  Σ over o of  gy[n, oh, ow, o] · w[kh, kw, c, o]         KH·KW·C numbers for each output

and each of these rows of numbers is added to the pixels that the window covers (reference.col2im): KH runs, of KW·C
numbers, side by side in NHWC unless the window is dilated.

    gx[n, oh·stride − pad + kh·dilation, ow·stride − pad + kw·dilation, c]  +=  columns[ow, (kh, kw, c)]

Windows overlap, so that a line of pixels has several lines of outputs above it. An image is therefore cut into bands of
lines; whoever has a band computes all outputs that reach it, in order, and nobody else writes there.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.ir.copy import copy_floats
from kernels.cpu.ir.microkernel import OVERWRITE
from kernels.cpu.machine import COLUMNS, ROWS
from kernels.cpu.memory import empty, scratch
from kernels.cpu.panels import pack_transposed
from kernels.cpu.threads import count, parallel
from kernels.cpu.tile import multiply_tile
from kernels.geometry import Axis

MOST_CHANNELS = 4
SHARES = 4  # a thread
BAND = 32  # lines of gx


def suits(C: int, groups: int) -> bool:
    """Whether this is the better way to the gradient of C channels."""
    return C <= MOST_CHANNELS and groups == 1


def input_grad(gy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...], axes: tuple[Axis, Axis]) -> np.ndarray:
    """gx (N, H, W, C) from gy (N, OH, OW, O) and w (KH, KW, C, O)."""
    rows, columns = axes
    N, H, W, C = x_shape
    KH, KW, _, O = w.shape
    gx = empty(x_shape)
    panels = pack_transposed(w.reshape(1, KH * KW * C, O), [0])[:, 0]  # (P, O, COLUMNS), of KH·KW·C columns
    band = min(BAND, H)
    shares = min(N * -(-H // band), SHARES * count())
    tiles = -(-columns.outputs // ROWS)
    width = max(columns.before + W, (columns.outputs - 1) * columns.stride + (KW - 1) * columns.dilation + 1)
    parallel(
        _sum_bands, shares, shares, gy, panels, rows, columns, gx,
        scratch("image columns", (shares, tiles * ROWS, len(panels) * COLUMNS)),
        scratch("image bands", (shares, band, width * C)),
        scratch("image tables", (shares, 2, ROWS), np.int64),
        cost=N * rows.outputs * columns.outputs * KH * KW * C * O // (64 * shares),
    )  # fmt: skip
    return gx


@compiled
def _sum_bands(begin, end, shares, gy, panels, rows, columns, gx, products, padded_bands, tables):
    """Shares [begin, end) of the bands of all images.

    Of each share's own, products[share] (OW…, KH·KW·C…) is one line of outputs, multiplied, padded_bands[share]
    (lines, width·C) the band, with padding on its sides, and tables[share] the addresses of a tile's rows.
    """
    N, H, W, C = gx.shape
    lines = padded_bands.shape[1]
    bands = (H + lines - 1) // lines
    for share in range(begin, end):
        band, line_products = padded_bands[share], products[share]
        for index in range(N * bands * share // shares, N * bands * (share + 1) // shares):
            n, first = index // bands, index % bands * lines
            height = min(lines, H - first)
            band[:height] = 0
            # Output line oh has its taps at oh·stride − before + kh·dilation.
            reach = rows.before - (rows.size - 1) * rows.dilation
            for oh in range(
                max(0, (first + reach + rows.stride - 1) // rows.stride),
                min(rows.outputs, (first + height - 1 + rows.before) // rows.stride + 1),
            ):
                _multiply_line(gy[n, oh], panels, line_products, tables[share])
                for kh in range(rows.size):
                    h = oh * rows.stride - rows.before + kh * rows.dilation - first
                    if h >= 0 and h < height:
                        _add_windows(line_products[:, kh * columns.size * C :], columns, C, band[h])
            for h in range(height):
                copy_floats(gx[n, first + h].ctypes.data, band[h, columns.before * C :].ctypes.data, W * C)


@compiled
def _multiply_line(line, panels, products, table):
    """products[ow, column] = line[ow] · panels for a line of outputs (OW, O)."""
    OW, O = line.shape
    for tile in range((OW + ROWS - 1) // ROWS):
        for r in range(ROWS):
            ow = tile * ROWS + r
            table[0, r] = line.ctypes.data + 4 * O * min(ow, OW - 1)  # past the end, the last one again
            table[1, r] = products.ctypes.data + 4 * products.shape[1] * ow
        for p in range(len(panels)):
            multiply_tile(
                table.ctypes.data, 1, O, 4, 0,
                panels.ctypes.data + 4 * COLUMNS * O * p, 4 * COLUMNS, 0,
                table.ctypes.data + 8 * ROWS, 4 * COLUMNS * p, 0, OVERWRITE, COLUMNS,
            )  # fmt: skip


@compiled
def _add_windows(products, columns, C, line):
    """line[window ow's taps] += products[ow, : KW·C] for the windows along a line."""
    runs, length = (1, columns.size * C) if columns.dilation == 1 else (columns.size, C)
    for ow in range(columns.outputs):
        for run in range(runs):
            target = line[(ow * columns.stride + run * columns.dilation) * C :]
            source = products[ow, run * length :]
            for i in range(length):
                target[i] += source[i]
