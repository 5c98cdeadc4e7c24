"""Optimiser updates, in place (optimisers.cu): float32 parameters, gradients in float32 or float16."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import reference
from kernels.cuda.arrays import Array, blocks, contiguous, fast, kernels_of

_kernels = kernels_of(__file__)

THREADS = 256


def _in_place(*arrays: Array | None) -> bool:
    """Whether the kernels can change these arrays where they are."""
    return all(a is None or (a.dtype == np.float32 and a.flags.c_contiguous) for a in arrays)


def _each(kernel: str, w: Array, g: Array, *arguments: Any) -> None:
    """`kernel` with a thread for each element of w."""
    _kernels.launch(kernel, blocks(w.size, THREADS), (THREADS,), w, contiguous(g), *arguments, w.size, T=g.dtype)


def sgd_update(
    w: Array,
    g: Array,
    velocity: Array,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> None:
    """Step down the slope, with inertia: v = m·v + g, w −= lr·v; Nesterov looks ahead: w −= lr·(g + m·v).

    g includes the decay weight_decay·w. `velocity` may be None without momentum.
    """
    if not (_in_place(w, velocity) and fast(g)):
        options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        return reference.sgd_update(w, g, velocity, lr=lr, **options)
    _each("sgd", w, g, velocity if momentum else None, lr, momentum, weight_decay, nesterov)


def rmsprop_update(
    w: Array,
    g: Array,
    square: Array,
    velocity: Array,
    *,
    lr: float,
    decay: float = 0.9,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    eps_inside: bool = False,
) -> None:
    """Divide each gradient by its recent size (Tieleman and Hinton 2012): square is a running mean of g².

    `eps_inside` takes √(square + eps), TensorFlow's and Inception's, else √square + eps, PyTorch's.
    `velocity` may be None without momentum.
    """
    if not (_in_place(w, square, velocity) and fast(g)):
        options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "eps_inside": eps_inside}
        return reference.rmsprop_update(w, g, square, velocity, lr=lr, decay=decay, eps=eps, **options)
    state = square, velocity if momentum else None
    _each("rmsprop", w, g, *state, lr, decay, 1 - decay, eps, momentum, weight_decay, eps_inside)


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    step: int,
) -> None:
    """Step by the running mean of g over the root of the running mean of g² (Kingma and Ba 2015, arXiv:1412.6980).

    `step` counts from 1: both means start at 0, and 1 − beta^step corrects that. `decoupled` shrinks w directly
    instead of adding weight_decay·w to g: AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """
    if not (_in_place(w, m, v) and fast(g)):
        options: dict[str, Any] = {"eps": eps, "weight_decay": weight_decay, "decoupled": decoupled, "step": step}
        return reference.adam_update(w, g, m, v, lr=lr, beta1=beta1, beta2=beta2, **options)
    means = beta1, 1 - beta1, beta2, 1 - beta2, eps
    decay, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    _each("adam", w, g, m, v, lr, *means, decay, shrink, 1 - beta1**step, 1 - beta2**step)


def ema_update(average: Array, w: Array, *, decay: float) -> None:
    """Let the average follow the weights: average = decay·average + (1 − decay)·w."""
    if not (_in_place(average) and fast(w)):
        return reference.ema_update(average, w, decay=decay)
    _each("ema", average, w, decay, 1 - decay)


def sum_update(total: Array, g: Array) -> None:
    """Add one more contribution to a gradient: total += g."""
    if not (fast(total, g) and total.flags.c_contiguous):
        return reference.sum_update(total, g)
    _each("add", total, g)
