"""The arena under the kernels' arrays: no two of them overlap, and what is freed is used again."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.cpu import memory
from kernels.cpu.arena import CACHE_LINE, Arena

LARGE = (memory.LARGE // 4,)  # of float32: the smallest array in the arena
on_linux = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="the arena is used on Linux only")


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (7, 5), LARGE, (3, 100_003)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64])
def test_an_array_is_what_was_asked_for_and_starts_on_a_cache_line(shape, dtype):
    array = memory.empty(shape, dtype)
    assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
    assert array.size == 0 or address(array) % CACHE_LINE == 0


@on_linux
def test_memory_is_used_again_when_the_last_view_of_it_is_gone():
    array = memory.empty(LARGE)
    place, view = address(array), array[5:7].reshape(2, 1)
    del array
    other = memory.empty(LARGE)
    assert address(other) != place
    del view
    assert address(memory.empty(LARGE)) == place


@on_linux
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300_000), st.integers(0, 30)), min_size=1, max_size=80))
def test_no_two_arrays_overlap_and_freed_neighbours_merge(requests):
    arena = Arena()
    alive: list[tuple[int, np.ndarray]] = []
    for turn, (size, victim) in enumerate(requests):
        array = arena.array((size,), np.dtype(np.uint8))
        array[:] = turn % 251
        alive.append((turn % 251, array))
        if victim < len(alive):
            del alive[victim]
        assert all((array == value).all() for value, array in alive)
    del array
    alive.clear()
    arena.release()
    assert len(arena.starts) <= 1  # one range again


@on_linux
def test_a_step_that_is_repeated_takes_no_new_memory():
    arena = Arena()

    def step() -> int:
        arrays = [arena.array((size,), np.dtype(np.float32)) for size in (50_000, 200_000, 70_000)]
        del arrays[1]
        arrays.append(arena.array((190_000,), np.dtype(np.float32)))
        return max(address(a) + a.nbytes for a in arrays)

    assert len({step() for _ in range(50)}) == 1


@on_linux
def test_released_pages_are_fresh_ones():
    arena = Arena()
    array, kept = (arena.array((1 << 20,), np.dtype(np.uint8)) for _ in range(2))
    array[:], kept[:] = 1, 2
    del array
    arena.release()
    assert (kept == 2).all()
    assert arena.array((1 << 20,), np.dtype(np.uint8))[4096:-4096].max() == 0


def test_without_address_space_arrays_come_from_numpy(monkeypatch):
    def refuse(*args, **options):
        raise OSError("limit reached")

    monkeypatch.setattr(mmap, "mmap", refuse)
    monkeypatch.setattr(memory, "_arena", Arena())
    array = memory.empty(LARGE)
    array[:] = 1
    assert address(array) % CACHE_LINE == 0


def test_threads_never_get_the_same_memory():
    failures = []

    def work(value: int) -> None:
        for _ in range(300):
            arrays = [memory.empty(LARGE, np.uint8 if value % 2 else np.float32) for _ in range(3)]
            for array in arrays:
                array[:] = value
            failures.extend(value for array in arrays if not (array == value).all())

    workers = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def _sum_in_child(queue) -> None:
    array = memory.empty(LARGE)
    array[:] = 2
    queue.put(float(array.sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_memory_of_its_own():
    context = multiprocessing.get_context("fork")
    array, queue = memory.empty(LARGE), context.Queue()
    array[:] = 1
    child = context.Process(target=_sum_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == 2 * array.size
    child.join()
    assert (array == 1).all()
