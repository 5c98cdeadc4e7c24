"""Optimiser updates, in place (optimisers.cu): float32 parameters, gradients in float32 or float16.

Each update is a launch; within `together()` the updates of all parameters are one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import BLOCK, Array, address, blocks, contiguous, expect, fast, kernels_of

_kernels = kernels_of(__file__)

PIECE = 16 * BLOCK  # elements of a parameter that one block of a common launch changes

_Update = tuple[tuple[Array, ...], tuple[float, ...]]  # the arrays of a parameter, and its rates
_waiting: dict[tuple[str, np.dtype], list[_Update]] | None = None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within the block updates wait, and are made at its end: those of one kind in one launch, however many arrays.

        with together():
            for w, g, v in ...:
                sgd_update(w, g, v, lr=0.1, momentum=0.9)

    Nothing is changed if the block raises. `sum_update` does not wait.
    """
    global _waiting
    before, _waiting = _waiting, {}
    try:
        yield
        collected = _waiting
    finally:
        _waiting = before
    for (kernel, dtype), updates in collected.items():
        _launch_all(kernel, dtype, updates)


def _launch_all(kernel: str, dtype: np.dtype, updates: list[_Update]) -> None:
    xp = array_module(updates[0][0][0])
    addresses = np.zeros((len(updates), 4), np.uint64)
    for row, (arrays, _) in zip(addresses, updates, strict=True):
        row[: len(arrays)] = [0 if a is None else address(a) for a in arrays]
    numbers = np.array([rates for _, rates in updates], np.float32)
    pieces = _pieces(np.array([g.size for (_, g, *_), _ in updates]))
    tables = map(xp.asarray, (addresses, numbers, pieces))
    _kernels.launch(f"{kernel}_all", (len(pieces),), (BLOCK,), *tables, T=dtype)


def _pieces(sizes: np.ndarray) -> np.ndarray:
    """(parameter, first element, end) of all pieces of parameters of these sizes."""
    counts = -(-sizes // PIECE)
    parameter = np.repeat(np.arange(len(sizes)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)  # pieces of earlier parameters
    begin = (np.arange(len(parameter)) - before) * PIECE
    return np.stack([parameter, begin, np.minimum(begin + PIECE, sizes[parameter])], axis=1).astype(np.int32)


def _in_place(*arrays: Array | None) -> bool:
    """Whether the kernels can change these arrays where they are."""
    return all(a is None or (a.dtype == np.float32 and a.flags.c_contiguous) for a in arrays)


def _update(kernel: str, w: Array, g: Array, state: dict[str, Array | None], *rates: float) -> None:
    """`kernel` on w, g and what is remembered of it: now, or with the others of `together`."""
    expect(kernel, w.shape, g=g, **state)
    arrays = w, contiguous(g), *state.values()
    if _waiting is not None:
        _kernels.check(kernel, *arrays, *rates, w.size, T=g.dtype)
        _waiting.setdefault((kernel, g.dtype), []).append((arrays, rates))
    else:
        _kernels.launch(kernel, blocks(w.size, BLOCK), (BLOCK,), *arrays, *rates, w.size, T=g.dtype)


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
    _update("sgd", w, g, {"velocity": velocity if momentum else None}, lr, momentum, weight_decay, nesterov)


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
    state = {"square": square, "velocity": velocity if momentum else None}
    _update("rmsprop", w, g, state, lr, decay, 1 - decay, eps, momentum, weight_decay, eps_inside)


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
    _update("adam", w, g, {"m": m, "v": v}, lr, *means, decay, shrink, 1 - beta1**step, 1 - beta2**step)


def ema_update(average: Array, w: Array, *, decay: float) -> None:
    """Let the average follow the weights: average = decay·average + (1 − decay)·w."""
    if not (_in_place(average) and fast(w)):
        return reference.ema_update(average, w, decay=decay)
    _update("ema", average, w, {}, decay, 1 - decay)


def sum_update(total: Array, g: Array) -> None:
    """Add one more contribution to a gradient: total += g."""
    if not (fast(total, g) and total.flags.c_contiguous):
        return reference.sum_update(total, g)
    expect("sum_update", total.shape, g=g)
    _kernels.launch("add", blocks(g.size, BLOCK), (BLOCK,), total, contiguous(g), g.size, T=g.dtype)
