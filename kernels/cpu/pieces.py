"""NumPy's own code on pieces of arrays: for exponentials and the like, which it computes on SIMD lanes, Numba not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.cpu.threads import parallel

PIECE = 16_384  # elements: temporary arrays of this size stay in a core's cache


def by_pieces(f: Callable, results: tuple[np.ndarray, ...], *arrays: np.ndarray) -> None:
    """results = f(*arrays), for an f that treats every item along the first axis by itself.

    Pieces have one fixed size: NumPy may compute the last few elements of an array in another way than the others.
    """
    items = max(1, PIECE * len(results[0]) // max(result.size for result in results))

    def apply(begin: int, end: int) -> None:
        for piece in range(begin, end):
            part = slice(piece * items, (piece + 1) * items)
            values = f(*(a[part] for a in arrays))
            for result, value in zip(results, values if isinstance(values, tuple) else (values,), strict=True):
                result[part] = value

    parallel(apply, -(-len(results[0]) // items), cost=10 * PIECE)
