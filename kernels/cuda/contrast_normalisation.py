"""Local contrast normalisation and its gradient (contrast_normalisation.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import BLOCK, Array, blocks, contiguous, empty_like, expect, fast, kernels_of

_kernels = kernels_of(__file__)

WARPS = 8  # positions of a block, as in contrast_normalisation.cu


def _by_position(kernel: str, over: Array, *arguments: Any) -> None:
    """`kernel` with a warp for each position of `over`; its last parameters are positions and C."""
    c = over.shape[3]
    positions = over.size // c
    _kernels.launch(kernel, blocks(positions, WARPS), (32 * WARPS,), *arguments, positions, c, T=over.dtype)


def _by_element(kernel: str, over: Array, *arguments: Any) -> None:
    """`kernel` with a thread for each element of `over`; its last parameter is their number."""
    dtype = over.dtype
    _kernels.launch(kernel, blocks(over.size, BLOCK), (BLOCK,), *arguments, over.size, T=dtype)


def _map_mean(variance: Array, mean: Array | None, gd: Array | None) -> Array:
    n, h, w = variance.shape
    result = array_module(variance).empty(n, np.float32)
    _kernels.launch("map_mean", (n,), (1, BLOCK), variance, mean, gd, result, h * w, T=np.float32)
    return result


def _blur(a: Array, size: int) -> Array:
    """Gaussian blur of maps (N, H, W), zeros beyond the border: down the columns, then along the rows."""
    _, h, w = a.shape
    for length, stride in ((h, w), (w, 1)):
        blurred, grid = empty_like(a), blocks(a.size, BLOCK)
        arguments = (a, blurred, size, length, stride, a.size)
        _kernels.launch("blur", grid, (BLOCK,), *arguments, shared=4 * size, T=np.float32)
        a = blurred
    return a


def _contrast(x: Array, size: int) -> tuple[Array, Array, Array]:
    """v (N, H, W, C), σ² (N, H, W) and the mean of σ over each map (N,)."""
    xp = array_module(x)
    mean, square = xp.empty(x.shape[:3], np.float32), xp.empty(x.shape[:3], np.float32)
    v = xp.empty(x.shape, np.float32)
    _by_position("channel_mean", x, x, mean)
    _by_position("centre", x, x, _blur(mean, size), v, square)
    variance = _blur(square, size)
    return v, variance, _map_mean(variance, None, None)


def lcn(x: Array, *, size: int = 9, eps: float = 1e-8) -> Array:
    """Subtract the local mean, then divide by the local deviation. x (N, H, W, C) -> (N, H, W, C); `size` is odd.

    Where a map is flatter than its own mean deviation it is divided by that instead, so that noise is not blown up.
    """
    if not fast(x):
        return reference.lcn(x, size=size, eps=eps)
    x = contiguous(x)
    y, (_, h, w, c) = empty_like(x), x.shape
    _by_element("divide", y, *_contrast(x, size), y, eps, h * w, c)
    return y


def lcn_grad(gy: Array, x: Array, *, size: int = 9, eps: float = 1e-8) -> Array:
    """gx of lcn; where eps or σ = 0 decides, nothing flows to σ."""
    if not fast(gy, x):
        return reference.lcn_grad(gy, x, size=size, eps=eps)
    expect("lcn_grad", x.shape, gy=gy)
    gy, x = contiguous(gy), contiguous(x)
    v, variance, mean = _contrast(x, size)
    gx, (_, h, w, c) = empty_like(x), x.shape
    gd, ratio, gv_mean = (empty_like(variance) for _ in range(3))
    _by_position("divisor_grad", gy, gy, v, variance, mean, gd, eps, h * w)
    to_mean = _map_mean(variance, mean, gd)
    _by_element("deviation_grad", ratio, gd, variance, mean, to_mean, ratio, h * w)
    _by_position("centre_grad", gy, gy, v, variance, mean, _blur(ratio, size), gv_mean, eps, h * w)
    _by_element("subtract", gx, v, _blur(gv_mean, size), gx, c)
    return gx
