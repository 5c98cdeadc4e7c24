"""Batch normalisation and the sums of channels (batch_normalisation.cu); with parameters in float32."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import BLOCK, Array, blocks, contiguous, empty_like, expect, fast, kernels_of, lanes
from kernels.cuda.launcher import Dim

_kernels = kernels_of(__file__)

ROWS = 16  # of a slice, for each thread of a column: at the least
SLICES = 512  # blocks of a grid, if there are so many rows: enough for every card
PASS = 8  # rows of a thread of a kernel that sums nothing
JOIN = (8, 32)  # a block of the kernels that join slices: tall, as there are many slices and few columns


def _float(a: Array) -> Array:
    return contiguous(a).astype(np.float32, copy=False)


class _Slices(NamedTuple):
    """How a map (M, C) is shared among blocks, by its shape alone."""

    m: int
    c: int
    block: Dim
    slices: int
    rows: int  # of a slice

    @property
    def grid(self) -> Dim:
        return self.slices, -(-self.c // self.block[0])

    @classmethod
    def for_sums(cls, x: Array) -> _Slices:
        m, c, block = x.size // x.shape[-1], x.shape[-1], lanes(x.shape[-1])
        most = max(1, SLICES // -(-c // block[0]))
        rows = max(ROWS * block[1], -(-m // most))
        return cls(m, c, block, -(-m // rows), rows)

    @classmethod
    def for_maps(cls, x: Array) -> _Slices:
        m, c, block = x.size // x.shape[-1], x.shape[-1], lanes(x.shape[-1])
        return cls(m, c, block, -(-m // (PASS * block[1])), PASS * block[1])


def _joined(parts: Array) -> Array:
    """Σ over the slices of parts (slices, ...)."""
    sums = array_module(parts).empty(parts.shape[1:], np.float32)
    _kernels.launch("join_sums", blocks(sums.size, JOIN[0]), JOIN, parts, sums, len(parts), sums.size, T=np.float32)
    return sums


def bias_grad(gy: Array) -> Array:
    """gb of conv2d and linear: b[o] is added everywhere, so it collects gy from everywhere. (..., O) -> (O,)."""
    if not fast(gy):
        return reference.bias_grad(gy)
    gy, cut = contiguous(gy), _Slices.for_sums(gy)
    parts = array_module(gy).empty((cut.slices, cut.c), np.float32)
    _kernels.launch("sums_of_slices", cut.grid, cut.block, gy, parts, cut.rows, cut.m, cut.c, T=gy.dtype)
    return _joined(parts).astype(gy.dtype, copy=False)


def batch_norm_stats(x: Array) -> tuple[Array, Array]:
    """(mean, var) of each channel over all other axes, (C,) each; var is biased: divided by M.

    In one pass, by Welford's method and Chan's for joining parts; float32 for float16 maps too.
    """
    if not fast(x):
        return reference.batch_norm_stats(x)
    x, cut, xp = contiguous(x), _Slices.for_sums(x), array_module(x)
    parts = xp.empty((cut.slices, 2, cut.c), np.float32)
    _kernels.launch("stats_of_slices", cut.grid, cut.block, x, parts, cut.rows, cut.m, cut.c, T=x.dtype)
    mean, var = xp.empty(cut.c, np.float32), xp.empty(cut.c, np.float32)
    arguments = (parts, mean, var, cut.slices, cut.rows, cut.m, cut.c)
    _kernels.launch("join_stats", blocks(cut.c, JOIN[0]), JOIN, *arguments, T=np.float32)
    return mean, var


def batch_norm(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, eps: float = 1e-5) -> Array:
    """Give each channel mean beta and deviation gamma. x (..., C), the others (C,) -> (..., C)."""
    if not fast(x):
        return reference.batch_norm(x, gamma, beta, mean, var, eps=eps)
    return _normalise(x, gamma, beta, mean, var, None, False, eps)


def bn_relu(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, residual: Array | None = None, *, eps: float = 1e-5
) -> Array:
    """= relu(batch_norm(x, ...) + residual), in one pass."""
    if not fast(x, residual):
        return reference.bn_relu(x, gamma, beta, mean, var, residual, eps=eps)
    return _normalise(x, gamma, beta, mean, var, residual, True, eps)


def _normalise(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, residual: Array | None, rectify: bool, eps: float
) -> Array:
    expect("batch_norm", x.shape, residual=residual)
    expect("batch_norm", x.shape[-1:], gamma=gamma, beta=beta, mean=mean, var=var)
    x, y, cut = contiguous(x), empty_like(x), _Slices.for_maps(x)
    channels = map(_float, (gamma, beta, mean, var))
    residual = None if residual is None else contiguous(residual)
    arguments: tuple[Any, ...] = (x, *channels, residual, y, rectify, eps, cut.rows, cut.m, cut.c)
    _kernels.launch("normalise", cut.grid, cut.block, *arguments, T=x.dtype)
    return y


def batch_norm_grad(
    gy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(gx, ggamma, gbeta) of batch_norm in training, where mean and var were computed from x."""
    if not fast(gy, x):
        return reference.batch_norm_grad(gy, x, gamma, mean, var, eps=eps)
    return _grads(gy, None, x, gamma, mean, var, eps, training=True)[:3]


