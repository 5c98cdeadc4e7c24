"""Batches of pictures, finished where the network is (pictures.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import BLOCK, FAST, Array, blocks, contiguous, expect, kernels_of

_kernels = kernels_of(__file__)


def crop_flip_normalise(
    x: Array, corners: Array, mirrored: Array, mean: Array, std: Array, *, size: int, dtype: Any
) -> Array:
    """A window of each picture, mirrored or not, as numbers for a network: uint8 (N, H, W, C) -> (N, S, S, C)."""
    dtype = np.dtype(dtype)
    if dtype not in FAST or x.dtype != np.uint8:
        return reference.crop_flip_normalise(x, corners, mirrored, mean, std, size=size, dtype=dtype)
    n, h, w, c = x.shape
    expect("crop_flip_normalise", (n, 2), corners=corners)
    expect("crop_flip_normalise", (n,), mirrored=mirrored)
    expect("crop_flip_normalise", (c,), mean=mean, std=std)
    y = array_module(x).empty((n, size, size, c), dtype)
    statistics = (contiguous(a.astype(np.float32, copy=False)) for a in (mean, std))
    moves = contiguous(corners.astype(np.int32, copy=False)), contiguous(mirrored)
    arguments = (contiguous(x), *moves, *statistics, y, h, w, c, size, y.size)
    _kernels.launch("crop_flip_normalise", blocks(y.size, BLOCK), (BLOCK,), *arguments, T=dtype)
    return y
