"""How batches reach the device: each is copied there while the device works on the one before."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

import kernels
from minicnn import device
from minicnn.data import Loader

Array = Any
Batch = tuple[Array, ...]


class Feed:
    """A loader's batches, on a device: `for images, labels in feed` is one epoch.

    `epochs` says how many are done when the batch begins that was given last, 2.5 in the middle of the third. On the
    CPU batches pass through as they are. A device gets them from an `unfinished` loader, and finishes them; the memory
    of its batches is used again: one is good until the next one.
    """

    def __init__(self, loader: Loader, on: str):
        self.loader, self.on, self.epochs = loader, on, 0.0
        self.statistics = [device.to(a, on) for a in (loader.dataset.mean, loader.dataset.std)]

    def __iter__(self) -> Iterator[Batch]:
        on_cpu = self.on == "cpu"
        for place, batch in self._placed() if on_cpu else copied_ahead(self._placed()):
            self.epochs = place
            yield batch if on_cpu else self._finished(*batch)

    def _finished(self, images: Array, corners: Array, mirrored: Array, labels: Array) -> Batch:
        """(images, labels) of an unfinished batch: cropped, mirrored and normalised."""
        finish, size = kernels.of(images).crop_flip_normalise, images.shape[1]
        return finish(images, corners, mirrored, *self.statistics, size=size, dtype=self.loader.dtype), labels

    def _placed(self) -> Iterator[tuple[float, Batch]]:
        """Each batch with its place among the epochs; the loader itself is further on when it is used."""
        for batch in self.loader:
            yield self.loader.epoch + (self.loader.batch - 1) / len(self.loader), batch


def copied_ahead(batches: Iterable[tuple[float, Batch]]) -> Iterator[tuple[float, Batch]]:
    """The batches on the current CUDA device, where the next one is copied while the steps on the last are computed.

    The copies have a stream of their own; nobody waits for one but the step that needs it, and the host before it
    writes over the memory that is being copied.
    """
    import cupy

    stream, buffers = cupy.cuda.Stream(non_blocking=True), itertools.cycle([_Buffer(), _Buffer()])
    ahead: list[tuple[_Buffer, float, Batch]] = []
    try:
        for buffer, (place, batch) in zip(buffers, batches, strict=False):
            ahead.append((buffer, place, buffer.copy(batch, stream)))
            if len(ahead) == 2:
                yield from _given(*ahead.pop(0))
        for last in ahead:
            yield from _given(*last)
    finally:  # also when the loop is abandoned: nothing is freed that is still read
        stream.synchronize()


def _given(buffer: _Buffer, place: float, batch: Batch) -> Iterator[tuple[float, Batch]]:
    """The batch, for the work that is asked of the current stream until the next one is wanted."""
    import cupy

    cupy.cuda.get_current_stream().wait_event(buffer.copied)
    yield place, batch
    buffer.used.record(cupy.cuda.get_current_stream())


class _Buffer:
    """Memory for one batch: page-locked on the host, which a device can read by itself, and on the device.

    copied  the device has the batch, and the host may write the next one
    used    the steps on the batch are computed, and the next one may be copied
    """

    def __init__(self) -> None:
        import cupy

        self.copied, self.used = (cupy.cuda.Event(block=True, disable_timing=True) for _ in range(2))
        self.pairs: list[tuple[np.ndarray, Array]] = []

    def copy(self, batch: Batch, stream: Any) -> Batch:
        """The batch on the device, where it will be once `copied` has happened."""
        self.copied.synchronize()
        if not self.pairs or len(self.pairs[0][0]) < len(batch[0]):
            self._allocate(batch)
        stream.wait_event(self.used)
        views = [(locked[: len(a)], there[: len(a)]) for a, (locked, there) in zip(batch, self.pairs, strict=True)]
        for a, (locked, there) in zip(batch, views, strict=True):
            locked[...] = a
            there.set(locked, stream)
        self.copied.record(stream)
        return tuple(there for _, there in views)

    def _allocate(self, batch: Batch) -> None:
        import cupy

        self.pairs = [(_page_locked(a), cupy.empty(a.shape, a.dtype)) for a in batch]
        # Memory from CuPy's pool may still be read by what the current stream has to do.
        self.used.record(cupy.cuda.get_current_stream())


def _page_locked(like: np.ndarray) -> np.ndarray:
    import cupy

    memory = cupy.cuda.alloc_pinned_memory(like.nbytes)
    return np.frombuffer(memory, like.dtype, like.size).reshape(like.shape)
