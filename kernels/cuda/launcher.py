"""Launch the kernels of a .cu file with arguments checked against the signature that stands in its source.

CUDA checks nothing: a Python 2.5 for a `float` becomes 0, a float64 array is read as twice as many float32, a missing
argument ends the process. Here every kernel's parameters are parsed from its source; scalars are converted to their
exact C type; count, dtype, layout, device and range of all arguments are checked before anything is launched, and a
mistake is one TypeError that names kernel, argument, expected and given. An empty grid launches nothing.

A source file declares `extern "C" __global__ void name(const T* x, float* y, int n)`. A parameter that may be left
out is written `const float* b /* or null */` and takes None. Names such as T stand for the types that the call gives.
The file is compiled at its first launch, by a `Launcher`: CuPy's here, replaced by tests that run kernels on the host.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

Dim = tuple[int, ...]  # of a grid or a block: up to (x, y, z)

C_TYPES: dict[str, type[np.generic]] = {
    "bool": np.bool_,
    "double": np.float64,
    "float": np.float32,
    "half": np.float16,
    "int": np.int32,
    "long long": np.int64,
    "unsigned": np.uint32,
    "unsigned char": np.uint8,
    "unsigned long long": np.uint64,
}
LARGEST = 2**31 - 1024  # elements of an array: with a block's worth to spare, every index fits into an int
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = 1024  # of a block
MOST_SHARED = 48 * 1024  # bytes of a block


class Parameter(NamedTuple):
    """One parameter of a kernel, as its declaration has it."""

    name: str
    dtype: np.dtype  # of the scalar, or of the array's elements
    pointer: bool = False
    optional: bool = False  # a pointer that may be null


def _limits(dtype: np.dtype) -> tuple[float, float]:
    """The least and the greatest number of a type."""
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


_CTYPES = {np.dtype(scalar): name for name, scalar in C_TYPES.items()}
_LIMITS = {dtype: _limits(dtype) for dtype in _CTYPES}

_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)'
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^#define[ ]+(\w+)[ ]+([\w ]+?)[ ]*$", re.MULTILINE)
_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)


def signatures(code: str) -> dict[str, tuple[Parameter, ...]]:
    """The parameters of every kernel in a source, by its name; types named by a `#define` are resolved.

    Raises ValueError for a declaration with a type that is not in C_TYPES.
    """
    code = _COMMENT.sub("", code.replace("/* or null */", "OR_NULL"))
    types = {name: value for name, value in _DEFINE.findall(code) if value in C_TYPES}

    def parameter(kernel: str, declaration: str) -> Parameter:
        words = declaration.replace("*", " * ").split()
        optional, pointer = "OR_NULL" in words, "*" in words
        *of_type, name = [word for word in words if word not in ("*", "OR_NULL", "const", "__restrict__")]
        ctype = types.get(" ".join(of_type), " ".join(of_type))
        if ctype not in C_TYPES:
            raise ValueError(
                f"{kernel}: parameter {name} has the type {ctype!r}, which is none of {', '.join(C_TYPES)}"
            )
        return Parameter(name, np.dtype(C_TYPES[ctype]), pointer, optional)

    return {
        found["name"]: tuple(parameter(found["name"], text) for text in found["parameters"].split(",") if text.strip())
        for found in _KERNEL.finditer(code)
    }


class Launcher(Protocol):
    """How kernels run: which arrays they take, and what a launch is. Arguments arrive checked, None for a null."""

    array: Any  # their type

    def elsewhere(self, array: Any) -> str:
        """Where an array lies that the kernel cannot reach, in words; nothing if it can."""

    def launch(self, source: Source, kernel: str, grid: Dim, block: Dim, arguments: list[Any], shared: int) -> None: ...


class CupyLauncher:
    """Compiles with NVRTC and launches on the current stream. CuPy caches what is compiled on disk, by the source."""

    def __init__(self) -> None:
        import cupy

        self.array = cupy.ndarray
        self._current = cupy.cuda.runtime.getDevice
        self._module = functools.cache(lambda code: cupy.RawModule(code=code, options=("-std=c++17",)))
        self._function = functools.cache(lambda code, kernel: self._module(code).get_function(kernel))

    def elsewhere(self, array: Any) -> str:
        current = self._current()
        return "" if array.data.device_id == current else f"on device {array.data.device_id} while {current} is current"

    def launch(self, source: Source, kernel: str, grid: Dim, block: Dim, arguments: list[Any], shared: int) -> None:
        null = np.uint64(0)  # CuPy would take None for an argument without a value
        given = tuple([null if a is None else a for a in arguments])
        self._function(source.code, kernel)(grid, block, given, shared_mem=shared)


_replacement: list[Launcher] = []


@functools.cache
def _cupy() -> Launcher:
    return CupyLauncher()


def _launcher() -> Launcher:
    return _replacement[-1] if _replacement else _cupy()


@contextlib.contextmanager
def using(launcher: Launcher) -> Iterator[None]:
    """Within the block, kernels are launched by `launcher` instead of CuPy's."""
    _replacement.append(launcher)
    try:
        yield
    finally:
        _replacement.pop()


