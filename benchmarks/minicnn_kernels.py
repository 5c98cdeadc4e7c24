"""Kernels of `kernels.cpu`, ready to run: each function prepares operands and returns the call that is timed.

Kernels that take just the operands of a case need no preparation; the others are here. `torch_kernels.py` has the same
functions for PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kernels import cpu

Array = np.ndarray
Call = Callable[[], Any]


def prepare(kernel: str, operands: tuple[Array, ...], options: dict[str, Any]) -> Call:
    """The call `kernel(*operands, **options)`, or what a function of that name in this file makes of it."""
    if kernel in PREPARED:
        return PREPARED[kernel](*operands, **options)
    return partial(getattr(cpu, kernel), *operands, **options)


def takes_winograd(convolve: Call) -> bool:
    """Whether a convolution is computed in another way than the direct one: then other bits come out."""
    with cpu.exact():
        direct = convolve()
    return not np.array_equal(convolve(), direct)


def bn_relu(x: Array, gamma: Array, beta: Array, residual: Array | None = None) -> Call:
    return lambda: cpu.bn_relu(x, gamma, beta, *cpu.batch_norm_stats(x), residual)


def bn_relu_grad(gy: Array, x: Array, gamma: Array, beta: Array, residual: Array | None = None) -> Call:
    mean, var = cpu.batch_norm_stats(x)
    y = cpu.bn_relu(x, gamma, beta, mean, var, residual)
    return lambda: cpu.bn_relu_grad(gy, y, x, gamma, mean, var)


def max_pool_grad(gy: Array, x: Array, **options: Any) -> Call:
    _, winners = cpu.max_pool(x, **options)
    return lambda: cpu.max_pool_grad(gy, winners, x.shape, **options)


def avg_pool_grad(gy: Array, x: Array, **options: Any) -> Call:
    return lambda: cpu.avg_pool_grad(gy, x.shape, **options)


def labels(logits: Array) -> Array:
    return np.arange(len(logits)) % logits.shape[1]


def cross_entropy(logits: Array) -> Call:
    return partial(cpu.cross_entropy, logits, labels(logits))


def cross_entropy_grad(gy: Array, logits: Array) -> Call:
    _, p = cpu.cross_entropy(logits, labels(logits))
    return partial(cpu.cross_entropy_grad, gy, p, labels(logits))


def dropout(x: Array, p: float) -> Call:
    return lambda: cpu.dropout(x, p, (0, 1, 2))


def sgd_step(network: str) -> Call:
    from minicnn import init, models, optim

    with init.skipped():
        parameters = list(models.build(network).parameters())
    for parameter in parameters:
        parameter.grad = np.ones_like(parameter.data)
    return optim.SGD(parameters, lr=1e-5, momentum=0.9, weight_decay=1e-4).step


PREPARED: dict[str, Callable[..., Call]] = {
    "bn_relu": bn_relu,
    "bn_relu_grad": bn_relu_grad,
    "max_pool_grad": max_pool_grad,
    "avg_pool_grad": avg_pool_grad,
    "cross_entropy": cross_entropy,
    "cross_entropy_grad": cross_entropy_grad,
    "dropout": dropout,
    "dropout_grad": dropout,  # the same mask on gy
    "sgd_step": sgd_step,
}
