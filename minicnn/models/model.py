"""What the networks of all papers have in common: what they say of themselves, and how they treat small images."""

from __future__ import annotations

from typing import Any

from kernels.geometry import windows
from minicnn.layers import MaxPool, Module

SMALL = 64  # up to this side in pixels, networks made for 224 keep the resolution longer


class Model(Module):
    """A network that `models.build` has made, and that knows how: `models.build(**model.config)` makes another."""

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    config: dict[str, Any]


def side_after(pool: MaxPool, name: str, side: int, image_size: int) -> int:
    """The side of a square map of `side` after a pool; a ValueError naming the pool where nothing is left."""
    rows, _ = windows((1, side, side, 1), pool.size, **pool.options)
    if rows.outputs < 1:
        raise ValueError(
            f"image_size {image_size} is too small: nothing is left of a {side}x{side} map "
            f"after {name}, a {pool.size}x{pool.size} max pool"
        )
    return rows.outputs
