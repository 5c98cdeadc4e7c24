"""The right-hand side of a product as the micro-kernel reads it: panels of COLUMNS columns, padded with zeros.

    w (T, C, O)  ─▶  panels (P, T, C, COLUMNS)          panel p holds the output channels p·COLUMNS … of every tap

A panel is in one piece: its rows, the steps of the micro-kernel, follow each other, tap after tap. For the gradient of
the input the sum goes over O, so C and O change places. Groups are so many products, their panels one after the other.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.machine import COLUMNS, WIDTH
from kernels.cpu.memory import scratch
from kernels.cpu.threads import parallel
from kernels.cpu.tile import copy_row, transpose_square

LINE = 16  # float32 numbers in a line of the cache


def panel_count(columns: int) -> int:
    """How many panels that many columns of one group make."""
    return -(-columns // COLUMNS)


def pack(w: np.ndarray, groups: int = 1) -> np.ndarray:
    """w (T, C/groups, O) -> (panels, T, C/groups, COLUMNS), valid until this thread packs again."""
    T, C, O = w.shape
    panels = scratch("panels", (groups * panel_count(O // groups), T, C, COLUMNS))
    parallel(_pack, len(panels), w, groups, panels, cost=panels[0].size)
    return panels


@compiled
def _pack(begin, end, w, groups, panels):
    T, C, O = w.shape
    for p in range(begin, end):
        group, column = panel_place(p, len(panels), groups)
        first, n = group * (O // groups) + column, min(COLUMNS, O // groups - column)
        for t in range(T):
            for c in range(C):
                if n == COLUMNS:
                    copy_row(panels[p, t, c].ctypes.data, w[t, c, first:].ctypes.data)
                else:
                    panels[p, t, c, n:] = 0
                    for j in range(n):
                        panels[p, t, c, j] = w[t, c, first + j]


@compiled
def panel_place(p, panels, groups):
    """(group, first column in it) of panel p."""
    per_group = panels // groups
    return p // per_group, p % per_group * COLUMNS


def pack_transposed(w: np.ndarray, taps: list[int], groups: int = 1) -> np.ndarray:
    """w (T, C/groups, O) -> (panels, taps, O/groups, COLUMNS), the columns now input channels, the taps as listed.

    They are valid until this thread packs again.
    """
    _, C, O = w.shape
    panels = scratch("panels", (groups * panel_count(C), len(taps), O // groups, COLUMNS))
    parallel(_pack_transposed, len(panels), w, groups, np.array(taps, np.int64), panels, cost=panels[0].size)
    return panels


@compiled
def _pack_transposed(begin, end, w, groups, taps, panels):
    _, C, O = w.shape
    steps = O // groups
    for p in range(begin, end):
        group, column = panel_place(p, len(panels), groups)
        n = min(COLUMNS, C - column)
        for i in range(len(taps)):
            panel, filters = panels[p, i], w[taps[i]]  # (O/groups, COLUMNS), (C, O)
            whole = steps // LINE * LINE if n == COLUMNS else 0
            # A line of each of WIDTH filters at a time: these may all share one set of the cache.
            for o in range(0, whole, LINE):
                for j in range(0, COLUMNS, WIDTH):
                    for k in range(o, o + LINE, WIDTH):
                        transpose_square(
                            panel[k, j:].ctypes.data, 4 * COLUMNS,
                            filters[column + j, group * steps + k :].ctypes.data, 4 * O,
                        )  # fmt: skip
            for o in range(whole, steps):
                for j in range(n):
                    panel[o, j] = filters[column + j, group * steps + o]
            panel[:, n:] = 0


def pad_bias(b: np.ndarray | None, groups: int = 1) -> np.ndarray:
    """b (O,) -> (panels, COLUMNS), zeros past the last channel; no rows without a bias."""
    if b is None:
        return np.empty((0, COLUMNS), np.float32)
    columns = b.size // groups
    rows = np.zeros((groups, panel_count(columns) * COLUMNS), np.float32)
    rows[:, :columns] = b.reshape(groups, columns)
    return rows.reshape(-1, COLUMNS)