def batch_norm_eval_grad(
    gy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(gx, ggamma, gbeta) of batch_norm in evaluation, where mean and var are constants."""
    if not fast(gy, x):
        return reference.batch_norm_eval_grad(gy, x, gamma, mean, var, eps=eps)
    return _grads(gy, None, x, gamma, mean, var, eps, training=False)[:3]


def bn_relu_grad(
    gy: Array, y: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array, Array]:
    """(gx, ggamma, gbeta, gresidual) of bn_relu in training; gresidual is gy where y > 0, a fresh array."""
    if not fast(gy, y, x):
        return reference.bn_relu_grad(gy, y, x, gamma, mean, var, eps=eps)
    return _grads(gy, y, x, gamma, mean, var, eps, training=True)


def bn_relu_eval_grad(
    gy: Array, y: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array, Array]:
    """(gx, ggamma, gbeta, gresidual) of bn_relu in evaluation; gresidual is gy where y > 0, a fresh array."""
    if not fast(gy, y, x):
        return reference.bn_relu_eval_grad(gy, y, x, gamma, mean, var, eps=eps)
    return _grads(gy, y, x, gamma, mean, var, eps, training=False)


def _grads(
    gy: Array, y: Array | None, x: Array, gamma: Array, mean: Array, var: Array, eps: float, *, training: bool
) -> tuple[Array, Array, Array, Array]:
    """All gradients in two passes: one for the sums and the mask of y, where there is one, the other for gx."""
    expect("batch_norm_grad", x.shape, gy=gy, y=y)
    expect("batch_norm_grad", x.shape[-1:], gamma=gamma, mean=mean, var=var)
    gy, x, cut = contiguous(gy), contiguous(x), _Slices.for_sums(x)
    wanted = gamma.dtype
    gamma, mean, var = map(_float, (gamma, mean, var))
    parts = array_module(x).empty((cut.slices, 2, cut.c), np.float32)
    masked = None
    if y is not None:
        y, masked = contiguous(y), empty_like(gy)
    arguments: tuple[Any, ...] = (gy, y, x, mean, var, masked, parts, eps, cut.rows, cut.m, cut.c)
    _kernels.launch("grads_of_slices", cut.grid, cut.block, *arguments, T=x.dtype)
    sums = _joined(parts)  # gbeta, ggamma
    gx, cut = empty_like(x), _Slices.for_maps(x)
    upstream = gy if masked is None else masked
    arguments = (upstream, x, gamma, mean, var, sums if training else None, gx, eps, cut.rows, cut.m, cut.c)
    _kernels.launch("normalise_grad", cut.grid, cut.block, *arguments, T=x.dtype)
    gbeta, ggamma = sums.astype(wanted, copy=False)
    return gx, ggamma, gbeta, upstream


def batch_norm_update(
    running_mean: Array, running_var: Array, mean: Array, var: Array, *, count: int, momentum: float = 0.1
) -> None:
    """Move the running statistics, in place, towards those of a batch: running = (1 − momentum)·running + momentum·new.

    `count` is the M that var was divided by; the running variance takes the unbiased var·M/(M − 1).
    """
    running = running_mean, running_var
    if not all(a.dtype == np.float32 and a.flags.c_contiguous for a in running) or not fast(mean, var):
        return reference.batch_norm_update(*running, mean, var, count=count, momentum=momentum)
    expect("batch_norm_update", running_mean.shape, running_var=running_var, mean=mean, var=var)
    c, unbias = running_mean.size, count / max(count - 1, 1)
    arguments = (*running, _float(mean), _float(var), momentum, unbias, c)
    _kernels.launch("update_running", blocks(c, BLOCK), (BLOCK,), *arguments, T=np.float32)
