"""Activations: arrays are read as vectors, each element on its own.

Tasks cut out their part first. An index that counts from `begin` might be negative, as far as the compiler can see, and
so mean a place near the end of an array: that question, asked for every element, keeps a loop off the SIMD lanes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels import reference
from kernels.cpu.compile import compiled
from kernels.cpu.layout import vector_of
from kernels.cpu.memory import empty
from kernels.cpu.pieces import by_pieces
from kernels.cpu.threads import parallel


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0); a NaN stays a NaN."""
    y = empty(x.shape, x.dtype)
    parallel(clip_below, x.size, vector_of(x), y.reshape(-1))
    return y


@compiled
def clip_below(begin, end, x, y):
    x, y, zero = x[begin:end], y[begin:end], x.dtype.type(0)
    for i in range(len(x)):
        y[i] = zero if x[i] < zero else x[i]


def add_and_relu(y: np.ndarray, residual: np.ndarray) -> None:
    """y = relu(y + residual), in y's own memory: for a result that nobody has seen yet, in one piece."""
    parallel(add_and_clip_below, y.size, vector_of(residual), y.reshape(-1))


@compiled
def add_and_clip_below(begin, end, residual, y):
    residual, y, zero = residual[begin:end], y[begin:end], y.dtype.type(0)
    for i in range(len(y)):
        v = y[i] + residual[i]
        y[i] = zero if v < zero else v


def relu_grad(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """gy where y > 0, else 0."""
    gx = empty(y.shape, gy.dtype)
    parallel(mask, y.size, vector_of(gy), vector_of(y), gx.reshape(-1))
    return gx


@compiled
def mask(begin, end, gy, y, gx):
    gy, y, gx, zero = gy[begin:end], y[begin:end], gx[begin:end], gy.dtype.type(0)
    for i in range(len(y)):
        g = gy[i]  # read in any case: a read that depends on y would keep the loop off the SIMD lanes
        gx[i] = g if y[i] > zero else zero


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−x)."""
    return _as_reference(reference.sigmoid, x)


def sigmoid_grad(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """gy·y·(1 − y)."""
    return _as_reference(reference.sigmoid_grad, gy, y)


def tanh(x: np.ndarray) -> np.ndarray:
    """The hyperbolic tangent."""
    return _as_reference(reference.tanh, x)


def tanh_grad(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """gy·(1 − y²)."""
    return _as_reference(reference.tanh_grad, gy, y)


def _as_reference(f: Callable, *arrays: np.ndarray) -> np.ndarray:
    result = empty(arrays[0].shape, arrays[0].dtype)
    by_pieces(f, (result.reshape(-1),), *map(vector_of, arrays))
    return result
