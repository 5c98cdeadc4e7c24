"""Matrix products on cuBLAS: every convolution over NHWC maps ends in one.

Plain products are CuPy's `dot`, which hands transposed views to cuBLAS as they are. What it does not offer, adding
to `out` and float32 sums of float16 products, is asked of cuBLAS itself. Sums are in float32 always; products of
float32 are in TF32 where the environment says CUPY_TF32=1, CuPy's own switch, and the card has it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kernels import array_module
from kernels.cuda.arrays import Array, expect

_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 2}  # cudaDataType: CUDA_R_32F, CUDA_R_16F


def matmul(a: Array, b: Array, out: Array | None = None, *, accumulate: bool = False) -> Array:
    """a (M, K) @ b (K, N), into `out` (M, N) if it is given; `accumulate` adds the product to what `out` holds.

    a and b are C-ordered, or views of such with the axes swapped; `out` is C-ordered and may be float32 for float16
    factors. Batches (B, M, K) @ (B, K, N) -> (B, M, N) likewise.
    """
    xp = array_module(a)
    if array_module(b) is not xp or b.dtype != a.dtype:
        given = f"{array_module(b).__name__} {b.dtype} array {b.shape}"
        raise TypeError(f"matmul: b must be a {xp.__name__} {a.dtype} array as a is, got {given}")
    expect("matmul", (*a.shape[:-2], a.shape[-1], b.shape[-1]), b=b)
    expect("matmul", (*a.shape[:-1], b.shape[-1]), out=out)
    plain = not accumulate and a.ndim == 2 and (out is None or out.dtype == a.dtype)
    if xp is np:  # kernels run on the host
        product = np.matmul(a, b, dtype=np.float32)
        if out is None:
            return product.astype(a.dtype, copy=False)
        out[...] = out + product if accumulate else product
        return out
    if plain:
        return xp.dot(a, b, out=out)  # writes into `out`, which xp.matmul would copy to
    if out is None:
        out = xp.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    if out.size:
        _cublas(a, b, out, accumulate)
    return out


def _layout(a: Array) -> tuple[int, int, int]:
    """(transposed, leading dimension, elements from matrix to matrix) of C-ordered matrices or their transposes."""
    rows, columns = a.shape[-2:]
    step = [stride // a.itemsize for stride in a.strides]
    batch = step[0] if a.ndim == 3 else 0
    if step[-1] == 1 or columns == 1:
        return 0, max(step[-2] if rows > 1 else 0, columns), batch
    return 1, max(step[-1], rows), batch


def _cublas(a: Array, b: Array, out: Array, accumulate: bool) -> None:
    """cuBLAS thinks in columns: to it a C-ordered matrix is its own transpose, so it is given outᵀ = bᵀ @ aᵀ."""
    from cupy.cuda import device
    from cupy_backends.cuda.libs import cublas

    (m, k), n, batch = a.shape[-2:], b.shape[-1], len(a) if a.ndim == 3 else 1
    (ta, lda, step_a), (tb, ldb, step_b), (_, ldc, step_c) = map(_layout, (a, b, out))
    one, zero_or_one = np.ones((), np.float32), np.array(accumulate, np.float32)

    def matrix(array: Array, leading: int, step: int) -> tuple[Any, ...]:
        return array.data.ptr, _TYPES[array.dtype], leading, step

    cublas.gemmStridedBatchedEx(
        device.get_cublas_handle(),
        *(tb, ta, n, m, k),
        one.ctypes.data,
        *matrix(b, ldb, step_b),
        *matrix(a, lda, step_a),
        zero_or_one.ctypes.data,
        *matrix(out, ldc, step_c),
        batch,
        _compute_type(a.dtype),
        cublas.CUBLAS_GEMM_DEFAULT,
    )


def _compute_type(dtype: np.dtype) -> int:
    from cupy.cuda import runtime
    from cupy_backends.cuda.libs import cublas

    if runtime.is_hip:  # hipBLAS takes the data type of the sums here
        return _TYPES[np.dtype(np.float32)]
    if dtype == np.float32 and int(os.environ.get("CUPY_TF32", "0")):
        return cublas.CUBLAS_COMPUTE_32F_FAST_TF32
    return cublas.CUBLAS_COMPUTE_32F
