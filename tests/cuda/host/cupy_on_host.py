"""The real CuPy, of its ROCm wheel, with every kernel compiled for the CPU, those that it writes itself included.

`enter(folder)` makes `import cupy` find it; folder is what `environment.py` has made. Arrays, streams, errors and the
checks of arguments are CuPy's own; only the libraries below it and its compiler are replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cuda.host import build
from tests.cuda.host.module import ORDERS

HEADERS = ("cupy/complex.cuh", "cupy/carray.cuh", "cupy/atomics.cuh", "cupy/math_constants.h")  # of CuPy's own kernels


def enter(folder: Path) -> None:
    """Make `import cupy` in this process import the CuPy of `folder`, working on the CPU."""
    build.runtime()
    for library in sorted((folder / "libraries").glob("*.so.*")):  # by their names the loader will find them again
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    os.environ |= {"CUPY_ACCELERATORS": "", "ROCM_HOME": str(folder)}  # CUB is precompiled for a GPU
    sys.path.insert(0, str(folder / "wheel"))
    import cupy
    from cupy.cuda import compiler

    compiler._compile_with_cache_hip = functools.partial(_compile, Path(cupy.__file__).parent / "_core" / "include")
    cupy.cuda.set_allocator(None)  # no pool: every array ends at a page that faults
    cupy.cuda.set_pinned_memory_allocator(None)


def _compile(
    include: Path, source: str, options: tuple[str, ...], *_: Any, name_expressions: Any = None, **__: Any
) -> Any:
    from cupy.cuda import compiler, function

    instances = list(name_expressions or ())
    given = [option for option in options if option.startswith(("-I", "-D"))]
    kept = [f"-I{include}", "-D__CUDACC_VER_MAJOR__=12", *given]
    try:
        path = build.module(source, instances=instances, options=kept, headers=HEADERS)
    except build.CompileError as error:
        raise compiler.CompileException(str(error), source, "kernel.cu", options, "g++") from None
    module = function.Module()
    module._set_mapping({name: f"instance{i}" for i, name in enumerate(instances)})
    module.load(b"HOST:" + os.fsencode(path) + b"\0")
    return module


def _runtime() -> Any:
    return ctypes.CDLL("libamdhip64.so.7")


def launches() -> int:
    """How many kernels have been launched in this process."""
    return _runtime().host_launches()


@contextlib.contextmanager
def order(name: str) -> Iterator[None]:
    """Within the block, threads run in this order: "forward", "reverse" or "random"."""
    _runtime().host_order(ORDERS[name])
    try:
        yield
    finally:
        _runtime().host_order(ORDERS["forward"])


@contextlib.contextmanager
def no_synchronising() -> Iterator[None]:
    """Within the block, all that makes the host wait for the device raises: `.get()`, `float(a)`, `synchronize()`, …"""
    _runtime().host_forbid_synchronising(1)
    try:
        yield
    finally:
        _runtime().host_forbid_synchronising(0)
