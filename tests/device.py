"""Where the arrays of tests lie: `np` is NumPy, or its like on the device that `pytest --device` names.

    from tests.device import np

On "cpu" that is the module numpy itself. On a device `np` makes CuPy arrays and calls CuPy's functions; random numbers
are NumPy's, moved there, and `np.testing` compares on the host. `host(a)` is the NumPy array of any array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

np: Any = numpy
name = "cpu"  # the device's, as minicnn.device.to has it


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
        self.shares_memory = cupy.may_share_memory
        self.testing = _OnHost(numpy.testing)
        self.random = _OnHost(numpy.random, _OnHost)

    def __getattr__(self, attribute: str) -> Any:
        if attribute in ON_HOST:
            return getattr(_OnHost(numpy), attribute)
        return getattr(self._cupy, attribute, None) or getattr(numpy, attribute)


def use() -> None:
    """Put the arrays of all tests that are imported from here on on the device."""
    global np, name
    np, name = _Device(), "cuda"


class Selection:
    """Of the tests collected, those whose arrays come from here run on the device; the others are listed with a reason.

    A module takes part by importing `np` from this one. Every other module, and every single test that cannot run on a
    device, says why: `pytestmark = pytest.mark.cpu_only("...")`, or the mark on the test. The two backends of NumPy
    arrays are one on a device, so of a test's two variants "reference" runs.
    """

    def __init__(self) -> None:
        self.left_out: dict[tuple[str, str], int] = {}
        self.selected = 0

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = []
        for item in items:
            reason = self._reason(item)
            if reason is None:
                kept.append(item)
            else:
                place = (item.location[0], reason)
                self.left_out[place] = self.left_out.get(place, 0) + 1
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
        self.selected = len(kept)

    def _reason(self, item: pytest.Item) -> str | None:
        mark = item.get_closest_marker("cpu_only")
        if mark:
            return mark.args[0]
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if any(type(value) is str and value == "cpu" for value in parameters.values()):
            return "the CPU backend's variant"
        if getattr(item.module, "np", None) is not np:
            raise pytest.UsageError(
                f"{item.location[0]}: import np from tests.device, or mark it cpu_only with a reason"
            )
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section(f"not on the device: {sum(self.left_out.values())} of {self.selected} + these tests")
        for (file, reason), count in sorted(self.left_out.items()):
            terminalreporter.line(f"{file}: {count}: {reason}")
