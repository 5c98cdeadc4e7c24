"""Memory that is used again: large arrays of the kernels lie in one stretch of address space that is never given back.

A system allocator returns large arrays to the system as soon as they are freed, and a training step that frees and
allocates the same gigabytes as the step before pays for fresh pages each time: more than for the arithmetic on them.
Here a freed range goes to a list, merged with its free neighbours, and the next array takes the first range that is
long enough. So a step after the first touches no new page, and the arena has grown to what a step needs at most.

Only arrays made by `memory.empty` lie here. Nothing else in the process allocates differently because of it.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import mmap
import os
import threading
from collections import deque
from typing import Any

import numpy as np

CACHE_LINE = 64  # bytes
UNIT = 3 * CACHE_LINE  # added to each array: those of 2ⁿ bytes, read side by side, would fight for the cache's sets
PAGE = 4096


class Arena:
    """A stretch of addresses as long as the machine's memory; a page of it becomes real when it is first written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.space: mmap.mmap | None = None
        self.base = 0  # its address
        self.starts: list[int] = []  # of the free ranges, in order …
        self.ends: list[int] = []  # … and where they end
        self.returned: deque[tuple[int, int]] = deque()  # ranges to be merged into those

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """An uninitialised array that starts on a cache line; None where there is no room for it."""
        size = math.prod(shape) * dtype.itemsize
        size = -(-size // CACHE_LINE) * CACHE_LINE + UNIT
        start = self._take(size)
        return None if start is None else np.asarray(_Lease(self.returned, start, start + size, shape, dtype))

    def release(self) -> None:
        """Give the pages of all free ranges back to the system."""
        with self.lock:
            self._merge()
            for start, end in zip(self.starts, self.ends, strict=True):
                first, last = -(-(start - self.base) // PAGE) * PAGE, (end - self.base) // PAGE * PAGE
                if self.space and last > first:
                    self.space.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _take(self, size: int) -> int | None:
        """The start of the first free range of so many bytes."""
        with self.lock:
            if self.space is None:
                self._reserve()
            self._merge()
            for i, start in enumerate(self.starts):
                if self.ends[i] - start >= size:
                    self.starts[i] += size
                    if self.starts[i] == self.ends[i]:
                        del self.starts[i], self.ends[i]
                    return start
        return None

    def _reserve(self) -> None:
        if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux: elsewhere such a reservation may cost real memory
            return
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        try:
            self.space = mmap.mmap(-1, memory, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # this process may not have so many addresses
            return
        with contextlib.suppress(OSError):  # a system built without huge pages
            self.space.madvise(mmap.MADV_HUGEPAGE)
        self.base = np.frombuffer(self.space, np.uint8).ctypes.data
        self.starts, self.ends = [self.base], [self.base + memory]

    def _merge(self) -> None:
        """Put what was returned in its place among the free ranges."""
        while self.returned:
            start, end = self.returned.popleft()
            i = bisect.bisect(self.starts, start)
            if i < len(self.starts) and self.starts[i] == end:
                end = self.ends[i]
                del self.starts[i], self.ends[i]
            if i > 0 and self.ends[i - 1] == start:
                self.ends[i - 1] = end
            else:
                self.starts.insert(i, start)
                self.ends.insert(i, end)


class _Lease:
    """What an array and all views of it hold on to: when the last of them is gone, their range is free again."""

    def __init__(self, returned: deque, start: int, end: int, shape: tuple[int, ...], dtype: np.dtype):
        self.returned, self.range = returned, (start, end)
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (start, False),
        }

    def __del__(self) -> None:
        # Only this, which needs no lock: it may happen anywhere, also within `_take`.
        self.returned.append(self.range)
