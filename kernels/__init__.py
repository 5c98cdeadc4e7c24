"""The array kernels under minicnn: one vocabulary, several backends, chosen by the array itself.

`reference` is the specification in readable array code for NumPy and CuPy arrays; `cpu` (Numba) and `cuda` (CUDA)
start from it and redefine what they make fast. Kernels know arrays only, never Tensors.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

OWNER = "minicnn"  # tells this package from others called `kernels` (one is on PyPI)

_numpy_backend: contextvars.ContextVar[str] = contextvars.ContextVar("numpy_backend", default="cpu")


def array_module(array: Any) -> ModuleType:
    """The module whose functions take this array: `numpy`, or `cupy` without importing it for anybody else.

    Raises TypeError for anything that is neither a NumPy nor a CuPy array.
    """
    if isinstance(array, np.ndarray):
        return np
    if type(array).__module__.partition(".")[0] == "cupy":
        return sys.modules["cupy"]
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}: convert it with numpy.asarray first")


def of(array: Any) -> ModuleType:
    """The backend that works on this array: the array decides, no op asks for a device."""
    name = _numpy_backend.get() if array_module(array) is np else "cuda"
    return importlib.import_module(f"kernels.{name}")


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Within the block, NumPy arrays of this thread go to the backend `name`: "reference" or "cpu".

    CuPy arrays are not affected. Raises ValueError for another name.
    """
    if name not in ("reference", "cpu"):
        raise ValueError(f"kernels.use: unknown backend {name!r}, choose 'reference' or 'cpu'")
    token = _numpy_backend.set(name)
    try:
        yield
    finally:
        _numpy_backend.reset(token)


def which() -> dict[str, dict[str, str]]:
    """For every kernel, the backend whose code each backend really runs: `which()["lrn"]["cpu"] == "cpu"`.

    A kernel that a backend does not redefine says "reference".
    """
    backends = {name: importlib.import_module(f"kernels.{name}") for name in ("reference", "cpu", "cuda")}
    return {
        kernel: {name: getattr(backend, kernel).__module__.split(".")[1] for name, backend in backends.items()}
        for kernel in backends["reference"].__all__
    }
