"""What the wrappers beside the .cu files share: which arrays they take, and how those are laid out.

Written with `array_module`, so that the same wrappers drive kernels that run on the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kernels import array_module
from kernels.cuda.launcher import Dim, Kernels

Array = Any  # cupy.ndarray, or numpy.ndarray where kernels run on the host
Shape = tuple[int, ...]

BLOCK = 256  # threads of most blocks, as in common.cuh
FAST = (np.dtype(np.float16), np.dtype(np.float32))


def kernels_of(module: str) -> Kernels:
    """The kernels of the .cu file beside the Python file `module`."""
    return Kernels(Path(module).with_suffix(".cu"))


def fast(*arrays: Array | None) -> bool:
    """Whether the kernels take these maps: of one dtype, float32 or float16. Others go to the reference."""
    dtypes = {a.dtype for a in arrays if a is not None}
    return len(dtypes) == 1 and dtypes.pop() in FAST


def contiguous(a: Array) -> Array:
    """The array in C order: itself if it is, else a copy. A NumPy array stays one, for the launcher to refuse."""
    return array_module(a).ascontiguousarray(a)


def empty_like(a: Array) -> Array:
    """A C-ordered array of the shape and dtype of `a`."""
    return array_module(a).empty(a.shape, a.dtype)


def address(a: Array) -> int:
    """Where the array's memory begins."""
    return a.ctypes.data if array_module(a) is np else a.data.ptr


def blocks(elements: int, threads: int) -> Dim:
    """The grid of blocks of `threads` that has a thread for each element; none for no elements."""
    return (-(-elements // threads),)


def lanes(channels: int) -> Dim:
    """A block (x, y) for maps: x threads side by side on the channels of a position, y positions, BLOCK in all.

    A warp reads best along the channels; with fewer than 32 of them, some of its threads take other positions.
    """
    x = next((x for x in (8, 16) if channels <= x), 32)
    return x, BLOCK // x


def expect(kernel: str, shape: Shape, **arrays: Array | None) -> None:
    """Raise ValueError for the first of the named arrays that has another shape: a kernel would read beside it."""
    for name, a in arrays.items():
        if a is not None and a.shape != shape:
            raise ValueError(f"{kernel}: {name} must have the shape {shape}, got {a.shape}")
