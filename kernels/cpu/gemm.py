"""Matrix products on the micro-kernel: C = A·B in float32.

                       N columns, COLUMNS a panel
                    ┌──────┬──────┬──────┬──────┐
                    │      │      │      │      │   B: a chunk of its steps, of a band of its columns, is packed into
      K steps       │      │      │      │      │   panels that stay in the second-level cache …
                    └──────┴──────┴──────┴──────┘
    ┌──────────┐    ┌──────┬──────┬──────┬──────┐
    │ ROWS     │    │ tile │ tile │  …   │      │   … while the tiles of a block of rows go by, each with a few KB of A
    ├──────────┤    ├──────┼──────┼──────┼──────┤
    │ ROWS     │    │      │      │      │      │
    └──────────┘    └──────┴──────┴──────┴──────┘

One block of rows times one band of columns is a job. Rows of A are read where they lie, so A is what should be large:
it comes from memory once. How K is cut, and with it the order of every sum, follows from the shape alone.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.ir.microkernel import ACCUMULATE, OVERWRITE
from kernels.cpu.machine import COLUMNS, ROWS
from kernels.cpu.memory import scratch
from kernels.cpu.panels import pad_bias, panel_count
from kernels.cpu.threads import parallel
from kernels.cpu.tile import copy_row, copy_strip, multiply_tile

CACHED_BYTES = 128 << 10  # of panels: a part of the second-level cache that leaves room for A and C
BAND = 8  # panels at least, where there are so many: so often is a number of A used while the nearest cache has it
JOBS = 8  # at least, where there are so many tiles


def multiply(a: np.ndarray, b: np.ndarray, c: np.ndarray, bias: np.ndarray | None = None) -> None:
    """c (M, N) = a (M, K) @ b (K, N) + bias (N,), all float32, no size 0; c or cᵀ lies in one piece.

    Where neither a nor aᵀ lies in one piece, a is copied.
    """
    (M, K), N = a.shape, b.shape[1]
    a_turned, c_turned = not a.flags.c_contiguous and a.flags.f_contiguous, not c.flags.c_contiguous
    panels = panel_count(N)
    band = min(panels, max(BAND, CACHED_BYTES // (4 * COLUMNS * K)))
    steps = min(K, max(1, CACHED_BYTES // (4 * COLUMNS * band)))
    tiles, bands = -(-M // ROWS), -(-panels // band)
    block = -(-tiles // -(-JOBS // bands))
    jobs = bands * -(-tiles // block)
    parallel(
        _multiply_jobs, jobs, np.ascontiguousarray(a.T if a_turned else a), a_turned, np.ascontiguousarray(b),
        c.T if c_turned else c, c_turned, pad_bias(bias), band, steps, block,
        scratch("product tables", (jobs, 2, ROWS), np.int64),
        scratch("product panels", (jobs, band, steps, COLUMNS)),
        scratch("product strips", (jobs, steps if a_turned else 0, ROWS)),
        scratch("product blocks", (jobs, block * ROWS if c_turned else 1, band * COLUMNS)),
        cost=block * ROWS * band * COLUMNS * K // 64,
    )  # fmt: skip


@compiled
def _multiply_jobs(begin, end, a, a_turned, b, c, c_turned, bias, band, steps, block, tables, panels, strips, blocks):
    """Jobs [begin, end). a is (M, K), or aᵀ if it is turned; c likewise.

    tables[job] (2, ROWS) are the addresses of a tile's rows in A and C. Of a turned A, strips[job] (steps, ROWS) holds
    these rows; of a turned C, blocks[job] holds the job's part until it is complete. Rows past the last one read that
    again and go to the block, of which there is one row otherwise.
    """
    M, K = (a.shape[1], a.shape[0]) if a_turned else a.shape
    N = b.shape[1]
    bands = ((N + COLUMNS - 1) // COLUMNS + band - 1) // band
    for job in range(begin, end):
        rows, targets = tables[job]
        panel, strip, result = panels[job], strips[job], blocks[job]
        left, top = job % bands * band * COLUMNS, job // bands * block * ROWS
        right, bottom = min(N, left + band * COLUMNS), min(M, top + block * ROWS)
        for k in range(0, K, steps):
            present = min(steps, K - k)
            _pack(b[k : k + present], left, right, panel)
            for row in range(top, bottom, ROWS):
                if a_turned:
                    _copy_rows(a[k : k + present], row, strip)
                for r in range(ROWS):
                    m = min(row + r, M - 1)
                    rows[r] = strip.ctypes.data + 4 * r if a_turned else a[m, k:].ctypes.data
                    if c_turned:
                        targets[r] = result[row - top + r].ctypes.data
                    else:
                        targets[r] = c[m, left:].ctypes.data if m == row + r else result.ctypes.data
                for p in range((right - left + COLUMNS - 1) // COLUMNS):
                    column = p * COLUMNS
                    multiply_tile(
                        rows.ctypes.data, 1, present, 4 * ROWS if a_turned else 4, 0,
                        panel[p].ctypes.data, 4 * COLUMNS, 0,
                        targets.ctypes.data, 4 * column,
                        bias.ctypes.data + 4 * (left + column) if len(bias) and k == 0 else 0,
                        OVERWRITE if k == 0 else ACCUMULATE, min(COLUMNS, right - left - column),
                    )  # fmt: skip
        if c_turned:
            for column in range(left, right):
                line, numbers = c[column, top:bottom], result[:, column - left]
                for r in range(len(line)):
                    line[r] = numbers[r]


@compiled
def _pack(b, left, right, panels):
    """panels[p, k] = the columns of b[k] from left + p·COLUMNS on, zeros from `right` on."""
    for p in range((right - left + COLUMNS - 1) // COLUMNS):
        column = left + p * COLUMNS
        n = min(COLUMNS, right - column)
        for k in range(len(b)):
            if n == COLUMNS:
                copy_row(panels[p, k].ctypes.data, b[k, column:].ctypes.data)
            else:
                panels[p, k, n:] = 0
                for j in range(n):
                    panels[p, k, j] = b[k, column + j]


@compiled
def _copy_rows(a, row, strip):
    """strip[k] = a[k, row … row + ROWS − 1]; past the last column, that again."""
    last = a.shape[1] - 1
    for k in range(len(a)):
        if row + ROWS <= a.shape[1]:
            copy_strip(strip[k].ctypes.data, a[k, row:].ctypes.data)
        else:
            for r in range(ROWS):
                strip[k, r] = a[k, min(row + r, last)]
