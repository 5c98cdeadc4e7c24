"""What the networks of all papers have in common: what they say of themselves, and how they treat small images."""

from __future__ import annotations

import math
from typing import Any

from kernels.geometry import windows
from minicnn.layers import AvgPool, Conv2d, Dropout, Linear, MaxPool, Module, ReLU, Sequential

SMALL = 64  # up to this side in pixels, networks made for 224 keep the resolution longer


class Model(Module):
    """A network that `models.build` has made, and that knows how: `models.build(**model.config)` makes another."""

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    config: dict[str, Any]


def side_after(layer: Conv2d | MaxPool | AvgPool, name: str, side: int, image_size: int) -> int:
    """The side of a square map of `side` after a layer with windows; a ValueError naming it where nothing is left."""
    size = layer.weight.shape[0] if isinstance(layer, Conv2d) else layer.size
    of_windows = ("stride", "pad", "dilation", "ceil")
    options = {key: value for key, value in layer.options.items() if key in of_windows}
    rows, _ = windows((1, side, side, 1), size, **options)
    if rows.outputs < 1:
        raise ValueError(
            f"image_size {image_size} is too small: nothing is left of a {side}x{side} map "
            f"after {name}, a {size}x{size} {type(layer).__name__}"
        )
    return rows.outputs


def map_after(features: Module, name: str, image_size: int) -> tuple[int, int, int]:
    """The (H, W, C) of the map that a chain of layers makes of an image; a ValueError where nothing is left of it.

    `name` is that of the chain in its network, and begins the names of its layers in the message.
    """
    side, channels = image_size, 0
    for path, layer in features.named_modules(name):
        if isinstance(layer, Conv2d | MaxPool | AvgPool):
            side = side_after(layer, path, side, image_size)
        if isinstance(layer, Conv2d):
            channels = layer.weight.shape[3]
    return side, side, channels


def fully_connected(map_shape: tuple[int, int, int], num_classes: int, image_size: int) -> Sequential:
    """How AlexNet, ZFNet and VGG end: two hidden layers of 4096 units with dropout, or of 512 for small images."""
    hidden = 4096 if image_size > SMALL else 512
    return Sequential(
        Linear(math.prod(map_shape), hidden, from_map=map_shape), ReLU(), Dropout(0.5),
        Linear(hidden, hidden), ReLU(), Dropout(0.5),
        Linear(hidden, num_classes),
    )  # fmt: skip
