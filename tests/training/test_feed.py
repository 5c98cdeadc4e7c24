"""Batches that are copied ahead are the loader's, whatever a device does late."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy
import pytest

from minicnn.data import Loader, augment, load_pair
from minicnn.train.feed import Feed, copied_ahead
from tests import device


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float16])
@pytest.mark.parametrize("text", ["none", "cutout:3,crop:2,flip"])
def test_two_epochs_are_the_loaders(data, text, dtype, drop_last):
    def loader(**options: bool) -> Loader:
        changes = augment.parse(text)
        return Loader(load_pair(data)[0], 13, augment=changes, seed=3, drop_last=drop_last, dtype=dtype, **options)

    feed, other = Feed(loader(unfinished=device.name != "cpu"), device.name), loader()  # 48 images = 3·13 + 9
    for epoch in range(2):
        given = [(feed.epochs, *(device.host(a).copy() for a in batch)) for batch in feed]
        expected = list(other)
        assert len(given) == (3 if drop_last else 4)
        for i, ((place, *ours), theirs) in enumerate(zip(given, expected, strict=True)):
            assert place == epoch + i / len(given)
            for a, b in zip(ours, theirs, strict=True):
                assert a.dtype == b.dtype and numpy.array_equal(a, b)
    assert feed.loader.state() == {"epoch": 2, "batch": 0}


def test_an_abandoned_epoch_ends_the_loader_too(data):
    feed = Feed(Loader(load_pair(data)[0], 12, unfinished=device.name != "cpu"), device.name)
    for _ in feed:
        break
    assert len(list(feed)) > 0


# ---- A device that is late ------------------------------------------------------------------------------------------


class Stream:
    """Does what it is asked for in order, but only once somebody needs it."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.asked: list[Callable[[], None]] = []
        self.done = 0

    def ask(self, work: Callable[[], None]) -> None:
        self.asked.append(work)

    def work(self, until: int) -> None:
        while self.done < until:
            self.done += 1
            self.asked[self.done - 1]()

    def wait_event(self, event: Event) -> None:
        at = event.at
        self.ask(lambda: at and at[0].work(at[1]))

    def synchronize(self) -> None:
        self.work(len(self.asked))


class Event:
    def __init__(self, **_: bool) -> None:
        self.at: tuple[Stream, int] | None = None

    def record(self, stream: Stream) -> None:
        self.at = stream, len(stream.asked)

    def synchronize(self) -> None:
        if self.at:
            self.at[0].work(self.at[1])


class Array:
    """On the device: a host that looks at `memory` sees what the streams have done so far."""

    def __init__(self, memory: numpy.ndarray) -> None:
        self.memory = memory

    def __getitem__(self, part: slice) -> Array:
        return Array(self.memory[part])

    def set(self, a: numpy.ndarray, stream: Stream) -> None:
        def copy() -> None:
            self.memory[...] = a

        stream.ask(copy)


@pytest.fixture
def compute(monkeypatch) -> Stream:
    """The stream of the steps, on a device where all that can be late is late."""
    stream, streams = Stream(), []

    def another(non_blocking: bool) -> Stream:
        streams.append(Stream())
        return streams[-1]

    cuda = SimpleNamespace(Stream=another, Event=Event, get_current_stream=lambda: stream)
    cuda.alloc_pinned_memory = bytearray
    cupy = SimpleNamespace(cuda=cuda, empty=lambda shape, dtype: Array(numpy.full(shape, -1, dtype)))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    stream.copies = streams
    return stream


def made(count: int) -> list:
    return [(i / 10, (numpy.full((4 - (i == count - 1), 2), i), numpy.full(4, 100 + i))) for i in range(count)]


@pytest.mark.parametrize("eager", ["nobody", "copies", "steps"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_steps_see_their_batches_whoever_is_late(compute, eager, count):
    seen: list[tuple] = []

    def step(place: float, images: Array, labels: Array) -> None:
        compute.ask(lambda: seen.append((place, images.memory.copy(), labels.memory.copy())))

    for place, (images, labels) in copied_ahead(made(count)):
        if eager == "copies":
            compute.copies[0].synchronize()
        step(place, images, labels)
        if eager == "steps":
            compute.synchronize()
    compute.synchronize()
    assert len(seen) == count
    for (place, *ours), (expected, theirs) in zip(seen, made(count), strict=True):
        assert place == expected and all(numpy.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_copy_waits_for_no_step_but_that_which_reads_its_memory(compute):
    steps: list[int] = []
    for i, _ in enumerate(copied_ahead(made(6))):
        compute.ask(lambda i=i: steps.append(i))
        assert len(steps) <= max(0, i - 1)  # those whose memory a later copy has needed
    compute.synchronize()
    assert steps == list(range(6))


def test_a_larger_batch_gets_more_memory(compute):
    seen: list[numpy.ndarray] = []
    batches = [(0.0, (numpy.full((n, 2), n),)) for n in (2, 2, 5, 7, 1)]
    for _, (images,) in copied_ahead(batches):
        compute.ask(lambda images=images: seen.append(images.memory.copy()))
    compute.synchronize()
    assert [a.tolist() for a in seen] == [a.tolist() for _, (a,) in batches]


def test_memory_from_the_pool_is_not_written_before_it_has_been_read(compute, monkeypatch):
    import cupy

    pool, seen = numpy.full((4, 2), 7), []
    compute.ask(lambda: seen.append(pool.copy()))  # by an array that has been freed since
    monkeypatch.setattr(cupy, "empty", lambda shape, dtype: Array(pool))
    list(copied_ahead([(0.0, (numpy.zeros((4, 2), int),))]))
    assert (seen[0] == 7).all() and (pool == 0).all()


def test_nothing_is_freed_that_is_still_read(compute):
    batches = copied_ahead(made(5))
    next(batches)
    batches.close()
    (copies,) = compute.copies
    assert copies.done == len(copies.asked) > 0
