"""Fully connected layers: the matrix product is cut into strips of columns, each one call of BLAS on one thread.

Columns are what the weights have many of: a batch has few rows, and so every weight is read once.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu import blas
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel

STRIP = 512  # columns


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """y = x @ w + b."""
    y = empty((len(x), w.shape[1]), x.dtype)
    _multiply(x, w, y)
    if b is not None:
        y += b
    return y


def linear_input_grad(gy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """gx = gy @ wᵀ."""
    gx = empty((len(gy), w.shape[0]), gy.dtype)
    _multiply(gy, w.T, gx)
    return gx


def linear_weight_grad(gy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """gw = xᵀ @ gy, computed as gwᵀ = gyᵀ @ x: strips of gw's rows, which lie in one piece."""
    gw = empty((x.shape[1], gy.shape[1]), gy.dtype)
    _multiply(gy.T, x, gw.T)
    return gw


def _multiply(a: np.ndarray, b: np.ndarray, product: np.ndarray) -> None:
    """product = a @ b, strip by strip."""

    def strips(begin: int, end: int) -> None:
        with blas.one_thread():
            for strip in range(begin, end):
                columns = slice(strip * STRIP, (strip + 1) * STRIP)
                np.matmul(a, b[:, columns], out=product[:, columns])

    parallel(strips, -(-b.shape[1] // STRIP), cost=len(b) * STRIP)
