"""Where the arrays of tests lie: `np` is NumPy, or its like on the device that `pytest --device` names.

    from tests.device import np

On "cpu" that is the module numpy itself. On a device `np` makes CuPy arrays and calls CuPy's functions; random numbers
are NumPy's, moved there, and `np.testing` compares on the host. `host(a)` is the NumPy array of any array.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

np: Any = numpy
name = "cpu"  # the device's, as minicnn.device.to has it


CPU_BACKEND = "is about the CPU backend: code that Numba and LLVM make for NumPy's memory"

# Computed by NumPy: comparisons, and parts of CuPy that are precompiled for a GPU.
ON_HOST = {"allclose", "array_equal", "argsort", "median", "sort", "unique"}


def host(value: Any) -> Any:
    """A device's array as a NumPy array, in lists and tuples too; anything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(host(v) for v in value)
    return value.get() if type(value).__module__.partition(".")[0] == "cupy" and hasattr(value, "get") else value


def there(value: Any) -> Any:
    """A NumPy array as an array on the device; anything else, numbers among them, as it is."""
    return np.asarray(value) if isinstance(value, numpy.ndarray) and name != "cpu" else value


class _OnHost:
    """An object of NumPy's whose methods are given and give the device's arrays, and compute on the host."""

    def __init__(self, wrapped: Any, wrap: Callable = lambda result: there(result)):
        self._wrapped, self._wrap = wrapped, wrap

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._wrapped, attribute)
        if not callable(value):
            return value
        return lambda *args, **kwargs: self._wrap(value(*host(args), **{key: host(arg) for key, arg in kwargs.items()}))


class _Device:
    """numpy's names as CuPy has them, or NumPy's own: types, constants, what CuPy lacks."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self.testing = _OnHost(numpy.testing)
        self.random = _OnHost(numpy.random, _OnHost)

    def shares_memory(self, a: Any, b: Any) -> bool:
        return type(a) is type(b) and self._cupy.may_share_memory(a, b)

    def __getattr__(self, attribute: str) -> Any:
        if attribute in ON_HOST:
            return getattr(_OnHost(numpy), attribute)
        return getattr(self._cupy, attribute, None) or getattr(numpy, attribute)


def use() -> None:
    """Put the arrays of all tests that are imported from here on on the device."""
    global np, name
    np, name = _Device(), "cuda"


# Tests that have nothing to do on a device, by file, with the reason; single tests say so by the mark cpu_only.
CPU_ONLY = {
    "cuda/test_host_cupy_*": None,  # made for a device
    "cuda/*": "runs CUDA kernels on NumPy arrays, or none at all",
    "data/*": "reads and augments images, which happens before they go to a device",
    "evaluate/test_views.py": "cuts images, which happens before they go to a device",
    "kernels/test_compile.py": CPU_BACKEND,
    "kernels/test_cpu_*": CPU_BACKEND,
    "kernels/test_every_kernel.py": CPU_BACKEND,
    "kernels/test_addresses.py": CPU_BACKEND,
    "kernels/test_memory.py": CPU_BACKEND,
    "kernels/test_threads.py": CPU_BACKEND,
    "kernels/test_vector_widths.py": CPU_BACKEND,
    "models/test_counts.py": "counts parameters and computes nothing",
    "models/test_names.py": "names parameters and computes nothing",
    "training/test_options.py": "reads options and computes nothing",
    "test_benchmarks*": "measures the CPU backend beside PyTorch on the CPU",
    "test_doctor.py": "describes the machine",
    "test_pth.py": "reads files and computes nothing",
    "test_readme.py": "reads a text",
    "test_schedules.py": "computes with Python's numbers alone",
    "test_weights.py": "reads and writes files",
}


def not_here(item: pytest.Item, host: bool, collected: set[str]) -> str | None:
    """Why a test does not run on the device, or None if it does; `collected` are the names of all tests."""
    file = Path(item.location[0]).relative_to("tests").as_posix()
    of_file = next((reason for pattern, reason in CPU_ONLY.items() if fnmatch.fnmatch(file, pattern)), None)
    if of_file:
        return of_file
    for mark in (item.get_closest_marker("cpu_only"), item.get_closest_marker("not_on_host") if host else None):
        if mark:
            return mark.args[0]
    test, bracket, parameters = item.nodeid.partition("[")
    twin = test + bracket + re.sub(r"\bcpu\b", "reference", parameters)
    if twin != item.nodeid and twin in collected:
        return "chooses the CPU backend; the same test of the reference runs on the device"
    return None


class Selection:
    """The tests that run on the device; at the end it lists the others with the reason, and those that only seem to."""

    def __init__(self, host: bool, launches: Callable[[], int] | None) -> None:
        self._host, self._launches = host, launches
        self.left_out: Counter[tuple[str, str]] = Counter()
        self.idle: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        collected = {item.nodeid for item in items}
        reasons = {item: not_here(item, self._host, collected) for item in items}
        self.left_out.update((item.location[0], reason) for item, reason in reasons.items() if reason)
        config.hook.pytest_deselected(items=[item for item, reason in reasons.items() if reason])
        items[:] = [item for item, reason in reasons.items() if not reason]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        before = self._launches() if self._launches else -1
        yield
        if self._launches and self._launches() == before:
            self.idle[item.location[0]] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section(f"not on the device: {self.left_out.total()} tests")
        for (file, reason), count in sorted(self.left_out.items()):
            terminalreporter.line(f"{file}: {count}: {reason}")
        terminalreporter.section(f"ran, but launched no kernel: {self.idle.total()} tests")
        for file, count in sorted(self.idle.items()):
            terminalreporter.line(f"{file}: {count}")
