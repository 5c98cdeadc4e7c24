"""NumPy's matrix product on the calling thread alone, for kernels that share out their work themselves.

BLAS cuts a product by its own number of threads, and with the cut the bits change; and its threads would fight ours.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

from threadpoolctl import LibController, ThreadpoolController


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block BLAS starts no threads; when the last of overlapping blocks ends, it may again as before."""
    shared, own = _libraries()
    before = [library.get_num_threads() for library in own]
    _set(own, [1] * len(own))
    _limit.enter(shared)
    try:
        yield
    finally:
        _limit.leave(shared)
        _set(own, before)


@functools.cache
def _libraries() -> tuple[list[LibController], list[LibController]]:
    """The BLAS libraries with one number of threads for the whole process, and those that keep one for each thread."""
    loaded = ThreadpoolController().select(user_api="blas").lib_controllers
    per_thread = [library for library in loaded if getattr(library, "threading_layer", "") == "openmp"]
    return [library for library in loaded if library not in per_thread], per_thread


class _Limit:
    """How many blocks are being executed, on all threads, and the numbers of threads to go back to afterwards."""

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.before: list[int] = []

    def enter(self, libraries: list[LibController]) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.before = [library.get_num_threads() for library in libraries]
                _set(libraries, [1] * len(libraries))

    def leave(self, libraries: list[LibController]) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                _set(libraries, self.before)


def _set(libraries: list[LibController], counts: list[int]) -> None:
    for library, count in zip(libraries, counts, strict=True):
        # threadpoolctl obeys the first thread that sets OpenBLAS's number, and ignores others, until told to forget it
        forget = getattr(library, "clear_controlling_thread", lambda force: None)
        forget(force=True)
        library.set_num_threads(count)
        forget(force=True)


def _start_afresh() -> None:
    """In a forked child no other thread is left that could leave its block."""
    global _limit
    _limit = _Limit()


_limit = _Limit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
