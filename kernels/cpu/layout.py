"""How kernels read arrays: in one piece, as a vector or as rows of channels; and a copy on several threads."""

from __future__ import annotations

import numpy as np

from kernels.cpu.threads import parallel


def vector_of(x: np.ndarray) -> np.ndarray:
    """All elements in C order; x is only copied if it does not lie in one piece."""
    return np.ascontiguousarray(x).reshape(-1)


def rows_of(x: np.ndarray) -> np.ndarray:
    """(..., C) as (P, C), a row for each of P pixels; x is only copied if it does not lie in one piece."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def copy_to(target: np.ndarray, source: np.ndarray) -> None:
    """target[...] = source, shared out along the first axis."""

    def copy(begin: int, end: int) -> None:
        target[begin:end] = source[begin:end]

    parallel(copy, len(target), cost=target[0].size)
