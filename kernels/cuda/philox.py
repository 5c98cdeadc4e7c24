"""Dropout (philox.cu)."""

from __future__ import annotations

import math

from kernels import reference
from kernels.cuda.arrays import BLOCK, Array, blocks, contiguous, empty_like, fast, kernels_of

_kernels = kernels_of(__file__)

_WORD = 2**32 - 1


def dropout(x: Array, p: float, key: tuple[int, int, int]) -> Array:
    """Set each element to 0 with probability p, and scale the others by 1/(1 − p): the expectation stays x.

    0 <= p < 1. The mask depends on key = (seed, layer, step) and on the element's position in C order alone, so the
    gradient is the same function of gy; it is the reference's mask, bit for bit.
    """
    if p == 0 or not fast(x):
        return reference.dropout(x, p, key)
    seed, layer, step = key
    y = empty_like(x)
    numbers = (1 - p, math.ceil(p * 2**24), seed & _WORD, seed >> 32, layer, step)
    grid = blocks(-(-x.size // 4), BLOCK)
    _kernels.launch("dropout", grid, (BLOCK,), contiguous(x), y, *numbers, x.size, T=x.dtype)
    return y
