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


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), written with e^−|x|, which cannot overflow."""
    return _each("sigmoid", x, x) if fast(x) else reference.sigmoid(x)


def sigmoid_grad(gy: Array, y: Array) -> Array:
    """gx of sigmoid: dy/dx = y·(1 − y)."""
    return _each("sigmoid_grad", gy, gy, y) if fast(gy, y) else reference.sigmoid_grad(gy, y)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return _each("hyperbolic_tangent", x, x) if fast(x) else reference.tanh(x)


def tanh_grad(gy: Array, y: Array) -> Array:
    """gx of tanh: dy/dx = 1 − y²."""
    return _each("hyperbolic_tangent_grad", gy, gy, y) if fast(gy, y) else reference.tanh_grad(gy, y)


def finish(y: Array, b: Array | None, residual: Array | None, rectify: bool) -> None:
    """y = y + b + residual, then ReLU if asked, in place: what follows a matrix product. y (..., O), b (O,)."""
    if b is None and residual is None and not rectify:
        return
    grid = blocks(y.size, THREADS)
    _kernels.launch("finish", grid, (THREADS,), y, b, residual, rectify, y.shape[-1], y.size, T=y.dtype)
