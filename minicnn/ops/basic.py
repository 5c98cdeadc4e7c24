"""Arithmetic on Tensors, and what moves their elements about. Everything else could be written in these.

With L the loss, gy = ∂L/∂y is what arrives from above; each backward multiplies it by the derivative of its own
formula. Where a function takes two arrays, their shapes may differ as NumPy's broadcasting allows: an element that was
used in several places collects the gradient of all of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels import array_module
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops._checks import require

Axes = int | tuple[int, ...] | None

# ---- Two arrays ----------------------------------------------------------------------------------------------------


def _shape(a: Any) -> tuple[int, ...]:
    """The shape of an array; () for a Python number."""
    return getattr(a, "shape", ())


def _check_dtypes(op: str, a: Any, b: Any) -> None:
    """Both arguments are arrays or numbers; no integer array turns float32 into float64, as NumPy would have it."""
    for argument in (a, b):
        if not hasattr(argument, "dtype") and not isinstance(argument, int | float):
            raise TypeError(f"{op}: expected arrays and numbers, got {type(argument).__name__}")
    dtypes = [argument.dtype for argument in (a, b) if hasattr(argument, "dtype")]
    floating = [dtype for dtype in dtypes if dtype.kind == "f"]
    if floating and np.result_type(*dtypes) != floating[0]:
        given = " and ".join(map(str, dtypes))
        raise TypeError(f"{op}: {given} would make {np.result_type(*dtypes)}; convert the integers with .astype")


def _check_operands(op: str, a: Any, b: Any) -> None:
    """As `_check_dtypes`, and the shapes broadcast."""
    _check_dtypes(op, a, b)
    try:
        np.broadcast_shapes(_shape(a), _shape(b))
    except ValueError:
        raise ValueError(f"{op}: shapes {_shape(a)} and {_shape(b)} do not broadcast") from None


def _unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an argument of `shape` that was repeated to meet the other: the sum over its repetitions."""
    added = g.ndim - len(shape)  # axes in front that the argument does not have
    repeated = tuple(i for i in range(g.ndim) if i < added or shape[i - added] != g.shape[i])
    return g.sum(axis=repeated).reshape(shape) if repeated else g


@differentiable
def add(a: Array, b: Array) -> Forward:
    """y = a + b: a sum hands the same gradient to both of its terms. ∂y/∂a = ∂y/∂b = 1."""
    _check_operands("add", a, b)
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(gy, needs):
        ga = _unbroadcast(gy, shape_a) if needs[0] else None
        gb = _unbroadcast(gy, shape_b) if needs[1] else None
        return ga, gb

    return a + b, backward


@differentiable
def sub(a: Array, b: Array) -> Forward:
    """y = a − b: as a sum, but b pulls the other way. ∂y/∂a = 1, ∂y/∂b = −1."""
    _check_operands("sub", a, b)
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(gy, needs):
        ga = _unbroadcast(gy, shape_a) if needs[0] else None
        gb = _unbroadcast(-gy, shape_b) if needs[1] else None
        return ga, gb

    return a - b, backward


@differentiable
def mul(a: Array, b: Array) -> Forward:
    """y = a·b: each factor's gradient is scaled by the other factor. ∂y/∂a = b, ∂y/∂b = a."""
    _check_operands("mul", a, b)
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(gy, needs):
        ga = _unbroadcast(gy * b, shape_a) if needs[0] else None
        gb = _unbroadcast(gy * a, shape_b) if needs[1] else None
        return ga, gb

    return a * b, backward


@differentiable
def div(a: Array, b: Array) -> Forward:
    """y = a / b: the numerator is scaled, the denominator works against it. ∂y/∂a = 1/b, ∂y/∂b = −a/b² = −y/b."""
    _check_operands("div", a, b)
    shape_a, shape_b = _shape(a), _shape(b)
    y = a / b

    def backward(gy, needs):
        ga = gy / b
        gb = _unbroadcast(-ga * y, shape_b) if needs[1] else None
        return _unbroadcast(ga, shape_a) if needs[0] else None, gb

    return y, backward


