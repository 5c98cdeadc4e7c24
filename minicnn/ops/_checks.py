"""What ops check before a kernel runs: one line that names the op, the argument, what was given and what is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.geometry import Padding, Pair, windows
from minicnn._mixing import fits


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def array(op: str, name: str, a: Any, layout: str) -> None:
    """`a` is a floating-point array, not empty, with the axes of `layout`: "(N, H, W, C)", "(..., C)", "(...)"."""
    if not hasattr(a, "dtype"):
        raise TypeError(f"{op}: {name} must be an array {layout}, got {type(a).__name__}")
    if a.dtype.kind != "f":
        raise TypeError(f"{op}: {name} must be floating point, got {a.dtype}; convert it with .astype(numpy.float32)")
    axes = layout.count(",") + 1
    fits = a.ndim >= axes - 1 if "..." in layout else a.ndim == axes
    require(fits, f"{op}: {name} must be {layout}, got shape {a.shape}")
    require(a.size > 0, f"{op}: {name} is empty, shape {a.shape}")


def vector(op: str, name: str, v: Any, like: Any, length: int, of_what: str, *, statistic: bool = False) -> None:
    """`v` has one element for each channel, in the dtype of `like`; a statistic may be float32 beside float16."""
    array(op, name, v, "(...)")
    require(v.shape == (length,), f"{op}: {name} must be ({length},), one for each {of_what}, got shape {v.shape}")
    if v.dtype != like.dtype and not (statistic and fits(v.dtype, like.dtype)):
        raise ValueError(f"{op}: {name} is {v.dtype} but x is {like.dtype}; convert one with .astype")


def _from(least: int) -> Callable[[Any], bool]:
    return lambda n: isinstance(n, int | np.integer) and not isinstance(n, bool) and bool(n >= least)


def _is_one_or_two(value: Any, is_part: Callable[[Any], bool]) -> bool:
    return is_part(value) or (isinstance(value, tuple | list) and len(value) == 2 and all(map(is_part, value)))


def whole(op: str, name: str, value: Any, least: int) -> None:
    """An option that is a whole number."""
    require(_from(least)(value), f"{op}: {name} must be a whole number from {least} on, got {value!r}")


def whole_or_pair(op: str, name: str, value: Any, least: int = 1) -> None:
    """An option for rows and columns: one whole number for both, or one for each."""
    message = f"{op}: {name} must be a whole number from {least} on, or a pair of them, got {value!r}"
    require(_is_one_or_two(value, _from(least)), message)


def window(
    op: str, shape: tuple[int, ...], size: Pair, stride: Pair, pad: Padding, dilation: Pair = 1, ceil: bool = False
) -> None:
    """Windows of `size` fit over x of `shape`, at least one."""
    whole_or_pair(op, "size", size)
    whole_or_pair(op, "stride", stride)
    whole_or_pair(op, "dilation", dilation)
    require(
        _is_one_or_two(pad, lambda part: _is_one_or_two(part, _from(0))),
        f"{op}: pad must be a whole number from 0 on, (h, w) or ((top, bottom), (left, right)), got {pad!r}",
    )
    axes = windows(shape, size, stride, pad, dilation, ceil)
    if min(axis.outputs for axis in axes) < 1:
        reach = "x".join(str((axis.size - 1) * axis.dilation + 1) for axis in axes)
        padded = "x".join(str(axis.before + axis.length + axis.after) for axis in axes)
        raise ValueError(f"{op}: the window, {reach}, is larger than the padded map, {padded} (x: {shape}, pad: {pad})")


def pool_window(op: str, shape: tuple[int, ...], size: Pair, stride: Pair, pad: Padding, ceil: bool) -> None:
    """As `window`, and every window has an element of x: none lies in the padding alone."""
    window(op, shape, size, stride, pad, ceil=ceil)
    for axis in windows(shape, size, stride, pad):
        require(
            max(axis.before, axis.after) < axis.size,
            f"{op}: pad must be smaller than the window, got pad {pad} for size {size}",
        )
