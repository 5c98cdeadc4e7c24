"""Augmentation: each a function of (images, generator) that returns a new batch of uint8 images (N, H, W, C).

What is drawn comes from the generator alone, so a batch is the same whenever its generator is. On the command line they
are chained by name: `--augment crop:4,flip,cutout:8` (see `parse`). All keep the size of the images, except where an
option `size` asks for another one. `normalise` comes last and makes floating-point numbers.

A device can crop, flip and normalise by itself, in one kernel, `crop_flip_normalise`: `Pipeline.ending` and
`Pipeline.moves` are for that. What is drawn, and what comes out, is the same.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from minicnn.data.pixels import Box, resample

Images = np.ndarray
Generator = np.random.Generator

# Of the RGB values of ImageNet's training images, as fractions; one eigenvector a column.
# Source: the constants published with facebookarchive/fb.resnet.torch (datasets/imagenet.lua).
RGB_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
RGB_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def random_crop(images: Images, generator: Generator, *, pad: int = 4) -> Images:
    """Pad each image with `pad` black pixels on every side and cut a random window of the old size out of it.

    Source: He et al. 2015, "Deep residual learning", §4.2 (4 pixels on CIFAR-10).
    """
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return _windows(padded, _corners(len(images), generator, pad), images.shape[1])


def shift(images: Images, generator: Generator, *, pixels: int = 1) -> Images:
    """Move each image by up to `pixels` in each direction; what is uncovered repeats the pixel at the edge.

    Source: Simard et al. 2003, "Best practices for convolutional neural networks", §2 (translations).
    """
    padding = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    return _windows(np.pad(images, padding, mode="edge"), _corners(len(images), generator, pixels), images.shape[1])


def flip(images: Images, generator: Generator) -> Images:
    """Mirror each image left to right with probability one half.

    Source: Krizhevsky et al. 2012, "ImageNet classification", §4.1.
    """
    mirrored = _mirrored(len(images), generator)
    flipped = images.copy()
    flipped[mirrored] = images[mirrored, :, ::-1]
    return flipped


def random_resized_crop(images: Images, generator: Generator, *, size: int | None = None) -> Images:
    """Cut out 8 to 100 % of each image's area at an aspect ratio of 3/4 to 4/3, and resample it to `size` squared.

    Of ten boxes drawn the first that fits is used, the whole image if none does.
    Source: Szegedy et al. 2014, "Going deeper with convolutions", §6.
    """
    n, side = images.shape[:2]
    area = generator.uniform(0.08, 1, (10, n)) * side**2
    aspect = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3), (10, n)))  # symmetric: 3/4 as likely as 4/3
    widths, heights = np.sqrt(area * aspect), np.sqrt(area / aspect)  # (10, N)
    fits = (widths <= side) & (heights <= side)
    first = fits.argmax(axis=0), np.arange(n)
    width, height = (np.where(fits.any(axis=0), lengths[first], side) for lengths in (widths, heights))  # (N,)
    left, top = generator.random(n) * (side - width), generator.random(n) * (side - height)
    return _resample(images, left, top, width, height, size or side)


def scale_jitter(images: Images, generator: Generator, *, low: int = 256, high: int = 512, size: int = 224) -> Images:
    """Scale each image to a random side in [low, high] and cut a random window of `size` squared out of it.

    Source: Simonyan & Zisserman 2014, "Very deep convolutional networks", §3.1 (S in [256, 512], 224).
    """
    if not size <= low <= high:
        raise ValueError(f"scale_jitter: needs size <= low <= high, got size {size}, low {low}, high {high}")
    n, side = images.shape[:2]
    scaled = generator.integers(low, high + 1, n)  # the side S of each image after scaling
    x, y = generator.integers(0, scaled - size + 1), generator.integers(0, scaled - size + 1)  # of the window, after it
    unscale = side / scaled
    return _resample(images, x * unscale, y * unscale, size * unscale, size * unscale, size)


def centre_crop(images: Images, generator: Generator | None = None, *, size: int = 224) -> Images:
    """The middle of each image, `size` squared: how images that were trained on random crops are tested.

    Source: Krizhevsky et al. 2012, "ImageNet classification", §4.1. Nothing is drawn from the generator.
    """
    side = images.shape[1]
    if size > side:
        raise ValueError(f"centre_crop: size {size} is larger than the images, {side}×{side}")
    start = (side - size) // 2
    return images[:, start : start + size, start : start + size].copy()


def alexnet_colour(images: Images, generator: Generator, *, strength: float = 0.1) -> Images:
    """Shift the colours of each image along the principal components of ImageNet's RGB values.

    The shift is Σ αᵢ λᵢ pᵢ with αᵢ drawn from N(0, strength²) once an image; needs three channels.
    Source: Krizhevsky et al. 2012, "ImageNet classification", §4.1 (strength 0.1).
    """
    if images.shape[3] != 3:
        raise ValueError(f"alexnet_colour: needs images with 3 channels, these have {images.shape[3]}")
    alpha = generator.normal(0, strength, (len(images), 3))
    colour = 255 * (alpha * RGB_EIGENVALUES) @ RGB_EIGENVECTORS.T  # (N, RGB)
    shifted = images + colour[:, None, None, :].astype(np.float32)
    return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


def cutout(images: Images, generator: Generator, *, size: int = 8) -> Images:
    """Blot out a square of `size` pixels, centred anywhere in each image, so that part of it may lie outside.

    It is filled with the mean colour of the batch, which is about zero once normalised.
    Source: DeVries & Taylor 2017, "Improved regularization of convolutional neural networks with cutout", §3.2.
    """
    n, side = images.shape[:2]
    position = np.arange(side)
    centres = generator.integers(0, side, (2, n, 1))
    start = centres - size // 2
    rows, columns = (position >= start) & (position < start + size)  # (N, H), (N, W)
    hidden = (rows[:, :, None] & columns[:, None, :])[..., None]  # (N, H, W, 1)
    return np.where(hidden, np.rint(images.mean(axis=(0, 1, 2))).astype(np.uint8), images)


def normalise(images: Images, mean: np.ndarray, std: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """Pixels as fractions, minus the mean, over the standard deviation of their channel: uint8 in, `dtype` out.

    mean and std (C,) are those of the training images, as a Dataset holds them. A half is rounded to at the end.
    """
    wide = np.promote_types(dtype, np.float32)
    mean, std = mean.astype(wide), std.astype(wide)
    normalised = images.astype(wide)
    normalised *= 1 / (255 * std)
    normalised -= mean / std
    return normalised.astype(dtype, copy=False)


def _corners(n: int, generator: Generator, pad: int) -> np.ndarray:
    """Row and column (N, 2) where a random window begins, of each image that is padded by `pad` on every side."""
    return generator.integers(0, 2 * pad + 1, (n, 2))


def _mirrored(n: int, generator: Generator) -> np.ndarray:
    """Which images are mirrored (N,): each with probability one half."""
    return generator.random(n) < 0.5


def _windows(padded: Images, corners: np.ndarray, side: int) -> Images:
    """The window of side × side pixels of each image that begins at its corner."""
    return np.stack([image[y : y + side, x : x + side] for image, (y, x) in zip(padded, corners, strict=True)])


def _resample(images: Images, left: Any, top: Any, width: Any, height: Any, size: int) -> Images:
    """One box of each image, resampled to size × size."""
    boxes = np.stack([left, top, left + width, top + height], axis=1)  # (N, 4)
    boxes = np.minimum(boxes, images.shape[1])  # rounding may lead a hair's breadth outside
    return np.stack([resample(image, _box(box), size) for image, box in zip(images, boxes, strict=True)])


def _box(box: np.ndarray) -> Box:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


MOVES = (random_crop, flip)  # what `crop_flip_normalise` can do


class Step(NamedTuple):
    """One augmentation with its options filled in, and how it was written."""

    function: Callable[..., Images]
    options: dict[str, Any]
    text: str


STEPS: dict[str, Callable[..., Images]] = {
    "crop": random_crop,
    "shift": shift,
    "flip": flip,
    "resized-crop": random_resized_crop,
    "scale-jitter": scale_jitter,
    "centre-crop": centre_crop,
    "colour": alexnet_colour,
    "cutout": cutout,
}


class Moves(NamedTuple):
    """A crop and a flip of each image of a batch that have been drawn and not yet made."""

    corners: np.ndarray  # (N, 2) int32: row and column where its window begins, negative in the padding
    mirrored: np.ndarray  # (N,) bool


class Pipeline:
    """Augmentations one after another: `pipeline(images, generator)`; `str(pipeline)` is what `parse` understands."""

    def __init__(self, steps: Iterable[Step]):
        self.steps = tuple(steps)

    def ending(self) -> tuple[Pipeline, Pipeline]:
        """The pipeline in two: what comes first, and the crop and the flip that it may end with, for `moves`."""
        begin = len(self.steps)
        functions = [step.function for step in self.steps]
        while begin and functions[begin - 1] in MOVES and functions[begin - 1] not in functions[begin:]:
            begin -= 1
        return Pipeline(self.steps[:begin]), Pipeline(self.steps[begin:])

    def moves(self, n: int, generator: Generator) -> Moves:
        """What a pipeline of at most a crop and a flip draws for a batch of n images."""
        corners, mirrored = np.zeros((n, 2), np.int32), np.zeros(n, bool)
        for step in self.steps:
            if step.function is flip:
                mirrored = _mirrored(n, generator)
            else:
                pad = step.options["pad"]
                from_image = _corners(n, generator, pad) - pad
                from_image[mirrored, 1] *= -1  # after a flip, seen from the image as it was before
                corners += from_image
        return Moves(corners, mirrored)

    def __call__(self, images: Images, generator: Generator) -> Images:
        for step in self.steps:
            images = step.function(images, generator, **step.options)
        return images

    def __str__(self) -> str:
        return ",".join(step.text for step in self.steps) or "none"

    def __repr__(self) -> str:
        return f"augment.parse({str(self)!r})"


def parse(text: str) -> Pipeline:
    """A pipeline from the command line: steps joined by commas, each a name and its options in order, joined by colons.

    `parse("crop:4,flip,cutout:8")` pads by 4 and crops, mirrors, and blots out 8 × 8 pixels; options left out have the
    defaults of their functions (`STEPS` names them). "none" and "" do nothing. Raises ValueError for anything else.
    """
    return Pipeline([_parse_step(part.strip()) for part in text.split(",")] if text not in ("", "none") else [])


def _parse_step(text: str) -> Step:
    name, *values = text.split(":")
    if name not in STEPS:
        near = difflib.get_close_matches(name, STEPS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(STEPS)}"
        raise ValueError(f"augment: unknown step {name!r}: {hint}")
    function = STEPS[name]
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if len(values) > len(keywords):
        usage = ":".join((name, *(p.name.upper() for p in keywords)))
        raise ValueError(f"augment: {text!r} has too many values; write {usage}")
    options = {p.name: p.default for p in keywords}
    options |= {p.name: _number(text, value, type(p.default)) for p, value in zip(keywords, values, strict=False)}
    return Step(function, options, text)


def _number(text: str, value: str, kind: type) -> float:
    """A positive number: a fraction where the default is one, otherwise whole."""
    try:
        number = float(value) if kind is float else int(value)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise ValueError(f"augment: {text!r}: {value!r} is not a positive {'' if kind is float else 'whole '}number")
    return number