@differentiable
def maximum(a: Array, b: Array) -> Forward:
    """y = max(a, b), element by element: the larger gets the gradient; equal ones get half each (as torch.maximum)."""
    _check_operands("maximum", a, b)
    xp = array_module(a if hasattr(a, "dtype") else b)
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(gy, needs):
        to_a = xp.where(a > b, gy, xp.where(a == b, gy / 2, 0))
        ga = _unbroadcast(to_a, shape_a) if needs[0] else None
        gb = _unbroadcast(gy - to_a, shape_b) if needs[1] else None
        return ga, gb

    return xp.maximum(a, b), backward


@differentiable
def matmul(a: Array, b: Array) -> Forward:
    """y = a @ b, the matrix product: y_ik = Σ_j a_ij·b_jk.

    a_ij meets every b_jk of row j, so it collects ga_ij = Σ_k gy_ik·b_jk: ga = gy @ bᵀ, the only product of the two
    whose shapes fit. b_jk meets every a_ij of column j: gb_jk = Σ_i a_ij·gy_ik, gb = aᵀ @ gy.

    a (..., n, m), b (..., m, p) -> (..., n, p); leading axes broadcast. ValueError where shapes do not fit.
    """
    _check_dtypes("matmul", a, b)
    shapes = f"(a: {_shape(a)}, b: {_shape(b)})"
    require(min(len(_shape(a)), len(_shape(b))) >= 2, f"matmul: both arguments need two axes or more {shapes}")
    require(a.shape[-1] == b.shape[-2], f"matmul: a has {a.shape[-1]} columns but b has {b.shape[-2]} rows {shapes}")
    shape_a, shape_b = a.shape, b.shape

    def backward(gy, needs):
        ga = _unbroadcast(gy @ b.swapaxes(-1, -2), shape_a) if needs[0] else None
        gb = _unbroadcast(a.swapaxes(-1, -2) @ gy, shape_b) if needs[1] else None
        return ga, gb

    return a @ b, backward


# ---- One array, element by element ---------------------------------------------------------------------------------


@differentiable
def neg(x: Array) -> Forward:
    """y = −x. dy/dx = −1."""

    def backward(gy, needs):
        return (-gy,)

    return -x, backward


@differentiable
def pow(x: Array, *, exponent: float) -> Forward:
    """y = x^e for a constant number e. dy/dx = e·x^(e−1)."""
    if not isinstance(exponent, int | float):
        raise TypeError(f"pow: exponent must be a number, got {type(exponent).__name__}")

    def backward(gy, needs):
        return (gy * (exponent * x ** (exponent - 1)) if exponent else 0 * gy,)  # x^0 is flat, at 0 too

    return x**exponent, backward


@differentiable
def exp(x: Array) -> Forward:
    """y = e^x, the function that is its own derivative: dy/dx = y."""
    y = array_module(x).exp(x)

    def backward(gy, needs):
        return (gy * y,)

    return y, backward


@differentiable
def log(x: Array) -> Forward:
    """y = ln x. dy/dx = 1/x."""

    def backward(gy, needs):
        return (gy / x,)

    return array_module(x).log(x), backward


@differentiable
def sqrt(x: Array) -> Forward:
    """y = √x. As y² = x, 2y·dy = dx: dy/dx = 1/(2y)."""
    y = array_module(x).sqrt(x)

    def backward(gy, needs):
        return (gy / (2 * y),)

    return y, backward


# ---- Reductions ----------------------------------------------------------------------------------------------------


def _axes(op: str, x: Array, axis: Axes) -> tuple[int, ...]:
    """The axes named, counted from the front; all of them for None."""
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for i in axes:
        require(-x.ndim <= i < x.ndim, f"{op}: axis {i} does not exist in an array of shape {x.shape}")
    return tuple(i % x.ndim for i in axes)


