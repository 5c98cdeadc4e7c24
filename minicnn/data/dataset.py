"""A data set in memory, or on disk behind the same interface: images, labels, names, and what normalises them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minicnn.data.errors import DataError
from minicnn.data.folder import ImageFiles
from minicnn.data.pixels import whole


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set.

    images   uint8 (N, H, W, C), H = W: an array, or `ImageFiles` that decode when indexed
    labels   int64 (N,), each the number of a class
    classes  the names of the classes
    mean     float32 (C,): of the *training* split's pixels as fractions (0 black, 1 white), whichever split this is
    std      float32 (C,): likewise
    """

    name: str
    images: np.ndarray | ImageFiles
    labels: np.ndarray
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(f"{self.name}: images are {self.images.dtype} {self.images.shape}, not uint8 (N, H, W, C)")
        if len(self.images) != len(self.labels):
            raise DataError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        _, height, width, channels = self.images.shape
        if height != width or 0 in (height, channels):
            raise DataError(f"{self.name}: images of {height}×{width}×{channels} are not square; give image_size")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = f"{self.image_size}×{self.image_size}×{self.channels}"
        return f"Dataset({self.name}: {len(self)} images of {size}, {self.num_classes} classes)"

    @property
    def image_size(self) -> int:
        return self.images.shape[1]

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def corrupt(self) -> list[str]:
        """The files that were skipped so far because they could not be decoded (`load(..., skip_corrupt=True)`)."""
        return sorted(self.images.corrupt) if isinstance(self.images, ImageFiles) else []

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images (B, H, W, C) and labels (B,) at `indices`; fewer where corrupt files are skipped."""
        if isinstance(self.images, ImageFiles):
            images, indices = self.images.read(indices)
            return images, self.labels[indices]
        return self.images[indices], self.labels[indices]

    def whole(self, index: int, sides: Sequence[int]) -> list[np.ndarray]:
        """All of the image at `index`, once for each of `sides`, which its shorter side has: uint8 (H, W, C) each.

        Image files are not cut to their centred square here; each size is resampled from the file's own. Nothing is
        returned where a corrupt file is skipped.
        """
        files = self.images
        image = files.whole(index, max(sides)) if isinstance(files, ImageFiles) else files[index]
        return [] if image is None else [whole(image, side) for side in sides]

    def subset(self, indices: np.ndarray) -> Dataset:
        """The same data set with only the images at `indices`; mean and std stay those of the whole training split."""
        images = self.images.subset(indices) if isinstance(self.images, ImageFiles) else self.images[indices]
        return replace(self, images=images, labels=self.labels[indices])


def split_validation(dataset: Dataset, fraction: float = 0.1, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Carve a validation split out of training data: (training, validation), the same share of every class in both.

    Which images go where depends on `seed` alone. A class with at least two images has one on either side.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"split_validation: fraction must lie between 0 and 1, got {fraction}")
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(dataset), dtype=bool)
    for label in range(dataset.num_classes):
        members = np.flatnonzero(dataset.labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held_out[generator.permutation(members)[: max(count, 0)]] = True
    return dataset.subset(np.flatnonzero(~held_out)), dataset.subset(np.flatnonzero(held_out))


def channel_statistics(images: np.ndarray | ImageFiles) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all pixels, as fractions: two float32 arrays (C,).

    Computed from a histogram of the 256 values, so the result is exact and does not depend on the order of the sum.
    Image files are sampled: 256 of them, evenly spaced. A constant channel gets the deviation 1, for one divides by it.
    """
    if isinstance(images, ImageFiles):
        images, _ = images.read(np.unique(np.linspace(0, len(images) - 1, 256).astype(np.int64)))
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), 1024):  # in pieces: bincount converts its argument to int64
        chunk = images[start : start + 1024]
        for c in range(channels):
            counts[c] += np.bincount(chunk[..., c].ravel(), minlength=256)
    values = np.arange(256) / 255  # (256,)
    weights = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (C, 256)
    mean = weights @ values  # (C,)
    std = np.sqrt(np.maximum(weights @ values**2 - mean**2, 0))  # float64 over exact counts: nothing cancels
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1).astype(np.float32)
