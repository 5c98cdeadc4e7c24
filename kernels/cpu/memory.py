"""Arrays that start on a cache line, in memory that is used again; and scratch space that outlives a call."""

from __future__ import annotations

import math
import os
import threading

import numpy as np
from numpy.typing import DTypeLike

from kernels.cpu.arena import CACHE_LINE, Arena

LARGE = 64 << 10  # bytes: smaller arrays come from NumPy, which keeps their pages too


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}


_scratch = _Scratch()
_arena = Arena()


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An uninitialised array that starts on a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    array = _arena.array(shape, dtype) if size >= LARGE else None
    if array is not None:
        return array
    raw = np.empty(size + CACHE_LINE, np.uint8)
    return np.ndarray(shape, dtype, raw, offset=-raw.ctypes.data % CACHE_LINE)


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An array for intermediate results, its content arbitrary, valid until this thread asks for `name` again.

    The memory is kept and used again.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = _scratch.buffers.get(name)
    if buffer is None or buffer.size < size:
        buffer = _scratch.buffers[name] = empty((size,), np.uint8)
    return np.ndarray(shape, dtype, buffer)


def release() -> None:
    """Give memory that no array uses at the moment back to the system; the next step takes fresh pages."""
    _arena.release()


if hasattr(os, "register_at_fork"):  # a child must not inherit a list of ranges that another thread is changing
    os.register_at_fork(
        before=lambda: _arena.lock.acquire(),
        after_in_parent=lambda: _arena.lock.release(),
        after_in_child=lambda: _arena.lock.release(),
    )
