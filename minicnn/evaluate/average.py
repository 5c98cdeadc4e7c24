"""What a network makes of all the views of an image: the mean of what it believes at each of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from minicnn import Tensor, device, models, no_grad
from minicnn.data import Dataset, augment
from minicnn.evaluate.centre import IMAGES, together
from minicnn.evaluate.progress import Watch
from minicnn.evaluate.views import Views
from minicnn.layers import Linear, Module, Sequential, evaluation
from minicnn.models.dense import Dense

AHEAD = 4  # images whose views are cut while the network looks at earlier ones

Seen = tuple[int, list[np.ndarray]]  # the index of an image, and its views


def scores(
    model: models.Model, dataset: Dataset, views: Views, *, on: str = "cpu", watch: Watch = iter
) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities (N, classes) that a model gives the classes of each image, and the labels (N,).

    They are means of the softmax over all views of an image, as all the papers average: each view has one vote to
    share out, where logits would let the loudest view decide. Only over the places of one image that a network sees
    densely its class scores are averaged before the softmax (VGG, §3.2), for there a global average does the same.

    The model is used in evaluation mode, and its modes are put back. Views are stacked to batches of bounded size.
    Corrupt files that are skipped have no row. `watch` is put around the indices, as a progress bar.
    """
    network = dense(model) if views.protocol is None else model
    sums, counts = np.zeros((len(dataset), model.num_classes)), np.zeros((len(dataset), 1))
    with no_grad(), evaluation(network):
        for owners, images in _batches(_ahead(dataset, views, watch(range(len(dataset))))):
            x = augment.normalise(images, dataset.mean, dataset.std)
            np.add.at(sums, owners, softmax(_logits(network, model, x, on)))
            np.add.at(counts, owners, 1)
    seen = counts[:, 0] > 0
    if not seen.any():
        raise ValueError(f"{dataset.name}: none of its {len(dataset)} images can be read")
    return sums[seen] / counts[seen], dataset.labels[seen]


def dense(model: models.Model) -> Module:
    """The network for images of any size: as `Dense` where it has fully connected layers on a map, else as it is.

    VGG, AlexNet and ZFNet make convolutions of these layers. ResNet, GoogLeNet, NIN and their like average over
    whatever map they get; a linear layer on the mean of a map gives the mean of what it would give everywhere. A
    network that cannot look at images of another size is found out by `scores`.
    """
    classifier, between = getattr(model, "classifier", None), getattr(model, "avgpool", Sequential())
    on_a_map = isinstance(classifier, Sequential) and any(isinstance(f, Linear) and f.from_map for f in classifier)
    return Dense(model) if on_a_map and isinstance(between, Sequential) else model


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over their sum, in float64: (N, classes)."""
    e = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _logits(network: Module, model: models.Model, x: np.ndarray, on: str) -> np.ndarray:
    """(N, classes) of images of any size; ValueError where the network needs its own."""
    own, (h, w) = model.image_size, x.shape[1:3]
    try:
        logits = network(Tensor(device.to(x, on))).numpy()
        reason = "" if logits.shape == (len(x), model.num_classes) else f"its result is {logits.shape}"
    except ValueError as error:
        if (h, w) == (own, own):
            raise
        reason = str(error)
    if reason:
        raise ValueError(
            f"{model.name} cannot look at images of {h}×{w} pixels, made for {own}×{own}: {reason}; use --crops"
        )
    return logits


def _ahead(dataset: Dataset, views: Views, indices: Iterable[int]) -> Iterator[Seen]:
    """Each index and the views of its image, which another thread decodes and cuts."""
    waiting: deque[tuple[int, Future[list[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="minicnn-views") as pool:
        try:
            for index in indices:
                waiting.append((index, pool.submit(views.of, dataset, index)))
                if len(waiting) > AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:  # also when nobody wants the rest
            for _, future in waiting:
                future.cancel()


def _batches(seen: Iterable[Seen]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Views of one size stacked to (B, H, W, C), and whose they are (B,).

    Views wait for others of their size until there are enough of them, or too many of all sizes.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    count = 0
    for index, views in seen:
        for view in (view for of_one_scale in views for view in of_one_scale):
            alike = waiting.setdefault(view.shape, [])
            alike.append((index, view))
            count += 1
            if len(alike) == together(*view.shape[:2]):
                count -= len(alike)
                yield _stacked(waiting.pop(view.shape))
        if count > IMAGES:
            yield from map(_stacked, waiting.values())
            waiting, count = {}, 0
    yield from map(_stacked, waiting.values())


def _stacked(views: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    owners, images = zip(*views, strict=True)
    return np.array(owners), np.stack(images)
