"""Is this gradient right? Compare it with what the function itself says: nudge the input, watch the output.

For y = f(x), an upstream gradient u and a direction v, the chain rule says that the number ⟨u, f(x + t·v)⟩ has the
derivative ⟨gx, v⟩ at t = 0. One random v tests every element of gx, for the price of two more forward passes. Both u
and v must be random: ones for u would let pass whatever is right only on average (the gradient of batch normalisation
is then 0, and a transposed one is not noticed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kernels import array_module
from minicnn.autograd import Array, Tensor, no_grad

SMALL = 10_000  # elements: up to here `locate` looks at each of them


class GradientError(AssertionError):
    """An analytic gradient and the numerical one disagree; the message says of which argument and by how much."""


def gradcheck(
    f: Callable[..., Tensor],
    *arrays: Any,
    seed: int = 0,
    eps: float = 1e-6,
    tolerance: float = 1e-6,
    locate: bool = False,
) -> float:
    """Compare f's gradients with central differences along random directions; returns the largest relative error.

    `f` takes a Tensor for each of `arrays` and returns one; `arrays` are float64 (float32 has too few digits to tell a
    wrong gradient from rounding). f must depend on its arguments alone, and be smooth within `eps` of them: a ReLU or a
    maximum must not be near its kink. An error is relative to ‖gx‖·‖v‖ / √size, what ⟨gx, v⟩ amounts to for a random v,
    or to the numerical derivative where that is larger; what rounding in y explains is taken off it first.

    Raises GradientError if an error exceeds `tolerance`, naming each wrong argument (by position, from 0) with the
    analytic and the numerical value. With `locate` every element of an argument of up to 10,000 is checked instead of
    one direction, and the worst one is named. TypeError for other dtypes, ValueError for an f that is not a function.
    """
    for i, array in enumerate(arrays):
        given = getattr(array, "dtype", type(array).__name__)
        if given != np.float64:
            raise TypeError(f"gradcheck: argument {i} is {given}; convert it with .astype(numpy.float64)")
    rng = np.random.default_rng([seed, *b"gradcheck"])  # a caller's default_rng(seed) must not give u equal to an array

    def value(moves: dict[int, Array]) -> Array:
        """f with the arguments of these numbers moved."""
        inputs = [array.copy() for array in arrays]
        for i, move in moves.items():
            inputs[i] += move
        with no_grad():
            return f(*map(Tensor, inputs)).data

    tensors = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    y = f(*tensors)
    if _norm(value({}) - y.data) > 1e-9 * _norm(y.data):
        raise ValueError("gradcheck: f gave two results for the same arguments; let it draw the same numbers each time")
    u = array_module(y.data).asarray(rng.standard_normal(y.shape))
    if y.requires_grad:
        y.backward(u)
    rounding = 1e-15 * _norm(u * y.data) / eps  # of ⟨u, y⟩: a few units in the last place, divided by the step

    worst, wrong = 0.0, []
    for i, (tensor, array) in enumerate(zip(tensors, arrays, strict=True)):
        g = 0 * array if tensor.grad is None else tensor.grad
        if (g.shape, g.dtype) != (array.shape, array.dtype):
            given, needed = f"{g.shape} {g.dtype}", f"{array.shape} {array.dtype}"
            wrong.append(f"the gradient of argument {i} is {given}, the argument {needed}")
            continue
        largest, message = 0.0, ""
        for v, place, hint in _directions(array, rng, locate):
            analytic = float((g * v).sum())
            numerical = float((u * (value({i: eps * v}) - value({i: -eps * v}))).sum()) / (2 * eps)
            size = max(_norm(g) * _norm(v) / math.sqrt(array.size), abs(numerical), 1e-300)
            error = max(abs(analytic - numerical) - rounding, 0.0) / size
            if not error <= largest:  # larger, or NaN
                largest = error if error >= 0 else math.inf
                values = f"analytic {analytic:.9g}, numerical {numerical:.9g}{hint}"
                message = f"the gradient of argument {i} is wrong{place} by {largest:.1e} of its size: {values}"
        if largest > tolerance and tensor.grad is None:
            message = f"argument {i} gets no gradient: backward returned None for it, but f depends on it"
        if largest > tolerance:
            wrong.append(message)
        worst = max(worst, largest)
    if wrong:
        raise GradientError("gradcheck: " + "; ".join(wrong))
    return worst


def _norm(a: Array) -> float:
    return math.sqrt(float((a * a).sum()))


def _directions(array: Array, rng: np.random.Generator, locate: bool) -> Iterator[tuple[Array, str, str]]:
    """Where to move an argument: one random direction, or each element by itself; with words for the error message."""
    xp = array_module(array)
    if not locate or array.size > SMALL:
        hint = f"{array.size} elements are too many to locate one" if locate else "locate=True says where"
        yield xp.asarray(rng.standard_normal(array.shape)), "", f" along a random direction; {hint}"
        return
    for index in np.ndindex(array.shape):
        v = xp.zeros(array.shape)
        v[index] = 1
        yield v, f" at {index}", ""
