"""Occlusion: hide a part of the image, and see whether the network still knows it."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

import kernels
from kernels import array_module
from minicnn import device
from minicnn.autograd import Array, Tensor, no_grad
from minicnn.evaluate.centre import together
from minicnn.layers import Module, evaluation


class Occlusion(NamedTuple):
    """What the network thinks with each part hidden; cell (i, j) is where the square's centre was."""

    probability: np.ndarray  # (rows, columns) of the class
    said: np.ndarray  # (rows, columns) the class that is the likeliest then
    whole: float  # the probability with nothing hidden


def occlusion_map(
    model: Module, x: Array, label: int, *, size: int | None = None, stride: int | None = None
) -> Occlusion:
    """Slide a grey square over the image: where the probability of the class falls, the network looked at that part.

    If it falls where the object is, the network has found the object; if it falls elsewhere, it knows the class by its
    surroundings. Grey is 0 in x, the mean colour of the training images.

    x (1, H, W, C); `size` is the square's side in pixels (default: a quarter of the image), `stride` how far it moves
    (default: a 16th). The centres lie evenly over the image; at its edge a part of the square is outside.
    ValueError for a square or step below 1 or above the image. Source: Zeiler and Fergus 2013 (arXiv:1311.2901, 4.2).
    """
    height, width = x.shape[1:3]
    size = max(min(height, width) // 4, 1) if size is None else size
    stride = max(min(height, width) // 16, 1) if stride is None else stride
    for what, value in (("square", size), ("step", stride)):
        if not 1 <= value <= max(height, width):
            raise ValueError(f"occlusion_map: the {what} must be 1 to {max(height, width)} pixels, got {value}")
    rows, columns = _spans(height, size, stride), _spans(width, size, stride)
    nothing = slice(0, 0), slice(0, 0)
    squares = [nothing, *itertools.product(rows, columns)]
    count, p = together(height, width), []
    for start in range(0, len(squares), count):
        some = squares[start : start + count]
        images = array_module(x).repeat(x, len(some), axis=0)  # (B, H, W, C)
        for image, square in zip(images, some, strict=True):
            image[square] = 0
        p.append(probabilities(model, images))
    whole, *covered = np.concatenate(p)  # each (classes,)
    table = np.reshape(covered, (len(rows), len(columns), -1))
    return Occlusion(table[..., label], table.argmax(axis=-1), float(whole[label]))


def _spans(length: int, size: int, stride: int) -> list[slice]:
    """What the square covers along one axis, at each of its positions."""
    count = math.ceil(length / stride)
    starts = [math.floor((i + 0.5) * length / count - size / 2 + 0.5) for i in range(count)]
    return [slice(max(start, 0), start + size) for start in starts]


def probabilities(model: Module, x: Array) -> np.ndarray:
    """The softmax of the model's scores: x (N, H, W, C) -> (N, classes), for each image they add up to 1."""
    with no_grad(), evaluation(model):
        scores = model(Tensor(x))
    scores = scores[0] if isinstance(scores, tuple) else scores
    return device.to(kernels.of(scores.data).softmax(scores.data), "cpu")
