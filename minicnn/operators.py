"""The operators and methods of a Tensor: each is the function of the same name in `minicnn/ops/basic.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import minicnn  # the ops are looked up when they are called: they are themselves made of Tensors

if TYPE_CHECKING:
    from minicnn.autograd import Tensor


class Operators:
    """What `+ - * / @ [] **` and the methods of a Tensor call; mixed into `minicnn.Tensor`."""

    __slots__ = ()
    __array_ufunc__ = None  # makes NumPy leave `array * tensor` to `Tensor.__rmul__`

    def __add__(self, other: Any) -> Tensor:
        return minicnn.ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return minicnn.ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return minicnn.ops.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return minicnn.ops.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return minicnn.ops.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return minicnn.ops.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return minicnn.ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return minicnn.ops.div(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return minicnn.ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return minicnn.ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return minicnn.ops.neg(self)

    def __pow__(self, exponent: float) -> Tensor:
        return minicnn.ops.pow(self, exponent=exponent)

    def pow(self, exponent: float) -> Tensor:
        return minicnn.ops.pow(self, exponent=exponent)

    def __getitem__(self, index: Any) -> Tensor:
        return minicnn.ops.getitem(self, index=index)

    def exp(self) -> Tensor:
        return minicnn.ops.exp(self)

    def log(self) -> Tensor:
        return minicnn.ops.log(self)

    def sqrt(self) -> Tensor:
        return minicnn.ops.sqrt(self)

    def maximum(self, other: Any) -> Tensor:
        return minicnn.ops.maximum(self, other)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return minicnn.ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return minicnn.ops.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return minicnn.ops.max(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        return minicnn.ops.reshape(self, shape=shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        return minicnn.ops.transpose(self, axes=(axes[0] if len(axes) == 1 else axes) or None)

    def flatten(self) -> Tensor:
        return minicnn.ops.flatten(self)

    def pad(self, widths: Any) -> Tensor:
        return minicnn.ops.pad(self, widths=widths)
