"""The gradient of the weights by Winograd's algorithm, see winograd.py for V and the matrices:

    gM[k] (tiles, O)  =  A gy Aᵀ         gU[k] (C, O)  =  Σ over tiles of V[k]ᵀ @ gM[k]         gw  =  Gᵀ gU G

Tiles are taken block by block. Where gU is small, each of a few slices of the tiles, fixed by the shape, has a gU of
its own, which one thread sums in its cache; they are added up in order at the end. Where gU is large, all threads work
on one block: first they share out its tiles, then its 36 products. Either way no bit depends on the threads.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.columns import add_partial
from kernels.cpu.compile import compiled
from kernels.cpu.ir.microkernel import ACCUMULATE, OVERWRITE
from kernels.cpu.machine import COLUMNS, ROWS
from kernels.cpu.memory import empty, scratch
from kernels.cpu.threads import parallel
from kernels.cpu.tile import multiply_tile
from kernels.cpu.winograd import (
    GAP,
    POINTS,
    SIDE,
    TILE,
    tile_pixels,
    tiles_across,
    transform_filter_grad,
    transform_input,
    transform_output_grad,
)
from kernels.geometry import Axis

SLICES = 8
SLICE_BYTES = 256 << 10  # of gU, up to which a thread has room in its cache for one of its own
SLICE_BLOCK = 32  # tiles that a slice takes at a time: their V and gM lie in the second-level cache, beside gU
BLOCK_BYTES = 8 << 20  # of V and gM, of the blocks that all threads work on: in the third-level cache
STEPS = 192  # tiles summed in one go: their rows stay in the first-level cache


def weight_grad(gy: np.ndarray, x: np.ndarray, w_shape: tuple[int, ...], axes: tuple[Axis, Axis]) -> np.ndarray:
    """gw (3, 3, C, O) from gy (N, OH, OW, O) and x (N, H, W, C)."""
    corner = axes[0].before, axes[1].before
    C, O = w_shape[2:]
    tiles = len(gy) * tiles_across(gy.shape[1]) * tiles_across(gy.shape[2])
    rows = -(-C // ROWS) * ROWS  # of gU: the last register tile may have some past C
    if 4 * POINTS * C * O <= SLICE_BYTES:
        block = min(tiles, SLICE_BLOCK)
        slices = min(SLICES, -(-tiles // block))
    else:
        block = min(tiles, max(1, BLOCK_BYTES // (4 * POINTS * (C + O)) // STEPS) * STEPS)
        slices = 1
    V = scratch("winograd V", (slices, POINTS, block * (C + GAP) + GAP))
    M = scratch("winograd M", (slices, POINTS, block * (O + GAP) + GAP))
    gU = scratch("winograd U", (slices, POINTS, rows * O + GAP))
    addresses = scratch("winograd rows", (slices, POINTS, 2, rows), np.int64)
    pixels = scratch("winograd pixels", (slices, block, POINTS), np.int64)
    zeros = np.zeros(max(C, O), np.float32)
    if slices > 1:
        parallel(
            _sum_slices, slices, x, gy, corner, tiles, V, M, gU, addresses, pixels, zeros,
            cost=tiles * POINTS * C * O // (64 * slices),
        )  # fmt: skip
        total = scratch("winograd sum", gU[:1].shape)
        parallel(add_partial, total.size, gU.reshape(slices, total.size), total.reshape(total.size), cost=slices)
        gU = total
    else:
        for first in range(0, tiles, block):
            present, mode = min(block, tiles - first), ACCUMULATE if first else OVERWRITE
            parallel(
                _transform_tiles, present, x, gy, corner, first, V[0], M[0], pixels[0], zeros,
                cost=POINTS * (C + O),
            )  # fmt: skip
            parallel(
                _sum_points, POINTS, C, O, present, mode, V[0], M[0], gU[0], addresses[0],
                cost=present * C * O // 64,
            )  # fmt: skip
    gw = empty(w_shape)
    parallel(_transform_sums, C, gU[0], gw, cost=POINTS * O)
    return gw


@compiled
def _sum_slices(begin, end, x, gy, corner, tiles, V, M, gU, addresses, pixels, zeros):
    """gU[slice] for the slices [begin, end) of the tiles."""
    slices, block = pixels.shape[:2]
    for part in range(begin, end):
        mode = OVERWRITE
        last = tiles * (part + 1) // slices
        for first in range(tiles * part // slices, last, block):
            present = min(block, last - first)
            _transform_tiles(0, present, x, gy, corner, first, V[part], M[part], pixels[part], zeros)
            _sum_points(
                0, POINTS, x.shape[3], gy.shape[3], present, mode, V[part], M[part], gU[part], addresses[part]
            )  # fmt: skip
            mode = ACCUMULATE


@compiled
def _transform_tiles(begin, end, x, gy, corner, first, V, M, pixels, zeros):
    """Rows [begin, end) of V = Bᵀ x B and gM = A gy Aᵀ, which are the tiles from `first` on."""
    C, O = x.shape[3], gy.shape[3]
    for t in range(begin, end):
        tile_pixels(x, first + t, gy.shape, corner[0], corner[1], SIDE, pixels[t], zeros.ctypes.data)
        transform_input(pixels[t].ctypes.data, V[0, t * (C + GAP) :].ctypes.data, 4 * V.shape[1], C)
        tile_pixels(gy, first + t, gy.shape, 0, 0, TILE, pixels[t], zeros.ctypes.data)
        transform_output_grad(pixels[t].ctypes.data, M[0, t * (O + GAP) :].ctypes.data, 4 * M.shape[1], O)


@compiled
def _sum_points(begin, end, C, O, present, mode, V, M, gU, addresses):
    """gU[k] = V[k]ᵀ @ gM[k] for k in [begin, end), added to it with `mode` ACCUMULATE. A row of A is a channel of V."""
    v_row, m_row = 4 * (C + GAP), 4 * (O + GAP)
    rows = addresses.shape[2]
    for k in range(begin, end):
        for c in range(rows):
            addresses[k, 0, c], addresses[k, 1, c] = V[k, min(c, C) :].ctypes.data, gU[k, c * O :].ctypes.data
        for t in range(0, present, STEPS):
            for column in range(0, O, COLUMNS):
                for c in range(0, rows, ROWS):
                    multiply_tile(
                        addresses[k, 0, c:].ctypes.data, 1, min(STEPS, present - t), v_row, t * v_row,
                        M[k, column:].ctypes.data + t * m_row, m_row, 0,
                        addresses[k, 1, c:].ctypes.data, 4 * column,
                        0, ACCUMULATE if t else mode, min(COLUMNS, O - column),
                    )  # fmt: skip


@compiled
def _transform_sums(begin, end, gU, gw):
    """gw = Gᵀ gU G for the input channels [begin, end)."""
    _, _, C, O = gw.shape
    for c in range(begin, end):
        transform_filter_grad(gU[0, c * O :].ctypes.data, 4 * gU.shape[1], gw[0, 0, c].ctypes.data, 4 * C * O, O)
