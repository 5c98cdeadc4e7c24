"""Arithmetic on Tensors, and what moves their elements about. Everything else could be written in these.

With L the loss, gy = ∂L/∂y is what arrives from above; each backward multiplies it by the derivative of its own
formula. Where a function takes two arrays, their shapes may differ as NumPy's broadcasting allows: an element that was
used in several places collects the gradient of all of them.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

from kernels import array_module
from minicnn.autograd import differentiable
from minicnn.ops._checks import require


def _shape(a: Any) -> tuple[int, ...]:
    """The shape of an array; () for a Python number."""
    return getattr(a, "shape", ())


def _unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum g over the axes along which an argument of `shape` was repeated to meet the other one."""
    if g.shape == shape:
        return g
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))  # axes that the argument does not have
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=repeated, keepdims=True)


@differentiable
def add(a: Any, b: Any) -> Any:
    """y = a + b: a sum hands the same gradient to both of its terms. ∂y/∂a = ∂y/∂b = 1."""
    shapes = _shape(a), _shape(b)

    def backward(gy, needs):
        return tuple(_unbroadcast(gy, shape) if need else None for shape, need in zip(shapes, needs, strict=True))

    return a + b, backward


@differentiable
def sub(a: Any, b: Any) -> Any:
    """y = a − b. ∂y/∂a = 1, ∂y/∂b = −1."""
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(gy, needs):
        return _unbroadcast(gy, shape_a) if needs[0] else None, _unbroadcast(-gy, shape_b) if needs[1] else None

    return a - b, backward


@differentiable
def mul(a: Any, b: Any) -> Any:
    """y = a·b: each factor's gradient is scaled by the other factor. ∂y/∂a = b, ∂y/∂b = a."""
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(gy, needs):
        return _unbroadcast(gy * b, shape_a) if needs[0] else None, _unbroadcast(gy * a, shape_b) if needs[1] else None

    return a * b, backward


@differentiable
def div(a: Any, b: Any) -> Any:
    """y = a / b. ∂y/∂a = 1/b, ∂y/∂b = −a/b² = −y/b."""
    shape_a, shape_b = _shape(a), _shape(b)
    y = a / b

    def backward(gy, needs):
        ga = gy / b
        return _unbroadcast(ga, shape_a) if needs[0] else None, _unbroadcast(-ga * y, shape_b) if needs[1] else None

    return y, backward


@differentiable
def neg(x: Any) -> Any:
    """y = −x."""

    def backward(gy, needs):
        return (-gy,)

    return -x, backward


@differentiable
def pow(x: Any, *, exponent: float) -> Any:
    """y = x^e for a constant e. dy/dx = e·x^(e−1)."""

    def backward(gy, needs):
        return (gy * (exponent * x ** (exponent - 1)),)

    return x**exponent, backward


@differentiable
def exp(x: Any) -> Any:
    """y = e^x, the function that is its own derivative: dy/dx = y."""
    y = array_module(x).exp(x)

    def backward(gy, needs):
        return (gy * y,)

    return y, backward


@differentiable
def log(x: Any) -> Any:
    """y = ln x. dy/dx = 1/x."""

    def backward(gy, needs):
        return (gy / x,)

    return array_module(x).log(x), backward


@differentiable
def sqrt(x: Any) -> Any:
    """y = √x. dy/dx = 1/(2y)."""
    y = array_module(x).sqrt(x)

    def backward(gy, needs):
        return (gy / (2 * y),)

    return y, backward


@differentiable
def maximum(a: Any, b: Any) -> Any:
    """y = max(a, b), element by element: the gradient goes to the larger; where they are equal, half to each."""
    xp = array_module(a if hasattr(a, "shape") else b)
    shape_a, shape_b = _shape(a), _shape(b)

    def backward(gy, needs):
        to_a = xp.where(a > b, gy, xp.where(a == b, gy / 2, 0 * gy))
        return _unbroadcast(to_a, shape_a) if needs[0] else None, _unbroadcast(gy - to_a, shape_b) if needs[1] else None

    return xp.maximum(a, b), backward


