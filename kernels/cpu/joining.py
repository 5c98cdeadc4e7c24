"""Joining maps by their channels, and parting them again, on several threads; other axes are left to the reference."""

from __future__ import annotations

import numpy as np

from kernels import reference
from kernels.cpu.layout import copy_to
from kernels.cpu.memory import empty


def concat(*xs: np.ndarray, axis: int = -1) -> np.ndarray:
    """The maps' channels side by side."""
    if axis not in (-1, xs[0].ndim - 1):
        return reference.concat(*xs, axis=axis)
    sizes = tuple(x.shape[-1] for x in xs)
    y = empty((*xs[0].shape[:-1], sum(sizes)), xs[0].dtype)
    for x, piece in zip(xs, reference.concat_grad(y, sizes), strict=True):
        copy_to(piece, x)
    return y


def concat_grad(gy: np.ndarray, sizes: tuple[int, ...], *, axis: int = -1) -> tuple[np.ndarray, ...]:
    """The pieces of gy, each in memory of its own: the kernels that get them would copy views, on one thread."""
    views = reference.concat_grad(gy, sizes, axis=axis)
    pieces = tuple(empty(view.shape, view.dtype) for view in views)
    for piece, view in zip(pieces, views, strict=True):
        copy_to(piece, view)
    return pieces
