"""Resampling images: the one place where Pillow's resize is called."""

from __future__ import annotations

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, fractions allowed
Size = int | tuple[int, int]  # of a square, or (width, height)
LONGEST = 4  # times as long as it is wide: what `whole` shows of an image


def resample(image: np.ndarray, box: Box, size: Size) -> np.ndarray:
    """The part of an image inside `box`, resampled: (H, W, C) uint8 -> (size, size, C) or (height, width, C) uint8.

    Bilinear, with a filter that widens when it shrinks, so that nothing aliases.
    """
    if image.shape[2] == 3:
        return np.asarray(resample_picture(Image.fromarray(image), box, size))
    channels = (Image.fromarray(image[..., c]) for c in range(image.shape[2]))
    return np.stack([np.asarray(resample_picture(channel, box, size)) for channel in channels], axis=-1)


def resample_picture(picture: Image.Image, box: Box, size: Size) -> Image.Image:
    """The same for a Pillow image."""
    return picture.resize((size, size) if isinstance(size, int) else size, Image.Resampling.BILINEAR, box=box)


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


def whole(image: np.ndarray, side: int) -> np.ndarray:
    """All of an image, resampled so that its shorter side has `side` pixels: (H, W, C) uint8 -> (H', W', C).

    Of an image more than LONGEST times as long as it is wide, that much in its middle: a network that looks at all of
    an image needs memory for it.
    """
    height, width = image.shape[:2]
    most = LONGEST * min(height, width)
    w, h = min(width, most), min(height, most)
    left, top = (width - w) / 2, (height - h) / 2
    size = round(w * side / min(w, h)), round(h * side / min(w, h))
    return image if size == (width, height) else resample(image, (left, top, left + w, top + h), size)
