"""Activations and sums, element by element (elementwise.cu)."""

from __future__ import annotations

from kernels import reference
from kernels.cuda.arrays import Array, blocks, contiguous, empty_like, fast, kernels_of

THREADS = 256

_kernels = kernels_of(__file__)


def _each(kernel: str, like: Array, *arrays: Array) -> Array:
    """y, of the shape and dtype of `like`, by a kernel (*arrays, y, n) with one thread for each element."""
    y = empty_like(like)
    _kernels.launch(kernel, blocks(y.size, THREADS), (THREADS,), *map(contiguous, arrays), y, y.size, T=y.dtype)
    return y


def relu(x: Array) -> Array:
    """max(x, 0); a NaN stays a NaN."""
    return _each("relu", x, x) if fast(x) else reference.relu(x)


def relu_grad(gy: Array, y: Array) -> Array:
    """gx of relu: gy where y > 0, else 0."""
    return _each("relu_grad", gy, gy, y) if fast(gy, y) else reference.relu_grad(gy, y)