@differentiable
def matmul(a: Any, b: Any) -> Any:
    """y = a @ b, the matrix product: y_ik = Σ_j a_ij·b_jk.

    a_ij meets every b_jk of its row j, so ga_ij = Σ_k gy_ik·b_jk, which is gy @ bᵀ; in the same way gb = aᵀ @ gy.
    a (..., n, m), b (..., m, p) -> (..., n, p); leading axes broadcast.
    """
    require(a.ndim >= 2 and b.ndim >= 2, f"matmul: both arguments need two axes or more, got {a.shape} and {b.shape}")
    require(a.shape[-1] == b.shape[-2], f"matmul: {a.shape} @ {b.shape} does not fit, {a.shape[-1]} != {b.shape[-2]}")
    shape_a, shape_b = a.shape, b.shape

    def backward(gy, needs):
        ga = _unbroadcast(gy @ b.swapaxes(-1, -2), shape_a) if needs[0] else None
        gb = _unbroadcast(a.swapaxes(-1, -2) @ gy, shape_b) if needs[1] else None
        return ga, gb

    return a @ b, backward


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(i % ndim for i in axes)


def _spread(a: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """A result of a reduction over `axes`, with those axes put back as 1, so that it broadcasts over the argument."""
    return a if keepdims else array_module(a).expand_dims(a, axes)


@differentiable
def sum(x: Any, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """y = Σ x over some axes (all without `axis`): every term gets the gradient of the sum."""
    shape, axes = x.shape, _axes(axis, x.ndim)

    def backward(gy, needs):
        return (array_module(gy).broadcast_to(_spread(gy, axes, keepdims), shape),)

    return x.sum(axis=axes, keepdims=keepdims), backward


@differentiable
def mean(x: Any, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """y = Σ x / n over some axes (all without `axis`): every term gets the n-th part of the gradient."""
    shape, axes = x.shape, _axes(axis, x.ndim)
    n = math.prod(shape[i] for i in axes)

    def backward(gy, needs):
        return (array_module(gy).broadcast_to(_spread(gy, axes, keepdims) / n, shape),)

    return x.mean(axis=axes, keepdims=keepdims), backward


@differentiable
def max(x: Any, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """y = the largest x over some axes: the winner gets the gradient; several equal ones share it (as torch.amax)."""
    axes = _axes(axis, x.ndim)
    y = x.max(axis=axes, keepdims=True)

    def backward(gy, needs):
        wins = x == y
        return (wins * (_spread(gy, axes, keepdims) / wins.sum(axis=axes, keepdims=True).astype(gy.dtype)),)

    return y if keepdims else array_module(x).squeeze(y, axes), backward


@differentiable
def reshape(x: Any, *, shape: int | tuple[int, ...]) -> Any:
    """The same elements in another shape, in C order; one size may be −1. The gradient is put back into the old one."""
    old = x.shape

    def backward(gy, needs):
        return (gy.reshape(old),)

    return x.reshape(shape), backward


def flatten(x: Any) -> Any:
    """(N, ...) to (N, everything else): what stands between maps and a fully connected layer."""
    return reshape(x, shape=(x.shape[0], -1))


@differentiable
def transpose(x: Any, *, axes: tuple[int, ...] | None = None) -> Any:
    """Exchange axes (reverse them without `axes`); the gradient is exchanged back."""
    axes = tuple(range(x.ndim))[::-1] if axes is None else _axes(axes, x.ndim)
    back = tuple(axes.index(i) for i in range(x.ndim))

    def backward(gy, needs):
        return (gy.transpose(back),)

    return x.transpose(axes), backward


@differentiable
def pad(x: Any, *, widths: Any) -> Any:
    """Surround x with zeros, `widths` as numpy.pad takes them; the gradient of what was added is dropped."""
    y = array_module(x).pad(x, widths)
    pairs = ((widths, widths),) * x.ndim if isinstance(widths, int) else widths
    pairs = (pairs,) * x.ndim if isinstance(pairs[0], int) else pairs
    inside = tuple(slice(before, before + n) for (before, _), n in zip(pairs, x.shape, strict=True))

    def backward(gy, needs):
        return (gy[inside],)

    return y, backward


@differentiable
def getitem(x: Any, *, index: Any) -> Any:
    """y = x[index]: the gradient goes back to where each element was taken from.

    Numbers, slices, None and Ellipsis take each element once. An integer or boolean array may take one several
    times, and then it gets the sum; this is done on NumPy arrays only.
    """
    shape = x.shape
    parts = index if isinstance(index, tuple) else (index,)
    once = not builtins.any(hasattr(part, "shape") or isinstance(part, list) for part in parts)

    def backward(gy, needs):
        xp = array_module(gy)
        gx = xp.zeros(shape, gy.dtype)
        if once:
            gx[index] = gy
        else:
            xp.add.at(gx, index, gy)
        return (gx,)

    return x[index], backward
