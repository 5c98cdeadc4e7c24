"""Local response normalisation, pixel by pixel, with everything that belongs to a pixel in the nearest cache.

    s_i = k + alpha Σ x_j²      y_i = x_i s_i^(−beta)      gx_i = gy_i s_i^(−beta) − 2 alpha beta x_i Σ gy_j y_j / s_j

The sums run over the channels j with |j − i| <= size//2. They are taken from a row with zeros at both ends, one
neighbour at a time for all channels. (A sum that slides along takes fewer additions, but it cancels, and one by one.)
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.layout import rows_of
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel


def lrn(x: np.ndarray, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> np.ndarray:
    """y = x·s^(−beta) in one pass."""
    y = empty(x.shape, x.dtype)
    x, options = rows_of(x), map(x.dtype.type, (alpha, beta, k))
    parallel(lrn_rows, len(x), x, size // 2, *options, rows_of(y), cost=size * x.shape[1])
    return y


@compiled
def lrn_rows(begin, end, x, half, alpha, beta, k, y):
    C = x.shape[1]
    squares, s, scale = np.zeros(C + 2 * half, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
    for p in range(begin, end):
        scales(x[p], half, alpha, beta, k, squares, s, scale)
        for c in range(C):
            y[p, c] = x[p, c] * scale[c]


def lrn_grad(
    gy: np.ndarray, x: np.ndarray, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> np.ndarray:
    """gx in one pass; s is computed again."""
    gx = empty(x.shape, x.dtype)
    x, options = rows_of(x), map(x.dtype.type, (alpha, beta, k))
    parallel(lrn_grad_rows, len(x), rows_of(gy), x, size // 2, *options, rows_of(gx), cost=2 * size * x.shape[1])
    return gx


@compiled
def lrn_grad_rows(begin, end, gy, x, half, alpha, beta, k, gx):
    C = x.shape[1]
    squares, s, scale = np.zeros(C + 2 * half, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
    terms, sums = np.zeros(C + 2 * half, x.dtype), np.empty(C, x.dtype)
    factor = x.dtype.type(2) * alpha * beta
    for p in range(begin, end):
        scales(x[p], half, alpha, beta, k, squares, s, scale)
        for c in range(C):
            terms[half + c] = gy[p, c] * x[p, c] * scale[c] / s[c]
        neighbour_sums(terms, half, sums)
        for c in range(C):
            gx[p, c] = gy[p, c] * scale[c] - factor * x[p, c] * sums[c]


@compiled
def scales(x, half, alpha, beta, k, squares, s, scale):
    """For the channels x of one pixel: s, and scale = s^(−beta); squares is zero at both ends and stays so."""
    C, one = len(x), x.dtype.type(1)
    for c in range(C):
        squares[half + c] = x[c] * x[c]
    neighbour_sums(squares, half, s)
    for c in range(C):
        s[c] = k + alpha * s[c]
    if beta == 0.75:  # every paper's: two roots take a tenth of the time of a power
        for c in range(C):
            root = np.sqrt(s[c])
            scale[c] = one / (root * np.sqrt(root))
    else:
        for c in range(C):
            scale[c] = s[c] ** -beta


@compiled
def neighbour_sums(terms, half, sums):
    """sums[c] = Σ terms[c + j], 0 <= j <= 2·half."""
    for c in range(len(sums)):
        sums[c] = terms[c]
    for j in range(1, 2 * half + 1):
        for c in range(len(sums)):
            sums[c] += terms[c + j]
