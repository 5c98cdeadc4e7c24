"""Convolution and its gradients: which of three ways they are computed in is decided here, and nowhere else.

    winograd   3×3, stride and dilation 1, one group, with enough channels and tiles (winograd.suits): fewest operations
    direct     everything else in float32: the micro-kernel reads x in place
    columns    float64, and machines without vectors that we know: im2col and BLAS; also the version to read first

The choice depends on dtype and shapes alone, never on a measurement, so that a result is the same from run to run.
`exact()`, or MINICNN_EXACT=1 in the environment, rules Winograd out, whose rounding errors are about ten times larger.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterator

import numpy as np

from kernels.cpu import columns, direct, direct_image, direct_weights, winograd, winograd_weights
from kernels.cpu.elementwise import add_and_relu
from kernels.cpu.machine import VECTOR
from kernels.geometry import Axis, Padding, Pair, windows

_exact = contextvars.ContextVar("exact", default=os.environ.get("MINICNN_EXACT", "0") != "0")


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Within the block, convolutions of this thread are summed directly, without Winograd's larger rounding errors."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    if not _is_fast(x, w, b):
        return columns.conv2d(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    return _forward(x, w, b, windows(x.shape, w.shape[:2], stride, pad, dilation), groups, relu=False)


def conv2d_relu(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    if residual is not None:
        y = conv2d(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
        if residual.shape != y.shape:
            raise ValueError(f"conv2d_relu: residual must have shape {y.shape}, got {residual.shape}")
        add_and_relu(y, residual)
        return y
    if not _is_fast(x, w, b):
        return columns.conv2d_relu(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    return _forward(x, w, b, windows(x.shape, w.shape[:2], stride, pad, dilation), groups, relu=True)


def _forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, axes: tuple[Axis, Axis], groups: int, relu: bool
) -> np.ndarray:
    _check(x.shape, w.shape, groups)
    if b is not None and b.shape != (w.shape[3],):
        raise ValueError(f"conv2d: b must have shape {(w.shape[3],)}, got {b.shape}")
    x, w, b = _in_one_piece(x), _in_one_piece(w), None if b is None else _in_one_piece(b)
    if _winograd_suits(x.shape, w.shape, axes, groups):
        return winograd.forward(x, w, b, axes, relu)
    return direct.forward(x, w, b, axes, groups, relu)


def conv2d_input_grad(
    gy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    if not _is_fast(gy, w):
        return columns.conv2d_input_grad(gy, w, x_shape, stride=stride, pad=pad, dilation=dilation, groups=groups)
    axes = windows(x_shape, w.shape[:2], stride, pad, dilation)
    _check(x_shape, w.shape, groups)
    _check_gy(gy, x_shape, w.shape, axes)
    gy, w = _in_one_piece(gy), _in_one_piece(w)
    if _winograd_suits(x_shape, w.shape, axes, groups):
        return winograd.input_grad(gy, w, x_shape, axes)
    if direct_image.suits(x_shape[3], groups):
        return direct_image.input_grad(gy, w, x_shape, axes)
    return direct.input_grad(gy, w, x_shape, axes, groups)


def conv2d_weight_grad(
    gy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    if not _is_fast(gy, x):
        return columns.conv2d_weight_grad(gy, x, w_shape, stride=stride, pad=pad, dilation=dilation, groups=groups)
    axes = windows(x.shape, (w_shape[0], w_shape[1]), stride, pad, dilation)
    _check(x.shape, w_shape, groups)
    _check_gy(gy, x.shape, w_shape, axes)
    gy, x = _in_one_piece(gy), _in_one_piece(x)
    if _winograd_suits(x.shape, w_shape, axes, groups):
        return winograd_weights.weight_grad(gy, x, w_shape, axes)
    return direct_weights.weight_grad(gy, x, w_shape, axes, groups)


def _is_fast(*arrays: np.ndarray | None) -> bool:
    return VECTOR != "plain" and all(a is None or a.dtype == np.float32 for a in arrays)


def _winograd_suits(x_shape: tuple[int, ...], w_shape: tuple[int, ...], axes: tuple[Axis, Axis], groups: int) -> bool:
    return not _exact.get() and winograd.suits(x_shape, w_shape, axes, groups)


def _in_one_piece(a: np.ndarray) -> np.ndarray:
    if a.flags.c_contiguous and a.flags.aligned:  # asking costs a tenth of what np.require does
        return a
    return np.require(a, requirements=("C", "ALIGNED"))


# The kernels below work on addresses. Nothing that does not fit may reach them.


def _check(x_shape: tuple[int, ...], w_shape: tuple[int, ...], groups: int) -> None:
    if w_shape[2] * groups == x_shape[3] and w_shape[3] % groups == 0:
        return
    shapes = f"(x: {tuple(x_shape)}, w: {tuple(w_shape)}, groups: {groups})"
    if w_shape[2] * groups != x_shape[3]:
        raise ValueError(f"conv2d: w has {w_shape[2] * groups} input channels but x has {x_shape[3]} {shapes}")
    raise ValueError(f"conv2d: w's {w_shape[3]} output channels do not divide into the groups {shapes}")


def _check_gy(gy: np.ndarray, x_shape: tuple[int, ...], w_shape: tuple[int, ...], axes: tuple[Axis, Axis]) -> None:
    expected = (x_shape[0], axes[0].outputs, axes[1].outputs, w_shape[3])
    if gy.shape != expected:
        raise ValueError(f"conv2d: gy must have shape {expected}, got {gy.shape}")
