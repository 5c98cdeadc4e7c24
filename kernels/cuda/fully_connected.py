"""Fully connected layers: products on cuBLAS (gemm.py)."""

from __future__ import annotations

from kernels import reference
from kernels.cuda import gemm
from kernels.cuda.arrays import Array, contiguous, expect, fast
from kernels.cuda.elementwise import finish


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """Every output sees every input: y = x @ w + b. x (N, in), w (in, out), b (out,) -> (N, out)."""
    if not fast(x, w, b):
        return reference.linear(x, w, b)
    expect("linear", w.shape[1:], b=b)
    y = gemm.matmul(contiguous(x), contiguous(w))
    finish(y, None if b is None else contiguous(b), None, False)
    return y


def linear_input_grad(gy: Array, w: Array) -> Array:
    """gx of linear: gy (N, out) @ wᵀ (out, in) -> (N, in)."""
    if not fast(gy, w):
        return reference.linear_input_grad(gy, w)
    return gemm.matmul(contiguous(gy), contiguous(w).T)


def linear_weight_grad(gy: Array, x: Array) -> Array:
    """gw of linear: xᵀ (in, N) @ gy (N, out) -> (in, out)."""
    if not fast(gy, x):
        return reference.linear_weight_grad(gy, x)
    return gemm.matmul(contiguous(x).T, contiguous(gy))
