"""A GPU whose memory is too small ends a run with one line: what was there, and the batch that would fit."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator
from typing import NamedTuple

from minicnn.train.trainer import FEW, Trainer

SHARE = 0.9  # of the memory that can be counted on: the pool's blocks do not fit into each other without gaps
REFUSED = re.compile("MemoryAllocation|OUT_OF_MEMORY|ALLOC_FAILED", re.IGNORECASE)  # by CUDA and cuBLAS themselves


class OutOfDeviceMemory(RuntimeError):
    """A step needs more memory than the device has; the message says how much there is and what to do."""


class State(NamedTuple):
    """Bytes: what CuPy's pool holds of the card's memory, how much of that arrays use, what is free, what there is."""

    held: int
    used: int
    free: int
    total: int

    def __str__(self) -> str:
        held, used, free, total = (f"{bytes / 1e9:.1f}" for bytes in self)
        return f"of the card's {total} GB, CuPy's pool holds {held} ({used} in arrays), and {free} are free"

    @property
    def available(self) -> int:
        """What new arrays may take."""
        return self.held - self.used + self.free


def state() -> State:
    """The device's memory now."""
    import cupy

    pool = cupy.get_default_memory_pool()
    return State(pool.total_bytes(), pool.used_bytes(), *cupy.cuda.runtime.memGetInfo())


def release() -> None:
    """Give all that no array uses back to the card."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()


@contextlib.contextmanager
def explained(trainer: Trainer) -> Iterator[None]:
    """Within the block, running out of a GPU's memory raises OutOfDeviceMemory instead of CuPy's own error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_of_device(error):
            raise
        at_failure = state()
        traceback.clear_frames(error.__traceback__)  # they hold the step's arrays
        raise OutOfDeviceMemory(f"out of device memory: {at_failure}; {advice(trainer)}") from error


def is_of_device(error: Exception) -> bool:
    """Whether an error is CuPy's, of an allocation that failed."""
    of_cupy = type(error).__module__.partition(".")[0] in ("cupy", "cupy_backends")
    return of_cupy and (isinstance(error, MemoryError) or bool(REFUSED.search(str(error))))


def advice(trainer: Trainer) -> str:
    """What to do: the batch that fits, by the memory that a step on a few images takes now."""
    size = trainer.config["batch_size"]
    few = min(FEW, size)
    images = "a step on one image" if few == 1 else f"a step on {few} images"
    trainer.optimiser.zero_grad()
    release()
    before = state()
    try:
        trainer.compile()
    except (MemoryError, RuntimeError) as error:
        if not is_of_device(error):
            raise
        return f"{images} does not fit: choose a smaller --image-size or network, or free the card of other programs"
    taken = state().held - before.used
    fits = int(SHARE * before.available * few / taken) if taken > 0 else size
    fits = max(1, min(fits, size - 1))  # a step on the whole batch has just not fitted
    return (
        f"--batch-size {fits} would fit instead of {size} (estimated from {images}, which takes {taken / 1e9:.2f} GB)"
    )
