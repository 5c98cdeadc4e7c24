"""The loader: batches, decoded, augmented and normalised by threads while the network works on earlier ones.

Threads, never forked processes: NumPy, Pillow and the kernels release the interpreter's lock where they work, and a
fork after threads or CUDA have started may deadlock. The order of an epoch is a function of (seed, epoch), the
augmentation of a batch one of (seed, epoch, batch), so neither depends on how many threads there are or who was first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from minicnn.data.augment import Pipeline, normalise
from minicnn.data.dataset import Dataset

Batch = tuple[np.ndarray, ...]
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Loader:
    """Batches of a data set: `for images, labels in loader` is one epoch, the next loop the next one.

    images  `dtype` (B, H, W, C), augmented and normalised with the data set's mean and std
    labels  int64 (B,)

    The last batch of an epoch may be smaller, unless `drop_last` leaves it out. At most `prefetch` batches lie
    ready while `threads` threads make the next ones. `state()` is the position of the next batch, and a loop begins
    there: abandoned half-way, an epoch is continued by the next loop, and `set_state` goes anywhere else. An exception
    in a thread is raised where the batch would have been. The threads end with the loop.

    `unfinished` batches are (images, corners, mirrored, labels), a quarter of the bytes: the images in uint8, with what
    the kernel `crop_flip_normalise` needs to finish them where they are wanted. The last crop and flip are left to it.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        threads: int = 1,
        prefetch: int = 2,
        dtype: Any = np.float32,
        unfinished: bool = False,
    ):
        if not 1 <= batch_size <= len(dataset):
            raise ValueError(
                f"Loader: batch size {batch_size} is not possible; {dataset.name} has {len(dataset)} images here, "
                f"choose 1 to {len(dataset)}"
            )
        if threads < 1 or prefetch < 1:
            raise ValueError(f"Loader: threads and prefetch must be at least 1, got {threads} and {prefetch}")
        self.dataset, self.batch_size, self.augment = dataset, batch_size, augment
        self.unfinished, self.moves = unfinished, Pipeline(()).moves
        if unfinished and isinstance(augment, Pipeline):
            self.augment, ending = augment.ending()
            self.moves = ending.moves
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.threads, self.prefetch, self.dtype = threads, prefetch, dtype
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        """How many batches an epoch has."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def state(self) -> dict[str, int]:
        """The position: the epoch, and in it the number of the batch that comes next."""
        return {"epoch": self.epoch, "batch": self.batch}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position that `state` gave; from there on the batches are as if the loop had never stopped."""
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if epoch < 0 or not 0 <= batch <= len(self):
            raise ValueError(
                f"Loader: no batch {batch} in epoch {epoch}; an epoch has {len(self)} of {self.batch_size}"
            )
        self.epoch, self.batch = epoch, batch

    def __iter__(self) -> Iterator[Batch]:
        epoch, order = self.epoch, self._order(self.epoch)
        waiting: deque[tuple[int, Future[Batch]]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="minicnn-loader") as pool:
            try:
                for batch in range(self.batch, len(self)):
                    waiting.append((batch, pool.submit(self._make, epoch, batch, order)))
                    if len(waiting) > self.threads + self.prefetch:
                        yield from self._deliver(*waiting.popleft())
                while waiting:
                    yield from self._deliver(*waiting.popleft())
            finally:  # also when the loop is abandoned: what has not begun is not begun, and the threads are joined
                for _, future in waiting:
                    future.cancel()
        self.epoch, self.batch = epoch + 1, 0

    def _deliver(self, batch: int, future: Future[Batch]) -> Iterator[Batch]:
        *images, labels = future.result()
        self.batch = batch + 1
        if len(labels):  # skipping corrupt files can leave nothing
            yield *images, labels

    def _make(self, epoch: int, batch: int, order: np.ndarray) -> Batch:
        indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        images, labels = self.dataset.take(indices)
        generator = np.random.default_rng((self.seed, epoch, 1 + batch))
        if self.augment is not None and len(images):
            images = self.augment(images, generator)
        if self.unfinished:
            return images, *self.moves(len(images), generator), labels
        return normalise(images, self.dataset.mean, self.dataset.std, self.dtype), labels

    def _order(self, epoch: int) -> np.ndarray:
        """The data set's indices in the order of an epoch: int64 (N,)."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.dataset))
