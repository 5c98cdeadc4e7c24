"""What holds for every kernel of the CPU backend: it writes to its own arrays alone, takes arrays at any address, and
computes the same bits on any number of threads. (test_cpu_convolution.py asks the same of each way to convolve.)"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import cpu
from kernels.cpu import threads
from tests.kernels.cases import CASES
from tests.strategies import Drawn, spread

TOLERANCE = {np.float32: 1e-4, np.float64: 1e-11}  # of the largest value
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE)
few = settings(max_examples=5)  # of each case, which are forward, backward, and that several times
GUARD = 4096  # bytes on either side of an array


@pytest.fixture(autouse=True, scope="module")
def willing_threads():
    """However small the work, it is shared out."""
    before = threads.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "WORTHWHILE", 1)
        yield
    threads.set_count(before)


# ---- All kernels, called in one way --------------------------------------------------------------------------------

# Convolutions that the small shapes of the table do not lead to.
WIDE = {
    "conv2d, Winograd's": Drawn(((3, 14, 13, 32), (3, 3, 32, 48), (48,)), {"pad": 1}),
    "conv2d, 70 channels": Drawn(((2, 5, 7, 70), (1, 1, 70, 67), (67,))),
    "conv2d, stride 2": Drawn(((2, 9, 8, 33), (3, 3, 33, 40), (40,)), {"pad": 1, "stride": 2}),
    "conv2d, stem": Drawn(((2, 17, 19, 3), (7, 7, 3, 18), (18,)), {"pad": 3, "stride": 2}),
    "conv2d, groups": Drawn(((2, 6, 6, 36), (3, 3, 12, 51), (51,)), {"pad": 1, "groups": 3}),
}

UPDATES: dict[str, tuple[int, Callable]] = {  # arrays besides the parameter and its gradient, and the call
    "sgd_update": (1, lambda k, w, g, v: k.sgd_update(w, g, v, lr=0.1, momentum=0.9, nesterov=True)),
    "rmsprop_update": (2, lambda k, w, g, s, v: k.rmsprop_update(w, g, s, v, lr=0.1, momentum=0.9)),
    "adam_update": (2, lambda k, w, g, m, s: k.adam_update(w, g, m, s, lr=0.1, step=3)),
    "ema_update": (0, lambda k, w, g: k.ema_update(w, g, decay=0.9)),
    "sum_update": (0, lambda k, w, g: k.sum_update(w, g)),
}

every_kernel = pytest.mark.parametrize("name", [*CASES, *WIDE, *UPDATES])


def case(data: st.DataObject, name: str, dtype: type, repeat: int = 1) -> tuple[list[np.ndarray], Callable]:
    """(inputs, call): call(k, *inputs) is all that the kernels of backend k compute. Images come `repeat` times."""
    if name in UPDATES:
        further, update = UPDATES[name]
        w = spread(np.random.default_rng(0), (repeat, data.draw(st.integers(1, 70)))).astype(dtype)
        return [w, w[:, ::-1].copy(), *(abs(w) for _ in range(further))], _changed_by(update)

    inputs, forward, backward = CASES["conv2d" if name in WIDE else name]
    draw = WIDE[name] if name in WIDE else data.draw(inputs)
    arrays = list(draw.arrays(dtype))
    weights = (1, 2) if name.startswith(("conv2d", "linear")) else ()
    for i, a in enumerate(arrays):
        if a.ndim == arrays[0].ndim and i not in weights:  # a batch
            arrays[i] = np.concatenate([a] * repeat)

    def call(k: Any, *arrays: np.ndarray) -> list[np.ndarray]:
        y = forward(k, *arrays, **draw.options)
        gy = np.random.default_rng(draw.seed).uniform(-1, 1, y.shape).astype(y.dtype)
        return [y, *backward(k, gy, y, *arrays, **draw.options)]

    return arrays, call


def _changed_by(update: Callable) -> Callable:
    def call(k: Any, *arrays: np.ndarray) -> list[np.ndarray]:
        update(k, *arrays)
        return list(arrays)

    return call


def copies(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """An update changes its arrays, so every call gets its own."""
    return [np.array(a, order="C") for a in arrays]


def same_bits(values: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(v.dtype == e.dtype and v.tobytes() == e.tobytes() for v, e in zip(values, expected, strict=True))


def test_the_table_has_every_kernel_of_this_backend():
    called = set()

    class Spy:
        def __getattr__(self, name: str) -> Any:
            called.add(name)
            return getattr(cpu, name)

    @settings(max_examples=1)
    @given(data=st.data())
    def call_all(data):
        for name in (*CASES, *WIDE, *UPDATES):
            arrays, call = case(data, name, np.float32)
            call(Spy(), *copies(arrays))

    call_all()
    assert {name for name in cpu.__all__ if getattr(cpu, name).__module__.startswith("kernels.cpu")} <= called


# ---- Threads -------------------------------------------------------------------------------------------------------


@both_dtypes
@every_kernel
@few
@given(data=st.data())
def test_the_same_bits_on_any_number_of_threads(name, dtype, data):
    arrays, call = case(data, name, dtype, repeat=data.draw(st.sampled_from([1, 40])))
    results = []
    for n in (1, 2, 3):
        threads.set_count(n)
        results.append([y.tobytes() for y in call(cpu, *copies(arrays))])
    assert results[0] == results[1] == results[2]


# ---- Addresses -----------------------------------------------------------------------------------------------------


class Guards:
    """Makes arrays that lie between zones of one pattern, and asks whether those are as they were."""

    def __init__(self) -> None:
        self.zones: list[np.ndarray] = []

    def empty(self, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        """As memory.empty. Its content is the pattern too, which reads as NaN: results show whether it was used."""
        shape, dtype = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        raw = np.full(size + 2 * GUARD + 64, 0xFF, np.uint8)
        start = GUARD + -(raw.ctypes.data + GUARD) % 64
        self.zones += [raw[:start], raw[start + size :]]
        return raw[start : start + size].view(dtype).reshape(shape)

    def filled(self, array: np.ndarray) -> np.ndarray:
        guarded = self.empty(array.shape, array.dtype)
        guarded[...] = array
        return guarded

    @contextlib.contextmanager
    def around_all_that_kernels_make(self) -> Iterator[None]:
        numpy = SimpleNamespace(
            **vars(np)
            | {
                "empty": lambda shape, dtype=np.float64: self.empty(shape, dtype),
                "zeros": lambda shape, dtype=np.float64: self.filled(np.zeros(shape, dtype)),
            }
        )
        replaced = {"empty": self.empty, "scratch": lambda name, *array: self.empty(*array), "np": numpy}
        with pytest.MonkeyPatch.context() as patch:
            for module in modules():
                for name in replaced.keys() & vars(module).keys():
                    patch.setattr(module, name, replaced[name])
            yield

    def unharmed(self) -> bool:
        return bool(self.zones) and all((zone == 0xFF).all() for zone in self.zones)


def modules() -> list[ModuleType]:
    """Those with kernels."""
    no_kernels = ("arena", "compile", "memory", "machine", "threads", "tile", "blas", "cores")
    found = [m for name, m in sys.modules.items() if name.startswith("kernels.cpu.") and ".ir" not in name]
    return [m for m in found if m.__name__.rpartition(".")[2] not in no_kernels]


@both_dtypes
@every_kernel
@few
@given(data=st.data())
def test_no_kernel_writes_outside_its_arrays(name, dtype, data):
    threads.set_count(2)
    arrays, call = case(data, name, dtype)
    expected = call(cpu, *copies(arrays))  # also compiles: compiled code must not be made of what is replaced below
    guards = Guards()
    inputs = [guards.filled(a) for a in arrays]
    with guards.around_all_that_kernels_make():
        results = call(cpu, *inputs)
    assert guards.unharmed()
    assert same_bits(results, expected)
    assert name in UPDATES or same_bits(inputs, copies(arrays))


def test_guards_see_a_byte_that_changes():
    for offset in (-1, 40):
        guards = Guards()
        array = guards.empty((10,))
        assert guards.unharmed() and np.isnan(array).all()
        (zone,) = [zone for zone in guards.zones if (offset < 0) == (zone is guards.zones[0])]
        zone[-1 if offset < 0 else 0] = 0
        assert not guards.unharmed()


@both_dtypes
@pytest.mark.parametrize("offset", [1, 4, 20])  # bytes past the start of a line of the cache
@every_kernel
@few
@given(data=st.data())
def test_arrays_may_start_at_any_address(name, offset, dtype, data):
    def moved(a: np.ndarray) -> np.ndarray:
        raw = np.empty(a.nbytes + 128, np.uint8)
        start = offset - raw.ctypes.data % 64 + 64
        view = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
        view[...] = a
        return view

    arrays, call = case(data, name, dtype)
    expected = call(cpu, *copies(arrays))
    results = call(cpu, *map(moved, arrays))
    for value, e in zip(results, expected, strict=True):
        assert value.shape == e.shape and value.dtype == e.dtype
        np.testing.assert_allclose(value, e, rtol=0, atol=TOLERANCE[dtype] * np.abs(e).max(initial=1e-3))
