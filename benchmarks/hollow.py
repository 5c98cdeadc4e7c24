"""CuPy's arrays without their elements: a training step runs on them as on a GPU, and nothing is computed.

    with hollow.cupy(seen, cache=40 << 20):
        model.to(device="cuda")
        ...

Within the block `import cupy` gives a module of the few functions that minicnn calls. Its arrays have a shape, a dtype
and memory that nobody touches: the system gives none for it, so a network of any size fits. What CuPy would launch a
kernel for, `seen(name, read, written)` is told instead. A function that is not here is an AttributeError: nothing is
left out in silence. (Arrays that come from NumPy keep their elements, so that tables can be read.)
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Seen = Callable[[str, Sequence["ndarray"], Sequence["ndarray"]], None]

# The arrays that own the memory in use, by its address.
owners: weakref.WeakValueDictionary[int, ndarray] = weakref.WeakValueDictionary()
_serials = itertools.count()
_seen: list[Seen] = []


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of the stand-in. `base` is the array whose memory it shares, as in CuPy; `serial` numbers memories."""

    __module__ = "cupy"  # by which `kernels.array_module` knows CuPy's arrays
    __cuda_array_interface__ = None  # by which a Module knows its buffers

    def __init__(self, memory: np.ndarray, base: ndarray | None = None):
        self.memory, self.base = memory, base
        self.owner: ndarray = self if base is None else base
        self.serial: int = next(_serials) if base is None else base.serial
        if base is None:
            owners[memory.ctypes.data] = self

    shape = property(lambda self: self.memory.shape)
    dtype = property(lambda self: self.memory.dtype)
    ndim = property(lambda self: self.memory.ndim)
    size = property(lambda self: self.memory.size)
    itemsize = property(lambda self: self.memory.itemsize)
    nbytes = property(lambda self: self.memory.nbytes)
    strides = property(lambda self: self.memory.strides)
    flags = property(lambda self: self.memory.flags)
    T = property(lambda self: self._view(self.memory.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self.memory.ctypes.data))
    device = property(lambda self: types.SimpleNamespace(id=_Device.current))

    def _view(self, memory: np.ndarray) -> ndarray:
        return ndarray(memory, self.owner)

    def __len__(self) -> int:
        return len(self.memory)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> ndarray:
        index = index if isinstance(index, tuple) else (index,)
        return self._view(self.memory[index if ... in index else (*index, ...)])  # with an ellipsis never a scalar

    def reshape(self, *shape: Any) -> ndarray:
        kept = self if self.flags.c_contiguous else self.copy()
        return kept._view(kept.memory.reshape(*shape))

    def swapaxes(self, a: int, b: int) -> ndarray:
        return self._view(self.memory.swapaxes(a, b))

    def view(self, dtype: Any) -> ndarray:
        return self._view(self.memory.view(dtype))

    def copy(self) -> ndarray:
        return _made("copy", [self], self.shape, self.dtype)

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return _made("astype", [self], self.shape, dtype) if copy or self.dtype != dtype else self

    def mean(self) -> ndarray:
        return _made("mean", [self], (), self.dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if method != "__call__" or options:
            raise NotImplementedError(f"the stand-in for CuPy does not know {ufunc.__name__}.{method} {options}")
        arrays = [a for a in inputs if isinstance(a, ndarray)]
        dtype = ufunc(*(np.ones((), a.dtype) if isinstance(a, ndarray) else a for a in inputs)).dtype
        if out is None:
            shape = np.broadcast_shapes(*(a.shape for a in arrays))
            return _made(ufunc.__name__, arrays, shape, dtype)
        _seen[-1](ufunc.__name__, arrays, out)
        return out[0]


def _made(name: str, read: Sequence[ndarray], shape: tuple[int, ...], dtype: Any) -> ndarray:
    """The new array that `name` makes in one launch."""
    made = ndarray(np.empty(shape, dtype))
    _seen[-1](name, read, [made])
    return made


def made() -> int:
    """How many arrays have memory of their own so far: the next one's serial number."""
    return ndarray(np.empty(0)).serial + 1


def alive() -> set[int]:
    """The serial numbers of memory that somebody holds."""
    return {owner.serial for owner in owners.values()}


class _Device:
    """One card; its L2 cache decides into which pieces a convolution is cut."""

    current = ""

    def __init__(self, device: str):
        self.attributes = {"L2CacheSize": int(device.rpartition(" ")[2])}


def _empty(shape: Any, dtype: Any = np.float32) -> ndarray:
    return ndarray(np.empty(shape, dtype))


def _zeros_like(a: ndarray) -> ndarray:
    return ndarray(np.zeros(a.shape, a.dtype))  # a memset, no kernel


def _ones_like(a: ndarray) -> ndarray:
    return _made("fill", [], a.shape, a.dtype)


def _ascontiguousarray(a: ndarray) -> ndarray:
    return a if a.flags.c_contiguous else a.copy()


def _dot(a: ndarray, b: ndarray, out: ndarray | None = None) -> ndarray:
    out = _empty((len(a), b.shape[1]), a.dtype) if out is None else out
    _seen[-1]("cuBLAS", [a, b], [out])
    return out


def _concatenate(xs: Sequence[ndarray], axis: int) -> ndarray:
    """CuPy copies one array after the other, unless all have the same shape."""
    axis %= xs[0].ndim
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    joined = _empty(tuple(shape), xs[0].dtype)
    if len({x.shape for x in xs}) == 1:
        _seen[-1]("concatenate", xs, [joined])
    else:
        for x, part in zip(xs, _split(joined, np.cumsum([x.shape[axis] for x in xs])[:-1], axis), strict=True):
            _seen[-1]("concatenate", [x], [part])
    return joined


def _split(a: ndarray, at: Any, axis: int) -> list[ndarray]:
    return [a._view(part) for part in np.split(a.memory, at, axis)]


def _broadcast_to(a: ndarray, shape: tuple[int, ...]) -> ndarray:
    return a._view(np.broadcast_to(a.memory, shape))


@contextlib.contextmanager
def cupy(seen: Seen, cache: int) -> Iterator[types.ModuleType]:
    """Within the block `cupy` is the stand-in, on a card with `cache` bytes of L2."""
    module = types.ModuleType("cupy")
    names: dict[str, Any] = {
        "ndarray": ndarray,
        "empty": _empty,
        "zeros_like": _zeros_like,
        "ones_like": _ones_like,
        "asarray": lambda a: ndarray(np.ascontiguousarray(a)),
        "ascontiguousarray": _ascontiguousarray,
        "dot": _dot,
        "concatenate": _concatenate,
        "split": _split,
        "broadcast_to": _broadcast_to,
        "cuda": types.SimpleNamespace(Device=_Device),
    }
    vars(module).update(names)
    before = sys.modules.get("cupy")
    sys.modules["cupy"], _Device.current = module, f"hollow {cache}"
    _seen.append(seen)
    try:
        yield module
    finally:
        _seen.pop()
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
