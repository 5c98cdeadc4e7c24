"""What a network makes of the centre of each image: the single crop on which validation and most tests are done."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minicnn import Tensor, device, models, no_grad, ops
from minicnn.data import Dataset, Loader, augment, pixels
from minicnn.data.loader import Augment
from minicnn.evaluate.progress import Watch
from minicnn.layers import evaluation

PIXELS, IMAGES = 2**20, 256  # that a network sees at a time, at most: this bounds the memory


def together(height: int, width: int) -> int:
    """How many images of that size a network sees at a time."""
    return min(max(PIXELS // (height * width), 1), IMAGES)


def fitted(size: int) -> Augment:
    """Makes images fit a network for `size` pixels: of larger ones the middle, smaller ones enlarged."""

    def fit(images: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return augment.centre_crop(images, size=size) if images.shape[1] > size else pixels.resize(images, size)

    return fit


def batches(dataset: Dataset, size: int) -> Loader:
    """The images of a data set in order, as a network for `size` pixels is tested on them, about a million at a time.

    Of larger images it sees the middle, smaller ones are enlarged.
    """
    return Loader(dataset, min(together(size, size), len(dataset)), augment=fitted(size), shuffle=False)


def accuracy_and_loss(
    model: models.Model, images: Dataset | Iterable[tuple[np.ndarray, np.ndarray]], *, on: str = "cpu"
) -> dict[str, float]:
    """{"accuracy", "loss"} of a model over a data set or batches of it; the model's mode is put back afterwards."""
    right, loss, count = 0, 0.0, 0
    with no_grad(), evaluation(model):
        for x, labels in batches(images, model.image_size) if isinstance(images, Dataset) else images:
            logits, y = model(Tensor(device.to(x, on))), device.to(labels, on)
            loss += ops.cross_entropy(logits, y, reduction="sum").item()
            right += int((logits.data.argmax(axis=1) == y).sum())
            count += len(labels)
    return {"accuracy": right / max(count, 1), "loss": loss / max(count, 1)}


def predictions(
    model: models.Model, dataset: Dataset, *, on: str = "cpu", watch: Watch = iter
) -> tuple[np.ndarray, np.ndarray]:
    """The logits (N, classes) of a model in evaluation mode for every image of a data set, and the labels (N,).

    `watch` is put around the batches, as a progress bar.
    """
    with no_grad(), evaluation(model):
        pairs = [(model(Tensor(device.to(x, on))).numpy(), y) for x, y in watch(batches(dataset, model.image_size))]
    if not pairs:
        raise ValueError(f"{dataset.name}: none of its {len(dataset)} images can be read")
    logits, labels = zip(*pairs, strict=True)
    return np.concatenate(logits), np.concatenate(labels)
