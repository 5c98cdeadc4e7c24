"""Option A's shortcut, subsample and pad with zeros: NumPy's own copies, on several threads."""

from __future__ import annotations

import numpy as np

from kernels.cpu.layout import copy_to, rows_of
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel
from kernels.geometry import Pair, pair


def pad_channels(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """(..., C) -> (..., before + C + after)."""
    rows, C = rows_of(x), x.shape[-1]
    y = empty((len(rows), before + C + after), x.dtype)

    def pad(begin: int, end: int) -> None:
        y[begin:end, :before] = y[begin:end, before + C :] = 0
        y[begin:end, before : before + C] = rows[begin:end]

    parallel(pad, len(y), cost=y.shape[1])
    return y.reshape(*x.shape[:-1], -1)


def subsample(x: np.ndarray, stride: Pair) -> np.ndarray:
    """Every stride-th row and column."""
    sh, sw = pair(stride)
    kept = x[:, ::sh, ::sw]
    y = empty(kept.shape, x.dtype)
    copy_to(y, kept)
    return y


def subsample_grad(gy: np.ndarray, x_shape: tuple[int, ...], stride: Pair) -> np.ndarray:
    """gy at the positions that were kept, 0 elsewhere."""
    sh, sw = pair(stride)
    gx = empty(x_shape, gy.dtype)

    def spread(begin: int, end: int) -> None:
        gx[begin:end] = 0
        gx[begin:end, ::sh, ::sw] = gy[begin:end]

    parallel(spread, len(gx), cost=gx[:1].size)
    return gx
