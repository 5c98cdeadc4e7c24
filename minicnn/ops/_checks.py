"""What ops check before a kernel runs: one line that names the op, the argument, what was given and what is needed."""

from __future__ import annotations

from typing import Any

from kernels.geometry import Axis, Padding, Pair, padding, pair, windows


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def maps(op: str, x: Any) -> None:
    """x is a batch of maps."""
    require(x.ndim == 4, f"{op}: x must be (N, H, W, C), got shape {x.shape}")


def vector(op: str, name: str, v: Any, length: int, of_what: str) -> None:
    """v has one element for each channel."""
    require(v.shape == (length,), f"{op}: {name} must be ({length},), one for each {of_what}, got shape {v.shape}")


def window(
    op: str,
    shape: tuple[int, ...],
    size: Pair,
    stride: Pair | None,
    pad: Padding,
    dilation: Pair = 1,
    ceil: bool = False,
) -> tuple[Axis, Axis]:
    """The windows of `size` over x of `shape`; there is at least one."""
    numbers = {"size": pair(size), "stride": pair(size if stride is None else stride), "dilation": pair(dilation)}
    for name, value in numbers.items():
        require(min(value) >= 1, f"{op}: {name} must be at least 1, got {value}")
    pads = padding(pad)
    require(min(map(min, pads)) >= 0, f"{op}: pad must not be negative, got {pad}")
    rows, cols = windows(shape, size, stride, pad, dilation, ceil)
    reach = tuple((axis.size - 1) * axis.dilation + 1 for axis in (rows, cols))
    padded = tuple(axis.before + axis.length + axis.after for axis in (rows, cols))
    require(
        rows.outputs >= 1 and cols.outputs >= 1,
        f"{op}: the window spans {reach[0]}x{reach[1]} but the padded map is only {padded[0]}x{padded[1]} "
        f"(x: {shape}, size: {numbers['size']}, pad: {pads})",
    )
    return rows, cols


def pool_window(
    op: str, shape: tuple[int, ...], size: Pair, stride: Pair | None, pad: Padding, ceil: bool
) -> tuple[Axis, Axis]:
    """As `window`, and no window lies in the padding alone: it would have no element."""
    rows, cols = window(op, shape, size, stride, pad, 1, ceil)
    for axis in (rows, cols):
        require(
            max(axis.before, axis.after) < axis.size,
            f"{op}: pad {(axis.before, axis.after)} must be smaller than the window, {axis.size}",
        )
    return rows, cols
