"""Fully connected layers, and which way their products are computed.

    y = x @ w        the micro-kernel where many rows of x share a packed w, and where w is so small that preparing a
                     call of BLAS takes longer than the product; BLAS elsewhere
    gxᵀ = w @ gyᵀ    the micro-kernel: w lies as it should, a row of it for each row of gxᵀ, and is read once; BLAS for
                     so few images that most of a panel's columns, which are the images here, would be zeros
    gw = xᵀ @ gy     the micro-kernel: short sums and a result as large as w, which is written once

float64 is for BLAS too, and so is everything on machines for which no micro-kernel is made. Its products are cut into
strips of columns, each one call on one thread. Shapes and dtype alone decide.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu import blas
from kernels.cpu.gemm import multiply
from kernels.cpu.machine import COLUMNS, VECTOR
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel

STRIP = 512  # columns
MANY_ROWS = 64  # of x
SMALL_BYTES = 64 << 10  # of w
ENOUGH_COLUMNS = COLUMNS // 4  # of gyᵀ


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """y = x @ w + b."""
    y = empty((len(x), w.shape[1]), x.dtype)
    if _in_tiles(x, w) and (len(x) >= MANY_ROWS or w.nbytes <= SMALL_BYTES):
        multiply(x, w, y, b)
        return y
    _multiply(x, w, y)
    if b is not None:
        y += b
    return y


def linear_input_grad(gy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """gx = gy @ wᵀ."""
    gx = empty((len(gy), w.shape[0]), gy.dtype)
    if _in_tiles(gy, w) and len(gy) >= ENOUGH_COLUMNS:
        multiply(w, gy.T, gx.T)
    else:
        _multiply(gy, w.T, gx)
    return gx


def linear_weight_grad(gy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """gw = xᵀ @ gy."""
    gw = empty((x.shape[1], gy.shape[1]), gy.dtype)
    if _in_tiles(gy, x):
        multiply(x.T, gy, gw)
    else:
        _multiply(gy.T, x, gw.T)  # gwᵀ = gyᵀ @ x: strips of gw's rows, which lie in one piece
    return gw


def _in_tiles(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the micro-kernel can do it."""
    return VECTOR != "plain" and a.dtype == b.dtype == np.float32 and a.size > 0 and b.size > 0


def _multiply(a: np.ndarray, b: np.ndarray, product: np.ndarray) -> None:
    """product = a @ b, strip by strip."""

    def strips(begin: int, end: int) -> None:
        with blas.one_thread():
            for strip in range(begin, end):
                columns = slice(strip * STRIP, (strip + 1) * STRIP)
                np.matmul(a, b[:, columns], out=product[:, columns])

    parallel(strips, -(-b.shape[1] // STRIP), cost=len(b) * STRIP)