class Source(NamedTuple):
    """The complete text of a compilation: the file's, with its includes in place and its types defined.

    Includes are put in place because CuPy's cache, which looks at the source alone, would not see a change in them.
    """

    path: Path
    code: str


@functools.cache
def source(path: Path, types: tuple[tuple[str, str], ...] = ()) -> Source:
    """The source of `path` for `types`, such as (("T", "float"),)."""
    defines = "".join(f"#define {name} {ctype}\n" for name, ctype in types)
    text = path.read_text(encoding="utf-8")
    text = _INCLUDE.sub(lambda found: (path.parent / found[1]).read_text(encoding="utf-8"), text)
    half = "#include <cuda_fp16.h>\n" if "half" in dict(types).values() else ""
    return Source(path, half + defines + text)


class Kernels:
    """The kernels of one .cu file: `Kernels(path).launch("relu", grid, block, x, y, n, T=x.dtype)`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sources: dict[tuple[tuple[str, Any], ...], tuple[Source, dict[str, tuple[Parameter, ...]]]] = {}

    def launch(self, kernel: str, grid: Dim, block: Dim, *arguments: Any, shared: int = 0, **types: Any) -> None:
        """Launch `kernel` on a grid of blocks; `types` are the dtypes that names such as T stand for.

        Raises TypeError, before any launch, for an argument that the kernel's signature does not allow.
        """
        checked = self.check(kernel, *arguments, **types)
        _check_dimensions(kernel, grid, block, shared)
        if min(grid) > 0:
            _launcher().launch(self._source(types)[0], kernel, grid, block, checked, shared)

    def check(self, kernel: str, *arguments: Any, **types: Any) -> list[Any]:
        """The arguments as `kernel` takes them. Raises TypeError as `launch` does."""
        parameters, launcher = self._source(types)[1][kernel], _launcher()
        if len(arguments) != len(parameters):
            names = ", ".join(parameter.name for parameter in parameters)
            raise TypeError(f"{kernel}: expected {len(parameters)} arguments ({names}), got {len(arguments)}")
        return [
            _array(kernel, parameter, argument, launcher) if parameter.pointer else _scalar(kernel, parameter, argument)
            for parameter, argument in zip(parameters, arguments, strict=True)
        ]

    def _source(self, types: dict[str, Any]) -> tuple[Source, dict[str, tuple[Parameter, ...]]]:
        """The file for these types, and the signatures of its kernels; both are read once."""
        key = tuple(types.items())
        if key not in self._sources:
            text = source(self._path, tuple((name, _CTYPES[np.dtype(dtype)]) for name, dtype in key))
            self._sources[key] = text, signatures(text.code)
        return self._sources[key]


# ---- Checks. A training step launches a thousand kernels: what is right passes quickly, words are for what is not. ---


def _refused(kernel: str, parameter: Parameter, expected: str, value: Any, more: str = "") -> TypeError:
    given = f"{type(value).__name__} {value!r}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        given = f"{type(value).__module__.partition('.')[0]} {value.dtype} array {tuple(value.shape)}"
    return TypeError(f"{kernel}: {parameter.name} must {expected}, got {given}{more}")


def _array(kernel: str, parameter: Parameter, value: Any, launcher: Launcher) -> Any:
    if value is None and parameter.optional:
        return None
    kind = launcher.array
    if not isinstance(value, kind) or value.dtype != parameter.dtype:
        expected = f"be a {kind.__module__.partition('.')[0]} {parameter.dtype} array"
        raise _refused(kernel, parameter, expected, value)
    if not value.flags.c_contiguous:
        raise _refused(kernel, parameter, "be C-contiguous", value, f" with strides {value.strides}")
    if value.size > LARGEST:
        raise _refused(kernel, parameter, f"have at most {LARGEST} elements", value)
    if place := launcher.elsewhere(value):
        raise _refused(kernel, parameter, "be on the current device", value, f" {place}")
    return value


def _scalar(kernel: str, parameter: Parameter, value: Any) -> np.generic:
    dtype, (low, high) = parameter.dtype, _LIMITS[parameter.dtype]
    if isinstance(value, (bool, np.bool_)):
        fits = dtype.kind == "b"
    elif isinstance(value, (int, np.integer)):
        fits = dtype.kind != "b" and low <= int(value) <= high
    elif isinstance(value, (float, np.floating)):
        fits = dtype.kind == "f" and not high < abs(float(value)) < math.inf
    else:
        fits = False
    if not fits:
        raise _refused(kernel, parameter, f"be {'an' if dtype.kind == 'i' else 'a'} {dtype}", value)
    return dtype.type(value)


def _check_dimensions(kernel: str, grid: Dim, block: Dim, shared: int) -> None:
    threads = math.prod(block)
    if not 1 <= threads <= MOST_THREADS:
        raise TypeError(f"{kernel}: a block must have 1 to {MOST_THREADS} threads, got {threads} {block}")
    if any(not 0 <= blocks <= most for blocks, most in zip(grid, MOST_BLOCKS, strict=False)):
        raise TypeError(f"{kernel}: a grid must have at most {MOST_BLOCKS} blocks, got {grid}")
    if shared > MOST_SHARED:
        raise TypeError(f"{kernel}: shared memory must be at most {MOST_SHARED} bytes, got {shared}")
