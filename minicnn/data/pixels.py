"""Resampling images: the one place where Pillow's resize is called."""

from __future__ import annotations

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, fractions allowed


def resample(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The part of an image inside `box`, resampled to a square: (H, W, C) uint8 -> (size, size, C) uint8.

    Bilinear, with a filter that widens when it shrinks, so that nothing aliases.
    """
    if image.shape[2] == 3:
        return np.asarray(resample_picture(Image.fromarray(image), box, size))
    channels = (Image.fromarray(image[..., c]) for c in range(image.shape[2]))
    return np.stack([np.asarray(resample_picture(channel, box, size)) for channel in channels], axis=-1)


def resample_picture(picture: Image.Image, box: Box, size: int) -> Image.Image:
    """The same for a Pillow image."""
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=box)


def centred_square(width: int, height: int) -> Box:
    """The largest square in the middle of an image."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """The centred square of each image at another size: (N, H, W, C) -> (N, size, size, C), uint8."""
    height, width = images.shape[1:3]
    if height == width == size:
        return images
    return np.stack([resample(image, centred_square(width, height), size) for image in images])
