"""Arrays that start on a cache line, and scratch space that outlives a call."""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import DTypeLike

CACHE_LINE = 64  # bytes; NumPy aligns to 16, and then every other vector straddles two lines


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}


_scratch = _Scratch()


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An uninitialised array that starts on a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An array for intermediate results, its content arbitrary, valid until this thread asks for `name` again.

    The memory is kept and used again: fresh pages cost more than the arithmetic that fills them.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = _scratch.buffers.get(name)
    if buffer is None or buffer.size < size:
        buffer = _scratch.buffers[name] = empty((size,), np.uint8)
    return buffer[:size].view(dtype).reshape(shape)
