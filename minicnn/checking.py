"""Is this gradient right? Compare it with what the function itself says: nudge the input, watch the output.

For y = f(x), an upstream gradient u and a direction v, the chain rule says that the scalar ⟨u, f(x + t·v)⟩ has the
derivative ⟨gx, v⟩ at t = 0. One random u and one random v test every element of every gradient at once, for the price
of two more forward passes. Both must be random: ones for u would let pass whatever is right only on average (the
gradient of batch normalisation is then 0, and a transposed one is not noticed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import array_module
from minicnn.autograd import Tensor, no_grad


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
    wrong gradient from rounding). It must be a function of its arguments alone, and smooth within `eps` of them: a
    ReLU or a maximum must not be near its kink. An error is relative to ‖gx‖·‖v‖ / √size, what ⟨gx, v⟩ amounts to
    for a random v, or to the numerical derivative where that is larger.

    Raises GradientError if an error exceeds `tolerance`, naming the argument (by position, from 0), the analytic and
    the numerical value. With `locate` every element of every argument is checked, one by one: for small arrays.
    """
    for i, array in enumerate(arrays):
        if array.dtype != np.float64:
            raise TypeError(f"gradcheck: argument {i} is {array.dtype}; convert it with .astype(numpy.float64)")
    xp = array_module(arrays[0])
    rng = np.random.default_rng([seed, *b"gradcheck"])  # a caller's default_rng(seed) must not give u equal to an array

    tensors = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    y = f(*tensors)
    u = xp.asarray(rng.standard_normal(y.shape))
    y.backward(u)
    for i, tensor in enumerate(tensors):
        if tensor.grad is None:
            raise GradientError(f"gradcheck: argument {i} gets no gradient: backward returned None for it")
        if tensor.grad.shape != tensor.shape or tensor.grad.dtype != tensor.dtype:
            raise GradientError(
                f"gradcheck: the gradient of argument {i} is {tensor.grad.shape} {tensor.grad.dtype}, "
                f"the argument {tensor.shape} {tensor.dtype}"
            )
    gradients = [tensor.grad for tensor in tensors]

    def numerical(i: int, v: Any) -> float:
        """d⟨u, f⟩/dt along v in argument i."""

        def scalar(t: float) -> float:
            moved = [array + t * v if j == i else array for j, array in enumerate(arrays)]
            with no_grad():
                return float((u * f(*map(Tensor, moved)).data).sum())

        return (scalar(eps) - scalar(-eps)) / (2 * eps)

    if locate:
        return max(_check_elements(i, g, numerical, tolerance, xp) for i, g in enumerate(gradients))

    worst = 0.0
    for i, (array, g) in enumerate(zip(arrays, gradients, strict=True)):
        v = xp.asarray(rng.standard_normal(array.shape))
        found, expected = float((g * v).sum()), numerical(i, v)
        size = float(xp.sqrt((g * g).sum()) * xp.sqrt((v * v).sum())) / max(array.size, 1) ** 0.5
        error = abs(found - expected) / max(size, abs(expected), 1e-12)
        if not error <= tolerance:
            raise GradientError(
                f"gradcheck: the gradient of argument {i} is wrong by {error:.1e} of its size: "
                f"analytic {found:.9g}, numerical {expected:.9g} along a random direction; locate=True says where"
            )
        worst = max(worst, error)
    return worst


def _check_elements(i: int, g: Any, numerical: Callable[[int, Any], float], tolerance: float, xp: Any) -> float:
    """The largest error of any element of argument i's gradient g, relative to the largest element."""
    expected = np.empty(g.shape)
    for index in np.ndindex(g.shape):
        v = xp.zeros(g.shape)
        v[index] = 1
        expected[index] = numerical(i, v)
    found = np.array(g.tolist()).reshape(g.shape)
    errors = np.abs(found - expected) / max(np.abs(expected).max(initial=0), np.abs(found).max(initial=0), 1e-12)
    where = np.unravel_index(np.argmax(errors), g.shape) if g.size else ()
    worst = float(errors.max(initial=0))
    if not worst <= tolerance:
        index = tuple(int(n) for n in where)
        raise GradientError(
            f"gradcheck: the gradient of argument {i} is wrong at {index} by {worst:.1e} of its largest element: "
            f"analytic {found[index]:.9g}, numerical {expected[index]:.9g}"
        )
    return worst
