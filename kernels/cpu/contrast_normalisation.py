"""Local contrast normalisation, image by image: an image is read several times, and again out of the cache.

    v = x − blur(mean of x)      σ = √blur(mean of v²)      y = v / d,  d = max(mean of σ over the map, σ, eps)

"mean" is over the channels of a pixel, and "blur" a Gaussian over maps (H, W) that are left then, so that blurring is
the smaller part of the work. v is not kept: to take a number off x again is cheaper than to write and read a map.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.memory import empty
from kernels.cpu.threads import parallel


def _bell(size: int, dtype: np.dtype) -> np.ndarray:
    """The weights of a blur along one axis: a Gaussian of deviation size/4 that sums to 1."""
    bell = np.array([math.exp(-0.5 * ((i - size // 2) / (size / 4)) ** 2) for i in range(size)])
    return (bell / bell.sum()).astype(dtype)


def lcn(x: np.ndarray, *, size: int = 9, eps: float = 1e-8) -> np.ndarray:
    """y = v/d."""
    x = np.ascontiguousarray(x)
    y = empty(x.shape, x.dtype)
    parallel(lcn_images, len(x), x, _bell(size, x.dtype), x.dtype.type(eps), y, cost=3 * x[:1].size)
    return y


@compiled
def lcn_images(begin, end, x, bell, eps, y):
    _, H, W, C = x.shape
    line, sums = np.zeros(W + len(bell) - 1, x.dtype), np.empty((H, W), x.dtype)
    local, sigma = np.empty((H, W), x.dtype), np.empty((H, W), x.dtype)
    for n in range(begin, end):
        mean = contrast(x[n], bell, line, sums, local, sigma)
        for h in range(H):
            for w in range(W):
                pixel, result, centre = x[n, h, w], y[n, h, w], local[h, w]
                d = np.maximum(np.maximum(sigma[h, w], mean), eps)
                for c in range(C):
                    result[c] = (pixel[c] - centre) / d


def lcn_grad(gy: np.ndarray, x: np.ndarray, *, size: int = 9, eps: float = 1e-8) -> np.ndarray:
    """gx; where eps or σ = 0 decides, nothing flows to σ. What the forward pass computed is computed again."""
    gy, x = np.ascontiguousarray(gy), np.ascontiguousarray(x)
    gx = empty(x.shape, x.dtype)
    parallel(lcn_grad_images, len(x), gy, x, _bell(size, x.dtype), x.dtype.type(eps), gx, cost=8 * x[:1].size)
    return gx


@compiled
def lcn_grad_images(begin, end, gy, x, bell, eps, gx):
    """gd = −Σ_c gy·v / d²      gv = gy/d + v/C · blur(gσ/σ)      gx = gv − blur(mean of gv)

    gd goes to σ itself where σ > mean, else to the mean, that is equally to all σ.
    """
    _, H, W, C = x.shape
    line, sums = np.zeros(W + len(bell) - 1, x.dtype), np.empty((H, W), x.dtype)
    local, sigma, shares = np.empty((H, W), x.dtype), np.empty((H, W), x.dtype), np.empty((H, W), x.dtype)
    zero, channels = x.dtype.type(0), x.dtype.type(C)
    for n in range(begin, end):
        mean = contrast(x[n], bell, line, sums, local, sigma)
        to_mean = 0.0
        for h in range(H):
            for w in range(W):
                pixel, g, centre = x[n, h, w], gy[n, h, w], local[h, w]
                total = zero
                for c in range(C):
                    total += g[c] * (pixel[c] - centre)
                d = np.maximum(np.maximum(sigma[h, w], mean), eps)
                gd = -total / (d * d) if d > eps else zero
                if not sigma[h, w] > mean:
                    to_mean += gd
                    gd = zero
                sums[h, w] = gd  # gσ, but for what comes through the mean
        through_mean = x.dtype.type(to_mean / (H * W))
        for h in range(H):
            for w in range(W):
                sums[h, w] = (sums[h, w] + through_mean) / sigma[h, w] if sigma[h, w] > zero else zero
        blur(sums, bell, line, shares)
        for h in range(H):
            for w in range(W):
                pixel, g, result, centre = x[n, h, w], gy[n, h, w], gx[n, h, w], local[h, w]
                d, share = np.maximum(np.maximum(sigma[h, w], mean), eps), shares[h, w] / channels
                total = zero
                for c in range(C):
                    gv = g[c] / d + (pixel[c] - centre) * share
                    result[c] = gv
                    total += gv
                sums[h, w] = total / channels
        blur(sums, bell, line, shares)
        for h in range(H):
            for w in range(W):
                result, share = gx[n, h, w], shares[h, w]
                for c in range(C):
                    result[c] -= share


@compiled
def contrast(x, bell, line, sums, local, sigma):
    """Of one image x (H, W, C), the maps (H, W) local = blur(mean of x) and sigma, and the mean of sigma."""
    H, W, C = x.shape
    zero, channels = x.dtype.type(0), x.dtype.type(C)
    for h in range(H):
        for w in range(W):
            pixel, total = x[h, w], zero
            for c in range(C):
                total += pixel[c]
            sums[h, w] = total / channels
    blur(sums, bell, line, local)
    for h in range(H):
        for w in range(W):
            pixel, centre, total = x[h, w], local[h, w], zero
            for c in range(C):
                v = pixel[c] - centre
                total += v * v
            sums[h, w] = total / channels
    blur(sums, bell, line, sigma)
    of_map = 0.0
    for h in range(H):
        for w in range(W):
            sigma[h, w] = np.sqrt(sigma[h, w])
            of_map += sigma[h, w]
    return x.dtype.type(of_map / (H * W))


@compiled
def blur(a, bell, line, blurred):
    """A Gaussian blur of one map (H, W), zeros beyond the border; `line` is zero at both ends and stays so."""
    H, W = a.shape
    half = len(bell) // 2
    middle = line[half : half + W]
    for h in range(H):
        middle[:] = 0
        for i in range(max(0, half - h), min(len(bell), H + half - h)):  # down the columns: those rows that there are
            row, weight = a[h + i - half], bell[i]
            for w in range(W):
                middle[w] += weight * row[w]
        result = blurred[h]
        result[:] = 0
        for j in range(len(bell)):  # along the row
            shifted, weight = line[j : j + W], bell[j]
            for w in range(W):
                result[w] += weight * shifted[w]
