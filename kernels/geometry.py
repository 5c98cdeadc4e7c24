"""The arithmetic of windows that slide over a map: sizes of outputs, padding, dilation.

Legend used in all kernels: x is (N, H, W, C); a window is KH x KW; OH x OW outputs; O output channels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

Pair = int | tuple[int, int]
Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def pair(value: Pair) -> tuple[int, int]:
    """(height, width) of an option that may be one number for both."""
    return (int(value), int(value)) if not isinstance(value, (tuple, list)) else (int(value[0]), int(value[1]))


def padding(value: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) of a padding given as p, (ph, pw) or in full."""
    h, w = value if isinstance(value, (tuple, list)) else (value, value)
    return (pair(h), pair(w))


class Axis(NamedTuple):
    """Windows along one axis: window i covers input positions i*stride - before + k*dilation, k < size."""

    length: int  # input positions
    size: int  # kernel taps
    stride: int
    before: int  # padding in front
    after: int  # padding behind
    dilation: int
    outputs: int  # how many windows


@functools.lru_cache(maxsize=4096)  # a network asks for the same few at every step
def axis(length: int, size: int, stride: int, pads: tuple[int, int], dilation: int = 1, ceil: bool = False) -> Axis:
    """The windows along one axis of `length` inputs.

    `ceil` rounds their number up, then drops a last window that starts wholly in padding (Caffe's rule).
    `outputs` is 0 or negative where the window does not fit; the ops turn that into an error.
    """
    before, after = pads
    room = length + before + after - dilation * (size - 1) - 1
    outputs = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (outputs - 1) * stride >= length + before:
        outputs -= 1
    return Axis(length, size, stride, before, after, dilation, outputs)


def windows(
    shape: tuple[int, ...],
    size: Pair,
    stride: Pair | None = None,
    pad: Padding = 0,
    dilation: Pair = 1,
    ceil: bool = False,
) -> tuple[Axis, Axis]:
    """The two axes, (rows, columns), of windows over x of `shape` (N, H, W, C); `stride` None is the window's size."""
    strides = pair(size if stride is None else stride)
    sizes, pads, dilations = pair(size), padding(pad), pair(dilation)
    return (
        axis(shape[1], sizes[0], strides[0], pads[0], dilations[0], ceil),
        axis(shape[2], sizes[1], strides[1], pads[1], dilations[1], ceil),
    )


def phases(axis: Axis) -> Iterator[tuple[int, list[int], Axis]]:
    """How the gradient of an axis is convolved, in pieces: (first position, taps, windows over the outputs).

    Window o holds position h with its tap k where h = o·stride − before + k·dilation. Positions a multiple of the
    stride apart share their taps (in descending order here, so that the outputs which these belong to ascend), and the
    outputs move along with the positions: they are under windows of stride 1, one for each position.
    """
    for start in range(min(axis.stride, axis.length)):
        reach = start + axis.before
        taps = [k for k in reversed(range(axis.size)) if (reach - k * axis.dilation) % axis.stride == 0]
        places = [(reach - k * axis.dilation) // axis.stride for k in taps]  # in gy, seen from `start`: evenly spaced
        before, spacing = -places[0] if places else 0, places[1] - places[0] if len(places) > 1 else 1
        positions = len(range(start, axis.length, axis.stride))
        yield start, taps, Axis(axis.outputs, len(taps), 1, before, 0, spacing, positions)
