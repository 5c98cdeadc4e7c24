"""Where arrays live and how many threads work on them. The array decides everything else."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from kernels import array_module
from minicnn import cuda


def of(array: Any) -> str:
    """The device of an array: "cpu" for NumPy's, "cuda" for CuPy's."""
    return "cpu" if array_module(array) is np else "cuda"


def to(array: Any, device: str) -> Any:
    """The array on `device` ("cpu" or "cuda"): itself if it is there already, otherwise a copy.

    Raises ValueError for another name, RuntimeError with the reason where CUDA cannot be used.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: unknown device {device!r}, choose 'cpu' or 'cuda'")
    if of(array) == device:
        return array
    if device == "cpu":
        return array.get()
    problem = cuda_problem()
    if problem:
        raise RuntimeError(f"device: CUDA cannot be used: {problem}")
    import cupy

    return cupy.asarray(array)


@functools.cache
def cuda_problem() -> str | None:
    """Why CUDA cannot be used here, in one line that says what to do, or None if it can: asked once in a process."""
    return cuda.problem()


def choose(wanted: str) -> tuple[str, str]:
    """The device for "auto", "cpu" or "cuda", and the reason in a few words.

    "auto" takes CUDA where it works and the CPU otherwise; "cuda" raises RuntimeError where it does not.
    """
    if wanted == "cpu":
        return "cpu", "asked for"
    if wanted not in ("auto", "cuda"):
        raise ValueError(f"device: unknown device {wanted!r}, choose 'auto', 'cpu' or 'cuda'")
    problem = cuda_problem()
    if problem is None:
        return "cuda", "asked for" if wanted == "cuda" else cuda.card().text
    if wanted == "cuda":
        raise RuntimeError(f"device: CUDA cannot be used: {problem}")
    return "cpu", problem


def use_tf32(on: bool) -> None:
    """Let products of float32 on CUDA devices round their factors to TF32, or not, from here on in this process.

    Raises ValueError where the card has no TF32.
    """
    from kernels.cuda import gemm

    gemm.use_tf32(on)


def set_threads(count: int) -> None:
    """Use `count` threads for kernels on the CPU from here on; results do not depend on it."""
    from kernels.cpu import threads

    threads.set_count(count)


def threads() -> int:
    """How many threads the CPU kernels use: by default the cores that this process may use (affinity and quota)."""
    from kernels.cpu import threads

    return threads.count()


def release_memory() -> None:
    """Give memory that the CPU kernels keep for their next arrays, and that no array uses now, back to the system."""
    from kernels.cpu import memory

    memory.release()


def keep_pages() -> bool:
    """Make the C library keep the memory of large arrays that are freed, for the whole process; True if it obeys.

    The kernels' own arrays lie in memory that is kept anyway. This is for a program whose other code allocates large
    NumPy arrays again and again: fresh pages cost more than most arithmetic on them. glibc only, and for good.
    """
    TRIM_THRESHOLD, MMAP_MAX = -1, -4  # mallopt's names for: when to shrink the heap, and how many arrays outside it
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return all(mallopt(option, value) for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1)))
