"""Dropout with Philox4x32-10 (Salmon et al. 2011): each element's random number is a function of its position.

No state is handed on, so any thread can draw any part of the mask, and the backward pass draws it again.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.layout import vector_of
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel


def dropout(x: np.ndarray, p: float, key: tuple[int, int, int]) -> np.ndarray:
    """x/(1 − p) where the element is kept, else 0; four elements share a counter (block, layer, step)."""
    if p == 0:
        return x.copy()
    seed, layer, step = (np.uint64(word) for word in key)
    threshold = np.uint64(math.ceil(p * 2**24))
    y = empty(x.shape, x.dtype)
    blocks = -(-x.size // 4)
    parallel(drop, blocks, vector_of(x), seed, layer, step, threshold, x.dtype.type(1 - p), y.reshape(-1), cost=64)
    return y


@compiled
def drop(begin, end, x, seed, layer, step, threshold, kept, y):
    zero = x.dtype.type(0)
    for block in range(begin, end):
        words = philox(np.uint64(block), layer, step, seed)
        for lane in range(min(4, len(x) - 4 * block)):
            i = 4 * block + lane
            y[i] = x[i] / kept if words[lane] >> np.uint64(8) >= threshold else zero


@compiled
def philox(block, layer, step, seed):
    """Four random 32-bit words, as uint64, for one counter; 64-bit products are split into their halves."""
    word, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = block & low, block >> word, layer, step
    k0, k1 = seed & low, seed >> word
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> word) ^ c1 ^ k0, p1 & low, (p0 >> word) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3
