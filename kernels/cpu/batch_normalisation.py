"""Batch normalisation and sums over pixels: maps are read as (P, C), a row for each of their P = N·H·W pixels.

A sum over pixels is taken over chunks of rows first, all of them of a size that the shape alone decides, then over the
chunks, in order and in float64: the same bits with any number of threads, and float32 never adds more than 512 numbers.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.layout import rows_of
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel

CHUNK = 32_768  # elements: a chunk that is read twice comes out of the core's own cache the second time


def _chunks(x: np.ndarray) -> tuple[int, int]:
    """How many chunks x (P, C) has, and the rows of each but the last."""
    rows = min(512, max(1, CHUNK // x.shape[1]))
    return -(-len(x) // rows), rows


def bias_grad(gy: np.ndarray) -> np.ndarray:
    """Σ gy over all pixels, (O,)."""
    gy = rows_of(gy)
    chunks, rows = _chunks(gy)
    sums = np.empty((chunks, gy.shape[1]), gy.dtype)
    parallel(column_sums, chunks, gy, rows, sums, cost=rows * gy.shape[1])
    return _total(sums).astype(gy.dtype)


def _total(sums: np.ndarray) -> np.ndarray:
    return sums.sum(axis=0, dtype=np.float64)


@compiled
def column_sums(begin, end, x, rows, sums):
    P, C = x.shape
    for chunk in range(begin, end):
        total = sums[chunk]
        total[:] = 0
        for p in range(chunk * rows, min(P, (chunk + 1) * rows)):
            for c in range(C):
                total[c] += x[p, c]


def batch_norm_stats(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, var) of each channel in one pass through memory.

    Each chunk is read for its mean, then, from cache, for its squared deviations from that mean. With n rows of mean m
    and sum of squares S in each chunk, M rows in all:  mean = Σ n m / M,  var = Σ (S + n (m − mean)²) / M.
    """
    x = rows_of(x)
    chunks, rows = _chunks(x)
    means, squares = np.empty((2, chunks, x.shape[1]), x.dtype)
    parallel(chunk_stats, chunks, x, rows, means, squares, cost=2 * rows * x.shape[1])
    n = np.full((chunks, 1), rows, np.float64)
    n[-1] = len(x) - (chunks - 1) * rows
    mean = _total(n * means) / len(x)
    var = _total(squares + n * (means - mean) ** 2) / len(x)
    return mean.astype(x.dtype), var.astype(x.dtype)


@compiled
def chunk_stats(begin, end, x, rows, means, squares):
    P, C = x.shape
    for chunk in range(begin, end):
        first, last = chunk * rows, min(P, (chunk + 1) * rows)
        mean, square = means[chunk], squares[chunk]
        mean[:] = 0
        square[:] = 0
        for p in range(first, last):
            for c in range(C):
                mean[c] += x[p, c]
        for c in range(C):
            mean[c] /= last - first
        for p in range(first, last):
            for c in range(C):
                deviation = x[p, c] - mean[c]
                square[c] += deviation * deviation


def batch_norm(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float = 1e-5
) -> np.ndarray:
    """(x − mean)·gamma/√(var + eps) + beta in one pass."""
    return _normalise(x, gamma, beta, mean, var, None, eps, False)


