"""How the papers looked at an image when they tested it: which parts of it, at which sizes, mirrored or not.

An image is scaled until its shorter side has so many pixels, and crops of the network's size are cut out of it; or the
network, sliding over all of it, looks everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minicnn.data import Dataset
from minicnn.data.folder import ImageFiles
from minicnn.data.pixels import resample

Image = np.ndarray  # uint8 (H, W, C)
Crops = np.ndarray  # uint8 (K, size, size, C)


def centre(image: Image, size: int) -> Crops:
    """The middle."""
    h, w = image.shape[:2]
    return _cut(image, (h - size) // 2, (w - size) // 2, size)[None]


def ten(image: Image, size: int) -> Crops:
    """The four corners and the centre of the middle square, and their mirror images.

    Source: Krizhevsky et al. 2012, "ImageNet classification", §4.1; ResNet's 10-crop figures are made like this.
    """
    return _and_mirrored(_corners_and_centre(_squares(image)[1], size))


def grid(image: Image, size: int, places: int = 5) -> Crops:
    """A regular grid over the whole image, and the mirror images: fifty crops.

    Source: Simonyan & Zisserman 2014 (arXiv 1409.1556), §3.2 and §4.3.
    """
    tops, lefts = (np.linspace(0, side - size, places).round().astype(int) for side in image.shape[:2])
    return _and_mirrored([_cut(image, top, left, size) for top in tops for left in lefts])


def inception(image: Image, size: int) -> Crops:
    """Of the left, middle and right square the corners, the centre and the whole, shrunk, and all mirrored: 36.

    Of an upright image the top, middle and bottom square. Source: Szegedy et al. 2014 (arXiv 1409.4842), §7.
    """
    crops = []
    for square in _squares(image):
        side = len(square)
        crops += [*_corners_and_centre(square, size), resample(square, (0, 0, side, side), size)]
    return _and_mirrored(crops)


def _cut(image: Image, top: int, left: int, size: int) -> Image:
    return image[top : top + size, left : left + size]


def _squares(image: Image) -> list[Image]:
    """The largest squares at the beginning, in the middle and at the end of an image's longer side."""
    h, w = image.shape[:2]
    side, room = min(h, w), max(h, w) - min(h, w)
    return [_cut(image, at if h > w else 0, at if w > h else 0, side) for at in (0, room // 2, room)]


def _corners_and_centre(square: Image, size: int) -> list[Image]:
    end = len(square) - size
    places = [(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]
    return [_cut(square, top, left, size) for top, left in places]


def _and_mirrored(crops: Sequence[Image]) -> Crops:
    straight = np.stack(crops)
    return np.concatenate([straight, straight[:, :, ::-1]])


class Protocol(NamedTuple):
    """How crops are cut, how many there are at one scale, and the scales, as multiples of 1/7 of the side of a crop."""

    cut: Callable[[Image, int], Crops]
    number: int
    sevenths: tuple[int, ...] = (8,)  # 256 for 224


# By how many crops the paper says it takes.
PROTOCOLS = {
    1: Protocol(centre, 1),
    10: Protocol(ten, 10),
    50: Protocol(grid, 50),
    144: Protocol(inception, 36, (8, 9, 10, 11)),  # 256, 288, 320 and 352 for 224
}


class Views(NamedTuple):
    """What a network for `size` pixels sees of an image: crops, or without `protocol` all of it, straight and mirrored.

    scales   the length of the image's shorter side, one or several in turn
    pad      black pixels around the scaled image, of which crops may show some
    """

    protocol: Protocol | None
    size: int
    scales: tuple[int, ...]
    pad: int = 0

    def of(self, dataset: Dataset, index: int) -> list[np.ndarray]:
        """The views of an image, uint8 (K, H, W, C) for each scale; none of a corrupt file that is skipped."""
        views = []
        for image in dataset.whole(index, self.scales):
            if self.pad:
                image = np.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
            views.append(self.protocol.cut(image, self.size) if self.protocol else _and_mirrored([image]))
        return views

    def __str__(self) -> str:
        scales = ", ".join(map(str, self.scales))
        padded = f", padded by {self.pad}" if self.pad else ""
        if self.protocol is None:
            what = "the whole image and its mirror image"
        else:
            number = self.protocol.number * len(self.scales)
            what = f"{number} crop{'s' if number > 1 else ''} of {self.size}×{self.size} pixels"
        return f"{what}, shorter side {scales}{padded}"


def choose(
    crops: int | None,
    size: int,
    *,
    scales: Sequence[int] = (),
    pad: int | None = None,
    dataset: Dataset | None = None,
) -> Views:
    """The views of a network for `size` pixels: 1, 10, 50 or 144 `crops`, or with None the whole image, densely.

    `scales` are by default the papers': of a network for 224 pixels 256, for 144 crops also 288, 320 and 352, and for
    another size in proportion. Images of a `dataset` that are stored at one size, such as CIFAR's, are not enlarged for
    that, except for 144 crops: a network that has learned from them knows them as large as they are. Where they are no
    larger than the network, `pad` black pixels around give crops room, by default a 14th of its size.

    ValueError where crops do not fit into the image, or would all be the same one.
    """
    if crops is not None and crops not in PROTOCOLS:
        raise ValueError(f"choose: crops must be one of {', '.join(map(str, PROTOCOLS))} or None, got {crops}")
    protocol = None if crops is None else PROTOCOLS[crops]
    sevenths = protocol.sevenths if protocol else (8,)
    stored = dataset.image_size if dataset and not isinstance(dataset.images, ImageFiles) else 0
    if not scales and stored >= size and len(sevenths) == 1:
        scales = (stored,)
        if pad is None and stored == size and crops not in (None, 1):
            pad = round(size / 14)
    scales, pad = tuple(scales) or tuple(round(size * n / 7) for n in sevenths), pad or 0
    for scale in scales if protocol else ():
        room = f"{scale} pixels" + (f" and {pad} around them" if pad else "")
        if scale + 2 * pad < size:
            raise ValueError(f"crops of {size} pixels do not fit into images of {room}; scale more")
        if crops != 1 and scale + 2 * pad == size:
            raise ValueError(
                f"of images of {room} all crops of {size} are the same; a larger scale or padding makes them differ"
            )
    return Views(protocol, size, scales, pad)
