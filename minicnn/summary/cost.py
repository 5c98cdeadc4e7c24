"""What convolutions cost, counted from their sizes: which is cheaper, three 3x3 or one 7x7?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

GRAMMAR = (
    "write layers as 'conv KxK C->O', with /STRIDE behind KxK and xN behind O where wanted, or 'pool KxK/STRIDE'; "
    "',' joins layers in a row, '|' branches whose results are concatenated"
)
_NUMBER = "([1-9][0-9]*)"
_WINDOW = rf"{_NUMBER}x{_NUMBER}(?:/{_NUMBER})?"
_CONV = re.compile(rf"conv +{_WINDOW} +{_NUMBER} *-> *{_NUMBER}(?: *x *{_NUMBER})?")
_POOL = re.compile(rf"pool +{_WINDOW}")


class Cost(NamedTuple):
    """What layers cost for one image: how many numbers, not bytes."""

    weights: int  # trained; of a model all its parameters, of layers that are written down without biases
    multiply_adds: int  # of convolutions and matrix products
    activations: int  # that convolutions put out: what training has to store
    receptive_field: int  # side in pixels, the longer one, of what one place of the result sees of the input
    columns: int  # of the largest im2col buffer; a 1x1 convolution of stride 1 needs none


class Reach(NamedTuple):
    """What the places of a map see of the image: each (height, width) in pixels."""

    sees: tuple[int, int] = (1, 1)  # one place
    step: tuple[int, int] = (1, 1)  # from one place to the next

    def through(self, window: tuple[int, int], stride: tuple[int, int]) -> Reach:
        """After a window that slides over the map: it adds its own places but one, each a step from the last."""
        (h, w), (dh, dw) = self
        return Reach(
            (h + (window[0] - 1) * dh, w + (window[1] - 1) * dw),
            (dh * stride[0], dw * stride[1]),
        )


class Layer(NamedTuple):
    """A convolution, or a pool, which has no channels of its own; padded so that a stride of 1 keeps the map's size."""

    window: tuple[int, int]
    stride: int
    channels: tuple[int, int] | None = None  # in, out


def cost(layers: str, size: int = 56) -> Cost:
    """The cost of `layers`, written down, on a square map of `size` pixels: cost("conv 3x3 64->64 x3") and so on.

    A layer is `conv KxK C->O`: a KxK convolution from C to O channels; KxK may be 1x7. `/S` behind it is its stride,
    and `xN` at the end repeats it: N - 1 more from O to O channels, of stride 1. `pool KxK/S` is a pool, which costs
    nothing, but shrinks the map and widens what is seen. `,` separates layers in a row; `|` separates branches that
    all see the same map, and whose costs add up. Maps are padded: a layer of stride S leaves ⌈size / S⌉ pixels.

    ValueError with the grammar for what cannot be read, and for channels that do not fit. Exact: no network is run.
    """
    if size < 1:
        raise ValueError(f"cost: size must be at least 1, got {size}")
    branches = [_row(list(_layers(branch)), size) for branch in layers.split("|")]
    weights, multiply_adds, activations, fields, columns = zip(*branches, strict=True)
    return Cost(sum(weights), sum(multiply_adds), sum(activations), max(fields), max(columns))


def _row(layers: list[Layer], side: int) -> Cost:
    """The cost of layers one after another."""
    weights = multiply_adds = activations = columns = 0
    reach = Reach()
    for layer in layers:
        side = -(-side // layer.stride)
        reach = reach.through(layer.window, (layer.stride, layer.stride))
        if layer.channels is not None:
            taps, (c, o) = layer.window[0] * layer.window[1], layer.channels
            weights += taps * c * o
            multiply_adds += side**2 * taps * c * o
            activations += side**2 * o
            columns = max(columns, columns_of(side**2, taps, c, layer.stride))
    return Cost(weights, multiply_adds, activations, max(reach.sees), columns)


def columns_of(places: int, taps: int, channels: int, stride: int) -> int:
    """The numbers in the im2col buffer of a convolution with `taps` weights per channel at so many places."""
    return 0 if taps == stride == 1 else places * taps * channels


def _layers(text: str) -> Iterator[Layer]:
    """The layers that a branch is written down as, with xN written out."""
    channels = None  # of the map so far, where that is known
    for part in text.split(","):
        if pool := _POOL.fullmatch(part.strip()):
            kh, kw, stride = (int(number or 1) for number in pool.groups())
            yield Layer((kh, kw), stride)
        elif conv := _CONV.fullmatch(part.strip()):
            kh, kw, stride, c, o, times = (int(number or 1) for number in conv.groups())
            if channels not in (None, c):
                raise ValueError(f"cost: {part.strip()!r} takes {c} channels, but the layer before it makes {channels}")
            yield Layer((kh, kw), stride, (c, o))
            for _ in range(times - 1):
                yield Layer((kh, kw), 1, (o, o))
            channels = o
        else:
            raise ValueError(f"cost: {part.strip()!r} is not a layer; {GRAMMAR}")