def bn_relu(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    residual: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> np.ndarray:
    """relu(batch_norm(x) + residual) in one pass."""
    return _normalise(x, gamma, beta, mean, var, residual, eps, True)


def _normalise(x, gamma, beta, mean, var, residual, eps, relu) -> np.ndarray:
    rows = rows_of(x)
    y = empty(rows.shape, rows.dtype)
    residual = None if residual is None else rows_of(residual)
    parallel(normalise, len(rows), rows, mean, gamma * _inv_std(var, eps), beta, residual, relu, y, cost=rows.shape[1])
    return y.reshape(x.shape)


def _inv_std(var: np.ndarray, eps: float) -> np.ndarray:
    return 1 / np.sqrt(var + eps)


@compiled
def normalise(begin, end, x, mean, scale, beta, residual, relu, y):
    C = x.shape[1]
    zero = x.dtype.type(0)
    for p in range(begin, end):
        for c in range(C):
            v = (x[p, c] - mean[c]) * scale[c] + beta[c]
            if residual is not None:  # decided when this is compiled: None has a type of its own
                v += residual[p, c]
            y[p, c] = zero if relu and v < zero else v


def batch_norm_grad(
    gy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(gx, ggamma, gbeta): one pass for the two sums, one for gx."""
    return _batch_norm_grad(gy, None, x, gamma, mean, var, eps, training=True)[:3]


def batch_norm_eval_grad(
    gy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(gx, ggamma, gbeta) with constant statistics: gx = gy·gamma/√(var + eps)."""
    return _batch_norm_grad(gy, None, x, gamma, mean, var, eps, training=False)[:3]


def bn_relu_grad(
    gy: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    gamma: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    *,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(gx, ggamma, gbeta, gresidual): the pass for the sums writes gresidual, the one for gx reads it."""
    return _batch_norm_grad(gy, y, x, gamma, mean, var, eps, training=True)


def bn_relu_eval_grad(
    gy: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    gamma: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    *,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(gx, ggamma, gbeta, gresidual) with constant statistics."""
    return _batch_norm_grad(gy, y, x, gamma, mean, var, eps, training=False)


def _batch_norm_grad(gy, y, x, gamma, mean, var, eps, *, training):
    """With y, gy is masked by y > 0 first, and returned so as the last of the four."""
    shape = x.shape
    gy, x, y = rows_of(gy), rows_of(x), None if y is None else rows_of(y)
    g = gy if y is None else empty(gy.shape, gy.dtype)
    P, C = x.shape
    chunks, rows = _chunks(x)
    sums, products = np.empty((2, chunks, C), x.dtype)
    parallel(grad_sums, chunks, gy, y, x, mean, rows, g, sums, products, cost=2 * rows * C)

    inv_std = _inv_std(var, eps)
    gbeta, ggamma = _total(sums), _total(products) * inv_std
    ggamma, gbeta = ggamma.astype(x.dtype), gbeta.astype(x.dtype)
    through_mean, through_var = (gbeta / P, inv_std * ggamma / P) if training else (None, None)
    gx = empty(x.shape, x.dtype)
    parallel(input_grad, P, g, x, mean, gamma * inv_std, through_mean, through_var, gx, cost=C)
    return gx.reshape(shape), ggamma, gbeta, g.reshape(shape)


@compiled
def grad_sums(begin, end, gy, y, x, mean, rows, g, sums, products):
    """For each chunk Σ g and Σ g·(x − mean); with y, g = gy where y > 0, else 0."""
    P, C = x.shape
    zero = x.dtype.type(0)
    for chunk in range(begin, end):
        total, product = sums[chunk], products[chunk]
        total[:] = 0
        product[:] = 0
        for p in range(chunk * rows, min(P, (chunk + 1) * rows)):
            if y is not None:
                for c in range(C):
                    v = gy[p, c]
                    g[p, c] = v if y[p, c] > zero else zero
            for c in range(C):
                total[c] += g[p, c]
            for c in range(C):
                product[c] += g[p, c] * (x[p, c] - mean[c])


@compiled
def input_grad(begin, end, g, x, mean, scale, through_mean, through_var, gx):
    """gx = scale·(g − Σg/P − x̂·Σgx̂/P); without the sums, which are what flows through the statistics, scale·g."""
    C = x.shape[1]
    for p in range(begin, end):
        for c in range(C):
            v = g[p, c]
            if through_mean is not None:
                v -= through_mean[c] + (x[p, c] - mean[c]) * through_var[c]
            gx[p, c] = scale[c] * v
