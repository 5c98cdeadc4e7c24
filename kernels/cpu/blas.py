"""NumPy's matrix product on the calling thread alone, for kernels that share out their work themselves.

BLAS cuts a product by its own number of threads, and with the cut the bits change; and its threads would fight ours.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

from threadpoolctl import LibController, ThreadpoolController


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block BLAS starts no threads; when the last of overlapping blocks ends, it may again as before."""
    shared, own = _libraries()
    before = [library.get_num_threads() for library in own]
    _set(own, [1] * len(own))
    _enter(shared)
    try:
        yield
    finally:
        _leave(shared)
        _set(own, before)


@functools.cache
def _libraries() -> tuple[list[LibController], list[LibController]]:
    """The BLAS libraries with one number of threads for the whole process, and those that keep one for each thread."""
    loaded = ThreadpoolController().select(user_api="blas").lib_controllers
    per_thread = [library for library in loaded if getattr(library, "threading_layer", "") == "openmp"]
    return [library for library in loaded if library not in per_thread], per_thread


_lock = threading.Lock()
_users = 0
_before: list[int] = []  # the numbers of threads when the first of the present users came


def _enter(libraries: list[LibController]) -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _before[:] = [library.get_num_threads() for library in libraries]
            _set(libraries, [1] * len(libraries))


def _leave(libraries: list[LibController]) -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _set(libraries, _before)


def _set(libraries: list[LibController], counts: list[int]) -> None:
    for library, count in zip(libraries, counts, strict=True):
        # threadpoolctl obeys the first thread that sets OpenBLAS's number, and ignores others, until told to forget it
        forget = getattr(library, "clear_controlling_thread", lambda force: None)
        forget(force=True)
        library.set_num_threads(count)
        forget(force=True)
