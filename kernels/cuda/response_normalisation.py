"""Local response normalisation and its gradient (response_normalisation.cu)."""

from __future__ import annotations

from typing import Any

from kernels import reference
from kernels.cuda.arrays import Array, contiguous, empty_like, expect, fast, kernels_of

_kernels = kernels_of(__file__)

CHANNELS, POSITIONS = 32, 8  # of a block, as in response_normalisation.cu


def lrn(x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Array:
    """Let a strong response damp those of the neighbouring channels. x (..., C) -> (..., C); `size` is odd.

    `alpha` multiplies the sum, as in the paper; Caffe and PyTorch multiply the mean: theirs is size·alpha.
    """
    if not fast(x):
        return reference.lrn(x, size=size, alpha=alpha, beta=beta, k=k)
    y, floats = empty_like(x), CHANNELS + 2 * (size // 2)
    _launch("lrn", y, floats, contiguous(x), y, size // 2, alpha, beta, k)
    return y


def lrn_grad(gy: Array, x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Array:
    """gx of lrn; s is computed again, which is cheaper than to keep it."""
    if not fast(gy, x):
        return reference.lrn_grad(gy, x, size=size, alpha=alpha, beta=beta, k=k)
    expect("lrn_grad", x.shape, gy=gy)
    gx, floats = empty_like(x), 2 * CHANNELS + 6 * (size // 2)
    _launch("lrn_grad", gx, floats, contiguous(gy), contiguous(x), gx, size // 2, alpha, beta, k)
    return gx


def _launch(kernel: str, over: Array, floats: int, *arguments: Any) -> None:
    """`kernel` with a thread for each element of `over`, and so many floats of shared memory for each position."""
    c = over.shape[-1]
    positions = over.size // c
    grid = -(-positions // POSITIONS), -(-c // CHANNELS)
    shared = POSITIONS * floats * 4
    _kernels.launch(kernel, grid, (CHANNELS, POSITIONS), *arguments, positions, c, shared=shared, T=over.dtype)