def _spread(a: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """The result of a reduction over `axes`, with those axes put back as 1, so that it broadcasts over the argument."""
    return a if keepdims else array_module(a).expand_dims(a, axes)


@differentiable
def sum(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Forward:
    """y = Σ x over some axes (all without `axis`): every term gets the gradient of the sum. ∂y/∂x = 1."""
    shape, axes = x.shape, _axes("sum", x, axis)

    def backward(gy, needs):
        return (array_module(gy).broadcast_to(_spread(gy, axes, keepdims), shape),)

    return x.sum(axis=axes, keepdims=keepdims), backward


@differentiable
def mean(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Forward:
    """y = Σ x / n over some axes (all without `axis`): every term gets the n-th part of the gradient. ∂y/∂x = 1/n."""
    shape, axes = x.shape, _axes("mean", x, axis)
    n = math.prod(shape[i] for i in axes)

    def backward(gy, needs):
        return (array_module(gy).broadcast_to(_spread(gy, axes, keepdims) / n, shape),)

    return x.mean(axis=axes, keepdims=keepdims), backward


@differentiable
def max(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Forward:
    """y = the largest x over some axes (all without `axis`): it alone gets the gradient.

    Several equal ones share it evenly, as in torch.amax: none is preferred, and the shares still add up to gy.
    """
    axes = _axes("max", x, axis)
    y = x.max(axis=axes, keepdims=True)

    def backward(gy, needs):
        wins = x == y
        share = _spread(gy, axes, keepdims) / wins.sum(axis=axes, keepdims=True).astype(gy.dtype)
        return (wins * share,)

    return y if keepdims else y.squeeze(axes), backward


# ---- Shapes: every element of y is an element of x, or a constant --------------------------------------------------


@differentiable
def cast(x: Array, *, dtype: Any) -> Forward:
    """The same values in another floating-point dtype, rounded; their gradient is rounded to the dtype of x.

    x (...) -> (...). x itself where it has that dtype already. TypeError for a dtype that is not floating point.
    """
    if np.dtype(dtype).kind != "f":
        raise TypeError(f"cast: dtype must be floating point, got {np.dtype(dtype)}")
    given = x.dtype

    def backward(gy, needs):
        return (gy.astype(given, copy=False),)

    return x.astype(dtype, copy=False), backward


@differentiable
def reshape(x: Array, *, shape: int | tuple[int, ...]) -> Forward:
    """The same elements in another shape, in C order; one size may be −1. The gradient goes back to the old shape."""
    old = x.shape
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ValueError(f"reshape: the {x.size} elements of x {old} do not fit the shape {shape}") from None

    def backward(gy, needs):
        return (gy.reshape(old),)

    return y, backward


def flatten(x: Array) -> Any:
    """(N, ...) to (N, everything else): what stands between maps and a fully connected layer."""
    return reshape(x, shape=(x.shape[0], -1))


@differentiable
def transpose(x: Array, *, axes: tuple[int, ...] | None = None) -> Forward:
    """Exchange axes (reverse them without `axes`); the gradient's are exchanged back."""
    order = tuple(range(x.ndim))[::-1] if axes is None else _axes("transpose", x, axes)
    require(sorted(order) == list(range(x.ndim)), f"transpose: axes must name each axis of {x.shape} once, got {axes}")
    back = tuple(order.index(i) for i in range(x.ndim))

    def backward(gy, needs):
        return (gy.transpose(back),)

    return x.transpose(order), backward


@differentiable
def pad(x: Array, *, widths: Any) -> Forward:
    """Surround x with zeros, `widths` as numpy.pad takes them; the gradient of what was added is dropped."""
    y = array_module(x).pad(x, widths)
    befores = np.broadcast_to(widths, (x.ndim, 2))[:, 0].tolist()
    inside = tuple(slice(before, before + n) for before, n in zip(befores, x.shape, strict=True))

    def backward(gy, needs):
        return (gy[inside],)

    return y, backward


@differentiable
def getitem(x: Array, *, index: Any) -> Forward:
    """y = x[index]: the gradient goes back to where each element was taken from.

    Numbers, slices, None and Ellipsis take an element once at most. An array of integers may take one several times,
    and then it gets the sum.
    """
    shape = x.shape
    parts = index if isinstance(index, tuple) else (index,)
    once = not any(hasattr(part, "shape") or isinstance(part, list) for part in parts)

    def backward(gy, needs):
        xp = array_module(gy)
        gx = xp.zeros(shape, gy.dtype)
        if once:
            gx[index] = gy
        else:
            xp.add.at(gx, index, gy)
        return (gx,)

    return x[index], backward
