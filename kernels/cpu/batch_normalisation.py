"""Batch normalisation and sums over pixels: maps are read as (R, W), lines of W = k·C numbers, k pixels in a line.

Where there are few channels, a line of several pixels keeps more vectors busy at once than one pixel has. What belongs
to a channel is repeated k times along it, and what is summed is k times as many sums.

A sum over pixels is taken over chunks of lines first, all of them of a size that the shape alone decides, then over the
chunks, in order and in float64: the same bits with any number of threads, and float32 never adds more than 512 numbers.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel

WIDE = 128  # numbers in a line, at least, if the pixels divide into such lines
CHUNK = 32_768  # elements: a chunk that is read twice comes out of the core's own cache the second time


def _pixels_per_line(x: np.ndarray) -> int:
    pixels, C, k = x.size // x.shape[-1], x.shape[-1], 1
    while k * C < WIDE and pixels % (2 * k) == 0:
        k *= 2
    return k


def _lines_of(x: np.ndarray, k: int) -> np.ndarray:
    """(..., C) as (R, k·C); x is only copied if it does not lie in one piece."""
    return np.ascontiguousarray(x).reshape(-1, k * x.shape[-1])


def _along_line(v: np.ndarray, k: int) -> np.ndarray:
    """v (C,) k times, (k·C,)."""
    return v if k == 1 else np.concatenate((v,) * k)


def _chunks(lines: np.ndarray) -> tuple[int, int]:
    """How many chunks of lines there are, and the lines of each but the last."""
    rows = min(512, max(1, CHUNK // lines.shape[1]))
    return -(-len(lines) // rows), rows


def bias_grad(gy: np.ndarray) -> np.ndarray:
    """Σ gy over all pixels, (O,)."""
    lines = _lines_of(gy, _pixels_per_line(gy))
    chunks, rows = _chunks(lines)
    sums = np.empty((chunks, lines.shape[1]), gy.dtype)
    parallel(column_sums, chunks, lines, rows, sums, cost=rows * lines.shape[1])
    return _total(sums, gy.shape[-1])


def _total(sums: np.ndarray, C: int) -> np.ndarray:
    """The sum of each channel over all chunks, and over the pixels of a line."""
    total = np.zeros(C, np.float64)
    add_chunks(sums.reshape(-1, C), total)
    return total.astype(sums.dtype)


@compiled
def add_chunks(sums, total):
    chunks, C = sums.shape
    for chunk in range(chunks):
        for c in range(C):
            total[c] += sums[chunk, c]


@compiled
def column_sums(begin, end, x, rows, sums):
    R, W = x.shape
    for chunk in range(begin, end):
        total = sums[chunk]
        total[:] = 0
        for r in range(chunk * rows, min(R, (chunk + 1) * rows)):
            for i in range(W):
                total[i] += x[r, i]


def batch_norm_stats(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, var) of each channel in one pass through memory.

    Each chunk is read for its mean, then, from cache, for its squared deviations from it. With n pixels of mean m
    and sum of squares S in each chunk, M pixels in all:  mean = Σ n m / M,  var = Σ (S + n (m − mean)²) / M.
    """
    C, k = x.shape[-1], _pixels_per_line(x)
    lines = _lines_of(x, k)
    chunks, rows = _chunks(lines)
    means, squares = np.empty((2, chunks, k * C), x.dtype)
    parallel(chunk_stats, chunks, lines, rows, means, squares, cost=2 * rows * k * C)
    mean, var = np.zeros((2, C), np.float64)
    merge_stats(means.reshape(chunks, k, C), squares.reshape(chunks, k, C), rows, len(lines), mean, var)
    return mean.astype(x.dtype), var.astype(x.dtype)


@compiled
def chunk_stats(begin, end, x, rows, means, squares):
    R, W = x.shape
    for chunk in range(begin, end):
        first, last = chunk * rows, min(R, (chunk + 1) * rows)
        mean, square = means[chunk], squares[chunk]
        mean[:] = 0
        square[:] = 0
        for r in range(first, last):
            for i in range(W):
                mean[i] += x[r, i]
        for i in range(W):
            mean[i] /= last - first
        for r in range(first, last):
            for i in range(W):
                deviation = x[r, i] - mean[i]
                square[i] += deviation * deviation


