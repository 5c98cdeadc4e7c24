"""Pooling: each task takes whole rows, of the output in the forward kernels and of the input in the gradients.

Inner loops run over the channels, which lie side by side. A gradient asks, for every row of the input, which rows of
windows hold it: no two tasks write to the same place, and sums have one order.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel
from kernels.geometry import Axis, Padding, Pair, windows


def max_pool(
    x: np.ndarray, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """y and winners (N, OH, OW, C): the largest element of each window, and its tap kh·KW + kw."""
    x = np.ascontiguousarray(x)
    rows, cols = windows(x.shape, size, stride, pad, ceil=ceil)
    y = empty((len(x), rows.outputs, cols.outputs, x.shape[3]), x.dtype)
    winners = empty(y.shape, np.uint8 if rows.size * cols.size <= 256 else np.int32)
    parallel(max_rows, len(x) * rows.outputs, x, rows, cols, y, winners, cost=rows.size * cols.size * y[0, 0].size)
    return y, winners


@compiled
def max_rows(begin, end, x, rows, cols, y, winners):
    leader = np.empty(x.shape[3], np.int32)  # as wide as float32: comparing those and blending bytes would take longer
    for row in range(begin, end):
        n, oh = row // rows.outputs, row % rows.outputs
        top = oh * rows.stride - rows.before
        for ow in range(cols.outputs):
            left = ow * cols.stride - cols.before
            best, winner = y[n, oh, ow], winners[n, oh, ow]
            best[:] = -np.inf
            leader[:] = 0
            # The taps that are on the map: an `if` within the loops would keep the innermost off the SIMD lanes.
            for i in range(max(0, -top), min(rows.size, rows.length - top)):
                for j in range(max(0, -left), min(cols.size, cols.length - left)):
                    candidate, tap = x[n, top + i, left + j], np.int32(i * cols.size + j)
                    for c in range(len(best)):
                        value, most, old = candidate[c], best[c], leader[c]
                        wins = (value > most) | (value != value)  # NaN always wins
                        # As arithmetic: of `tap if wins else old` the compiler makes branches, three times as slow; so
                        # it would for `best` without np.maximum.
                        best[c] = np.maximum(value, most)
                        leader[c] = old + (tap - old) * wins
            for c in range(len(winner)):
                winner[c] = leader[c]


def max_pool_grad(
    gy: np.ndarray,
    winners: np.ndarray,
    x_shape: tuple[int, ...],
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
) -> np.ndarray:
    """gx: each input gets the gradients of the windows that it won."""
    gy, winners = np.ascontiguousarray(gy), np.ascontiguousarray(winners)
    rows, cols = windows(x_shape, size, stride, pad, ceil=ceil)
    gx = empty(x_shape, gy.dtype)
    cost = rows.size * cols.size * gy[0, 0].size // rows.stride
    parallel(max_grad_rows, x_shape[0] * x_shape[1], gy, winners, rows, cols, gx, cost=cost)
    return gx


@compiled
def max_grad_rows(begin, end, gy, winners, rows, cols, gx):
    zero = gy.dtype.type(0)
    for row in range(begin, end):
        n, h = row // rows.length, row % rows.length
        gx[n, h] = zero
        # Window after window along the row, not line after line of them: what they share of it is in the nearest cache.
        for ow in range(cols.outputs):
            left = ow * cols.stride - cols.before
            for i in range(rows.size):
                oh, rest = divmod(h + rows.before - i, rows.stride)
                if rest == 0 and 0 <= oh < rows.outputs:
                    for j in range(max(0, -left), min(cols.size, cols.length - left)):
                        g, winner, target = gy[n, oh, ow], winners[n, oh, ow], gx[n, h, left + j]
                        tap = winner.dtype.type(i * cols.size + j)
                        for c in range(len(g)):
                            value, old = g[c], target[c]
                            target[c] = old + (value if winner[c] == tap else zero)


def avg_pool(
    x: np.ndarray,
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
    count_pad: bool = False,
) -> np.ndarray:
    """The mean of each window (N, OH, OW, C)."""
    x = np.ascontiguousarray(x)
    rows, cols = windows(x.shape, size, stride, pad, ceil=ceil)
    y = empty((len(x), rows.outputs, cols.outputs, x.shape[3]), x.dtype)
    shares = _shares(rows, cols, count_pad, x.dtype)
    parallel(mean_rows, len(x) * rows.outputs, x, rows, cols, shares, y, cost=rows.size * cols.size * y[0, 0].size)
    return y


def _shares(rows: Axis, cols: Axis, count_pad: bool, dtype: np.dtype) -> np.ndarray:
    """1 / elements of each window, (OH, OW): the real ones, or with count_pad those inside the padded map."""

    def elements(axis: Axis) -> np.ndarray:
        first = np.arange(axis.outputs) * axis.stride - axis.before
        low, high = (-axis.before, axis.length + axis.after) if count_pad else (0, axis.length)
        return np.minimum(first + axis.size, high) - np.maximum(first, low)

    return (1 / np.outer(elements(rows), elements(cols))).astype(dtype)


@compiled
def mean_rows(begin, end, x, rows, cols, shares, y):
    for row in range(begin, end):
        n, oh = row // rows.outputs, row % rows.outputs
        for ow in range(cols.outputs):
            mean = y[n, oh, ow]
            mean[:] = 0
            for i in range(rows.size):
                h = oh * rows.stride - rows.before + i
                for j in range(cols.size):
                    w = ow * cols.stride - cols.before + j
                    if 0 <= h < rows.length and 0 <= w < cols.length:
                        element = x[n, h, w]
                        for c in range(len(mean)):
                            mean[c] += element[c]
            for c in range(len(mean)):
                mean[c] *= shares[oh, ow]


def avg_pool_grad(
    gy: np.ndarray,
    x_shape: tuple[int, ...],
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
    count_pad: bool = False,
) -> np.ndarray:
    """gx: each input gets its share of the gradients of all windows that hold it."""
    gy = np.ascontiguousarray(gy)
    rows, cols = windows(x_shape, size, stride, pad, ceil=ceil)
    gx = empty(x_shape, gy.dtype)
    shares = _shares(rows, cols, count_pad, gy.dtype)
    cost = rows.size * cols.size * gy[0, 0].size // rows.stride
    parallel(mean_grad_rows, x_shape[0] * x_shape[1], gy, rows, cols, shares, gx, cost=cost)
    return gx


@compiled
def mean_grad_rows(begin, end, gy, rows, cols, shares, gx):
    for row in range(begin, end):
        n, h = row // rows.length, row % rows.length
        gx[n, h] = 0
        for i in range(rows.size):
            oh, rest = divmod(h + rows.before - i, rows.stride)
            if rest == 0 and 0 <= oh < rows.outputs:
                for ow in range(cols.outputs):
                    for j in range(cols.size):
                        w = ow * cols.stride - cols.before + j
                        if 0 <= w < cols.length:
                            g, target = gy[n, oh, ow], gx[n, h, w]
                            for c in range(len(g)):
                                target[c] += g[c] * shares[oh, ow]


def global_avg_pool(x: np.ndarray) -> np.ndarray:
    """The mean of each channel over the map (N, C)."""
    N, H, W, C = x.shape
    y = empty((N, C), x.dtype)
    parallel(map_means, N, np.ascontiguousarray(x).reshape(N, H * W, C), y, cost=H * W * C)
    return y


@compiled
def map_means(begin, end, x, y):
    for n in range(begin, end):
        mean = y[n]
        mean[:] = 0
        for p in range(x.shape[1]):
            for c in range(len(mean)):
                mean[c] += x[n, p, c]
        for c in range(len(mean)):
            mean[c] /= x.shape[1]


def global_avg_pool_grad(gy: np.ndarray, x_shape: tuple[int, ...]) -> np.ndarray:
    """gx: gy / (H·W) at every position."""
    N, H, W, C = x_shape
    gx = empty(x_shape, gy.dtype)
    parallel(spread, N, gy / (H * W), gx.reshape(N, H * W, C), cost=H * W * C)
    return gx


@compiled
def spread(begin, end, share, gx):
    for n in range(begin, end):
        for p in range(gx.shape[1]):
            for c in range(gx.shape[2]):
                gx[n, p, c] = share[n, c]
