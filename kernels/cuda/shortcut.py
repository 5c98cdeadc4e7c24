"""The parameter-free shortcut: zero channels and skipped positions (shortcut.cu)."""

from __future__ import annotations

from kernels import array_module, reference
from kernels.cuda.arrays import BLOCK, Array, Shape, blocks, contiguous, expect, fast, kernels_of
from kernels.geometry import Pair, pair

_kernels = kernels_of(__file__)


def pad_channels(x: Array, before: int, after: int) -> Array:
    """Add channels of zeros: (..., C) -> (..., before + C + after). ResNet's option A (arXiv:1512.03385, 4.2)."""
    if not fast(x):
        return reference.pad_channels(x, before, after)
    c = x.shape[-1]
    y = array_module(x).empty((*x.shape[:-1], before + c + after), x.dtype)
    arguments = (contiguous(x), y, before, c, y.shape[-1], y.size)
    _kernels.launch("pad_channels", blocks(y.size, BLOCK), (BLOCK,), *arguments, T=x.dtype)
    return y


def subsample(x: Array, stride: Pair) -> Array:
    """Keep every stride-th row and column: (N, H, W, C) -> (N, ⌈H/s⌉, ⌈W/s⌉, C). ResNet's option A."""
    if not fast(x):
        return reference.subsample(x, stride)
    (sh, sw), (n, h, w, c) = pair(stride), x.shape
    y = array_module(x).empty((n, -(-h // sh), -(-w // sw), c), x.dtype)
    arguments = (contiguous(x), y, h, w, c, *y.shape[1:3], sh, sw, y.size)
    _kernels.launch("subsample", blocks(y.size, BLOCK), (BLOCK,), *arguments, T=x.dtype)
    return y


def subsample_grad(gy: Array, x_shape: Shape, stride: Pair) -> Array:
    """gx of subsample: gy at the positions that were kept, 0 elsewhere."""
    if not fast(gy):
        return reference.subsample_grad(gy, x_shape, stride)
    (sh, sw), (n, h, w, c) = pair(stride), x_shape
    expect("subsample_grad", (n, -(-h // sh), -(-w // sw), c), gy=gy)
    gx = array_module(gy).empty(x_shape, gy.dtype)
    arguments = (contiguous(gy), gx, h, w, c, *gy.shape[1:3], sh, sw, gx.size)
    _kernels.launch("subsample_grad", blocks(gx.size, BLOCK), (BLOCK,), *arguments, T=gy.dtype)
    return gx
