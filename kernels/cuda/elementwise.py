"""Activations and sums, element by element (elementwise.cu)."""

from __future__ import annotations

from kernels import reference
from kernels.cuda.arrays import BLOCK, Array, blocks, contiguous, empty_like, expect, fast, kernels_of

_kernels = kernels_of(__file__)


def _forward(kernel: str, x: Array) -> Array:
    """y by a kernel (x, y, n) with one thread for each element."""
    y = empty_like(x)
    _kernels.launch(kernel, blocks(x.size, BLOCK), (BLOCK,), contiguous(x), y, y.size, T=x.dtype)
    return y


def _backward(kernel: str, gy: Array, y: Array) -> Array:
    """gx by a kernel (gy, y, gx, n) with one thread for each element."""
    expect(kernel, gy.shape, y=y)
    gx, grid = empty_like(gy), blocks(gy.size, BLOCK)
    _kernels.launch(kernel, grid, (BLOCK,), contiguous(gy), contiguous(y), gx, gx.size, T=gy.dtype)
    return gx


def relu(x: Array) -> Array:
    """max(x, 0); a NaN stays a NaN."""
    return _forward("relu", x) if fast(x) else reference.relu(x)


def relu_grad(gy: Array, y: Array) -> Array:
    """gx of relu: gy where y > 0, else 0."""
    return _backward("relu_grad", gy, y) if fast(gy, y) else reference.relu_grad(gy, y)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), written with e^−|x|, which cannot overflow."""
    return _forward("sigmoid", x) if fast(x) else reference.sigmoid(x)


def sigmoid_grad(gy: Array, y: Array) -> Array:
    """gx of sigmoid: dy/dx = y·(1 − y)."""
    return _backward("sigmoid_grad", gy, y) if fast(gy, y) else reference.sigmoid_grad(gy, y)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return _forward("hyperbolic_tangent", x) if fast(x) else reference.tanh(x)


def tanh_grad(gy: Array, y: Array) -> Array:
    """gx of tanh: dy/dx = 1 − y²."""
    return _backward("hyperbolic_tangent_grad", gy, y) if fast(gy, y) else reference.tanh_grad(gy, y)


def finish(y: Array, b: Array | None, residual: Array | None, rectify: bool) -> None:
    """y = y + b + residual, then ReLU if asked, in place: what follows a matrix product. y (..., O), b (O,)."""
    if b is None and residual is None and not rectify:
        return
    grid = blocks(y.size, BLOCK)
    _kernels.launch("finish", grid, (BLOCK,), y, b, residual, rectify, y.shape[-1], y.size, T=y.dtype)
