"""Optimiser updates, in place, and the norm of gradients (optimisers.cu): float32 parameters, gradients float32 or 16.

Each update is a launch; within `together()` the updates of all parameters are one. The host does not look at `factor`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import BLOCK, Array, address, blocks, contiguous, expect, fast, kernels_of

_kernels = kernels_of(__file__)

WARP = 32
PIECE = 16 * BLOCK  # elements of a parameter that one block of a common launch changes

# The arrays of a parameter, the factor where the kernel takes one, and its rates.
_Update = tuple[tuple[Any, ...], tuple[Any, ...], tuple[float, ...]]
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
    addresses = np.zeros((len(updates), 5), np.uint64)
    for row, (arrays, factor, _) in zip(addresses, updates, strict=True):
        row[: len(arrays)] = [0 if a is None else address(a) for a in arrays]
        row[4 : 4 + len(factor)] = [0 if a is None else address(a) for a in factor]
    pieces = _pieces(np.array([g.size for (_, g, *_), _, _ in updates]))
    numbers = np.array([rates for _, _, rates in updates], np.float32)
    tables = [addresses, pieces] + [numbers] * bool(numbers.size)
    on_device = map(array_module(updates[0][0][0]).asarray, tables)
    _kernels.launch(f"{kernel}_all", (len(pieces),), (BLOCK,), *on_device, T=dtype)


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


def _update(
    kernel: str, w: Array, g: Array, state: dict[str, Array | None], factor: tuple[Array | None, ...], *rates: float
) -> None:
    """`kernel` on w, g, what is remembered of it and the factor: now, or with the others of `together`."""
    expect(kernel, w.shape, g=g, **state)
    arrays = w, contiguous(g), *state.values()
    if _waiting is not None:
        _kernels.check(kernel, *arrays, *factor, *rates, w.size, T=g.dtype)
        _waiting.setdefault((kernel, g.dtype), []).append((arrays, factor, rates))
    else:
        _kernels.launch(kernel, blocks(w.size, BLOCK), (BLOCK,), *arrays, *factor, *rates, w.size, T=g.dtype)


def sgd_update(
    w: Array,
    g: Array,
    velocity: Array,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    factor: Array | None = None,
) -> None:
    """Step down the slope, with inertia: v = m·v + g, w −= lr·v; Nesterov looks ahead: w −= lr·(g + m·v).

    g includes the decay weight_decay·w. `velocity` may be None without momentum.
    """
    if not (_in_place(w, velocity, factor) and fast(g)):
        options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        return reference.sgd_update(w, g, velocity, lr=lr, factor=factor, **options)
    state = {"velocity": velocity if momentum else None}
    _update("sgd", w, g, state, (factor,), lr, momentum, weight_decay, nesterov)


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
    factor: Array | None = None,
) -> None:
    """Divide each gradient by its recent size (Tieleman and Hinton 2012): square is a running mean of g².

    `eps_inside` takes √(square + eps), TensorFlow's and Inception's, else √square + eps, PyTorch's.
    `velocity` may be None without momentum.
    """
    if not (_in_place(w, square, velocity, factor) and fast(g)):
        options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "eps_inside": eps_inside}
        return reference.rmsprop_update(w, g, square, velocity, lr=lr, decay=decay, eps=eps, factor=factor, **options)
    state = {"square": square, "velocity": velocity if momentum else None}
    _update("rmsprop", w, g, state, (factor,), lr, decay, 1 - decay, eps, momentum, weight_decay, eps_inside)


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
    factor: Array | None = None,
) -> None:
    """Step by the running mean of g over the root of the running mean of g² (Kingma and Ba 2015, arXiv:1412.6980).

    `step` counts from 1: both means start at 0, and 1 − beta^step corrects that. `decoupled` shrinks w directly
    instead of adding weight_decay·w to g: AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """
    if not (_in_place(w, m, v, factor) and fast(g)):
        options: dict[str, Any] = {"eps": eps, "weight_decay": weight_decay, "decoupled": decoupled, "step": step}
        return reference.adam_update(w, g, m, v, lr=lr, beta1=beta1, beta2=beta2, factor=factor, **options)
    means = beta1, 1 - beta1, beta2, 1 - beta2, eps
    decay, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    rates = lr, *means, decay, shrink, 1 - beta1**step, 1 - beta2**step
    _update("adam", w, g, {"m": m, "v": v}, (factor,), *rates)


def ema_update(average: Array, w: Array, *, decay: float) -> None:
    """Let the average follow the weights: average = decay·average + (1 − decay)·w."""
    if not (_in_place(average) and fast(w)):
        return reference.ema_update(average, w, decay=decay)
    _update("ema", average, w, {}, (), decay, 1 - decay)


def sum_update(total: Array, g: Array) -> None:
    """Add one more contribution to a gradient: total += g."""
    if not (fast(total, g) and total.flags.c_contiguous):
        return reference.sum_update(total, g)
    expect("sum_update", total.shape, g=g)
    _kernels.launch("add", blocks(g.size, BLOCK), (BLOCK,), total, contiguous(g), g.size, T=g.dtype)


def cast_update(copy: Array, w: Array) -> None:
    """Let a copy in another dtype follow the weights: copy = w, rounded."""
    if not (_in_place(w) and fast(copy) and copy.flags.c_contiguous):
        return reference.cast_update(copy, w)
    _update("cast", w, copy, {}, ())


def square_sum(*arrays: Array) -> Array:
    """Σ a² over all elements of all arrays, () in float64: in one launch for each dtype, and one that adds up."""
    if not all(map(fast, arrays)):
        return reference.square_sum(*arrays)
    xp = array_module(arrays[0])
    of_dtype = [[contiguous(a) for a in arrays if a.dtype == dtype] for dtype in {a.dtype: None for a in arrays}]
    sums = []
    for some in of_dtype:
        pieces = _pieces(np.array([a.size for a in some]))
        addresses = np.array([address(a) for a in some], np.uint64)
        sums.append(xp.empty(len(pieces), np.float64))
        tables = xp.asarray(addresses), xp.asarray(pieces)
        _kernels.launch("square_sums", (len(pieces),), (WARP,), *tables, sums[-1], T=some[0].dtype)
    return xp.asarray(xp.concatenate(sums).sum())