@compiled
def merge_stats(means, squares, rows, lines, mean, var):
    chunks, k, C = means.shape
    for chunk in range(chunks):
        n = min(rows, lines - chunk * rows)
        for i in range(k):
            for c in range(C):
                mean[c] += n * means[chunk, i, c]
    for c in range(C):
        mean[c] /= lines * k
    for chunk in range(chunks):
        n = min(rows, lines - chunk * rows)
        for i in range(k):
            for c in range(C):
                deviation = means[chunk, i, c] - mean[c]
                var[c] += squares[chunk, i, c] + n * deviation * deviation
    for c in range(C):
        var[c] /= lines * k


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
    k = _pixels_per_line(x)
    lines, residual = _lines_of(x, k), None if residual is None else _lines_of(residual, k)
    mean, scale, beta = (_along_line(v, k) for v in (mean, gamma * _inv_std(var, eps), beta))
    y = empty(lines.shape, x.dtype)
    parallel(normalise, len(lines), lines, mean, scale, beta, residual, relu, y, cost=lines.shape[1])
    return y.reshape(x.shape)


def _inv_std(var: np.ndarray, eps: float) -> np.ndarray:
    return 1 / np.sqrt(var + eps)


@compiled
def normalise(begin, end, x, mean, scale, beta, residual, relu, y):
    W = x.shape[1]
    zero = x.dtype.type(0)
    for r in range(begin, end):
        for i in range(W):
            v = (x[r, i] - mean[i]) * scale[i] + beta[i]
            if residual is not None:  # decided when this is compiled: None has a type of its own
                v += residual[r, i]
            y[r, i] = zero if relu and v < zero else v


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
    shape, C, k = x.shape, x.shape[-1], _pixels_per_line(x)
    gy, x, y = _lines_of(gy, k), _lines_of(x, k), None if y is None else _lines_of(y, k)
    g = gy if y is None else empty(gy.shape, gy.dtype)
    chunks, rows = _chunks(x)
    sums, products = np.empty((2, chunks, k * C), x.dtype)
    mean, inv_std = _along_line(mean, k), _inv_std(var, eps)
    parallel(grad_sums, chunks, gy, y, x, mean, rows, g, sums, products, cost=2 * rows * k * C)
    gbeta, ggamma = _total(sums, C), _total(products, C) * inv_std
    P = len(x) * k
    through = (_along_line(gbeta / P, k), _along_line(inv_std * ggamma / P, k)) if training else (None, None)
    gx = empty(x.shape, x.dtype)
    parallel(input_grad, len(x), g, x, mean, _along_line(gamma * inv_std, k), *through, gx, cost=k * C)
    return gx.reshape(shape), ggamma, gbeta, g.reshape(shape)


@compiled
def grad_sums(begin, end, gy, y, x, mean, rows, g, sums, products):
    """For each chunk Σ g and Σ g·(x − mean); with y, g = gy where y > 0, else 0."""
    R, W = x.shape
    zero = x.dtype.type(0)
    for chunk in range(begin, end):
        total, product = sums[chunk], products[chunk]
        total[:] = 0
        product[:] = 0
        for r in range(chunk * rows, min(R, (chunk + 1) * rows)):
            if y is not None:
                for i in range(W):
                    v = gy[r, i]
                    g[r, i] = v if y[r, i] > zero else zero
            for i in range(W):
                total[i] += g[r, i]
            for i in range(W):
                product[i] += g[r, i] * (x[r, i] - mean[i])


@compiled
def input_grad(begin, end, g, x, mean, scale, through_mean, through_var, gx):
    """gx = scale·(g − Σg/P − x̂·Σgx̂/P); without the sums, which are what flows through the statistics, scale·g."""
    W = x.shape[1]
    for r in range(begin, end):
        for i in range(W):
            v = g[r, i]
            if through_mean is not None:
                v -= through_mean[i] + (x[r, i] - mean[i]) * through_var[i]
            gx[r, i] = scale[i] * v
