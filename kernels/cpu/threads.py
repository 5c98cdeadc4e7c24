"""Running a kernel on several threads: `parallel(task, n, *args)` splits the numbers 0 to n - 1 among them.

A task is a function `task(begin, end, *args)` that works on its part of [0, n) and writes nowhere else; it spends its
time without the GIL (compiled kernels and BLAS do). How [0, n) is cut depends on the number of threads, so a task must
give the same bits however it is cut: each number stands for a piece of work with a result of its own, and a sum over
all of them is made of such pieces, fixed by the shape alone, and added up in order afterwards.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from kernels.cpu.cores import usable_cores

WORTHWHILE = 32_768  # array elements: a part with less work costs less than handing it to another thread (20-30 µs)

_count: int | None = None


def count() -> int:
    """How many threads kernels use: as many as `set_count` said, otherwise one for each usable core."""
    global _count
    if _count is None:
        _count = usable_cores()
    return _count


def set_count(n: int) -> None:
    """Use n threads from now on (in all of this process); results are the same, bit for bit, with any number."""
    global _count
    if n < 1:
        raise ValueError(f"threads: the number of threads must be at least 1, got {n}")
    _count = int(n)


def parallel(task: Callable[..., None], n: int, *args: Any, cost: int = 1) -> None:
    """Call task(begin, end, *args) on parts that together make up [0, n), on several threads; return when all is done.

    `cost` is about how many array elements one number stands for. An exception in a task is raised here. Any number of
    Python threads may call this at once, tasks too.
    """
    threads = min(count(), n, n * cost // WORTHWHILE)
    if threads <= 1:
        task(0, n, *args)
        return
    # More parts than threads, if they are long: one that is held up by something else on the machine does fewer.
    parts = min(n, 4 * threads, max(threads, n * cost // (4 * WORTHWHILE)))
    job = _Job(task, args, [(n * i // parts, n * (i + 1) // parts) for i in range(parts)])
    _pool.call(job, helpers=threads - 1)
    job.finish()


class _Job:
    """One call of `parallel`: whoever has time takes a part from it, the caller too, until none is left."""

    def __init__(self, task: Callable[..., None], args: tuple, parts: list[tuple[int, int]]):
        self.task, self.args, self.parts = task, args, parts
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()  # an entry for each part that is finished
        self.expected = len(parts)

    def work(self) -> None:
        while self.parts:
            try:
                begin, end = self.parts.pop()
            except IndexError:  # another thread was faster
                return
            try:
                self.task(begin, end, *self.args)
            except BaseException as error:
                self.done.put(error)
            else:
                self.done.put(None)

    def finish(self) -> None:
        self.work()
        errors = [error for error in (self.done.get() for _ in range(self.expected)) if error is not None]
        del self.task, self.args  # a helper that comes late finds nothing to do, and must not keep arrays alive
        if errors:
            raise errors[0]


class _Pool:
    """Threads that wait for jobs. They are started when first needed, and end with the process."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.workers = 0
        self.starting = threading.Lock()

    def call(self, job: _Job, helpers: int) -> None:
        if self.workers < helpers:
            with self.starting:
                while self.workers < helpers:
                    threading.Thread(target=self.serve, name="minicnn kernels", daemon=True).start()
                    self.workers += 1
        for _ in range(helpers):
            self.jobs.put(job)

    def serve(self) -> None:
        while True:
            job = self.jobs.get()
            job.work()
            del job  # a waiting thread must not keep arrays alive


def _start_afresh() -> None:
    """A forked child has none of its parent's threads."""
    global _pool
    _pool = _Pool()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
