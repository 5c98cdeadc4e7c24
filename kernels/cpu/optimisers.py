"""Optimiser steps in one pass over the weights, where array code takes one for each of its operations; and sums.

Threads share out pieces of one size: a division on SIMD lanes and one by itself may round differently, and which
elements are left over for the latter must not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.cpu.compile import compiled
from kernels.cpu.layout import vector_of
from kernels.cpu.threads import parallel

PIECE = 1024  # elements


def _update(
    kernel: Callable,
    changed: tuple[np.ndarray | None, ...],
    g: np.ndarray,
    *numbers: float,
    factor: np.ndarray | None = None,
) -> None:
    """Call kernel(g·factor, *changed, *numbers) on pieces of vectors, unless the factor is 0; it writes to `changed`.

    The numbers take g's dtype: with Python's own, float32 arithmetic would go through float64.
    """
    if factor is not None:
        if factor == 0:
            return
        g = g * factor.astype(g.dtype)
    vectors = [a if a is None else vector_of(a) for a in (g, *changed)]
    scalars = [g.dtype.type(number) for number in numbers]

    def update(begin: int, end: int) -> None:
        part = slice(begin * PIECE, end * PIECE)
        kernel(*(v if v is None else v[part] for v in vectors), *scalars)

    parallel(update, -(-g.size // PIECE), cost=PIECE)
    for array, vector in zip(changed, vectors[1:], strict=True):
        if array is not None and vector is not None and not array.flags.c_contiguous:  # then the vector is a copy
            array[...] = vector.reshape(array.shape)


def sgd_update(
    w: np.ndarray,
    g: np.ndarray,
    velocity: np.ndarray | None,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    factor: np.ndarray | None = None,
) -> None:
    """v = m·v + g, w −= lr·v, or Nesterov's w −= lr·(g + m·v); g includes weight_decay·w."""
    new, keep = (1.0, momentum) if nesterov else (0.0, 1.0)  # w −= lr·(new·g + keep·v)
    _update(sgd, (w, velocity if momentum else None), g, lr, momentum, weight_decay, new, keep, factor=factor)


@compiled
def sgd(g, w, velocity, lr, momentum, weight_decay, new, keep):
    for i in range(len(w)):
        step = g[i] + weight_decay * w[i]
        if velocity is not None:
            v = momentum * velocity[i] + step
            velocity[i] = v
            step = new * step + keep * v
        w[i] -= lr * step


def rmsprop_update(
    w: np.ndarray,
    g: np.ndarray,
    square: np.ndarray,
    velocity: np.ndarray | None,
    *,
    lr: float,
    decay: float = 0.9,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    eps_inside: bool = False,
    factor: np.ndarray | None = None,
) -> None:
    """Divide each gradient by the root of the running mean of its squares."""
    eps_in, eps_out = (eps, 0.0) if eps_inside else (0.0, eps)
    changed = (w, square, velocity if momentum else None)
    _update(rmsprop, changed, g, lr, decay, 1 - decay, eps_in, eps_out, momentum, weight_decay, factor=factor)


@compiled
def rmsprop(g, w, square, velocity, lr, decay, rest, eps_in, eps_out, momentum, weight_decay):
    for i in range(len(w)):
        gradient = g[i] + weight_decay * w[i]
        s = decay * square[i] + rest * gradient * gradient
        square[i] = s
        step = gradient / (np.sqrt(s + eps_in) + eps_out)
        if velocity is not None:
            step += momentum * velocity[i]
            velocity[i] = step
        w[i] -= lr * step


def adam_update(
    w: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    step: int,
    factor: np.ndarray | None = None,
) -> None:
    """Step by the running mean of g over the root of that of g², both corrected for having started at 0."""
    added, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    rate, correction = lr / (1 - beta1**step), 1 / (1 - beta2**step)
    _update(adam, (w, m, v), g, beta1, 1 - beta1, beta2, 1 - beta2, eps, added, shrink, rate, correction, factor=factor)


@compiled
def adam(g, w, m, v, beta1, rest1, beta2, rest2, eps, added, shrink, rate, correction):
    for i in range(len(w)):
        gradient = g[i] + added * w[i]
        mean = beta1 * m[i] + rest1 * gradient
        square = beta2 * v[i] + rest2 * gradient * gradient
        m[i], v[i] = mean, square
        w[i] = shrink * w[i] - rate * mean / (np.sqrt(correction * square) + eps)


def ema_update(average: np.ndarray, w: np.ndarray, *, decay: float) -> None:
    """average = decay·average + (1 − decay)·w."""
    _update(ema, (average,), w, decay, 1 - decay)


@compiled
def ema(w, average, decay, rest):
    for i in range(len(w)):
        average[i] = decay * average[i] + rest * w[i]


def sum_update(total: np.ndarray, g: np.ndarray) -> None:
    """total += g."""
    _update(add, (total,), g)


@compiled
def add(g, total):
    for i in range(len(g)):
        total[i] += g[i]
