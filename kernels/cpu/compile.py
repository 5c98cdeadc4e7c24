"""`@compiled`: Numba with our options, and machine code kept on disk between runs.

A kernel is compiled when it is first called with a given dtype. The result goes to a folder under the user's cache
directory, and the next process loads it in a millisecond or two. The folder may be deleted at any time.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
import os
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
from numba.core import event, types
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps
from numba.extending import _Intrinsic

# Sums may be reordered so that they run on SIMD lanes, and division by a constant becomes multiplication. Missing are
# "nnan" and "ninf": they would let the compiler assume NaN and Inf away, and those have to stay visible.
FAST = {"reassoc", "contract", "arcp", "nsz"}


def compiled(f: Callable) -> Callable:
    """Compile a serial kernel at its first call; it runs without the GIL, so that `threads.parallel` can split it.

    Division by zero gives Inf or NaN, as in NumPy, not an exception.
    """
    # No parallel=True: it makes compiling three to four times slower, and the thread layer that Numba has everywhere
    # (workqueue) takes 88 µs to start two tasks and aborts when two Python threads start some at once.
    # Kernels are called from Python and from each other; the third way, as a function in C, would take time to compile.
    kernel = numba.njit(nogil=True, fastmath=FAST, error_model="numpy", no_cfunc_wrapper=True)(f)  # type: ignore
    kernel._cache = DiskCache(kernel)  # type: ignore[attr-defined]
    kernel.get_call_template = functools.partial(_call_template, kernel.get_call_template)  # type: ignore[method-assign]
    return kernel


def _call_template(original: Callable, args: Any, kws: Any) -> Any:
    """What Numba asks a kernel that is called by another: to it, a constant is a number like any other.

    Numba gives each constant a type of its own, and would compile the called kernel anew for `f(0)`, `f(1)` and `f(i)`.
    """
    return original([types.unliteral(a) for a in args], {name: types.unliteral(a) for name, a in dict(kws).items()})


def seconds() -> float:
    """How long this process has spent, so far, on compiling kernels or loading compiled ones."""
    return _stopwatch.seconds


def on_compile(callback: Callable[[str], None]) -> None:
    """From here on, call `callback(name)` when a kernel begins to be compiled (not when it is loaded from disk)."""
    _stopwatch.callbacks.append(callback)


class DiskCache(NullCache):
    """Where the machine code of one kernel is kept: a file for each combination of argument types, CPU and versions.

    Numba's own cache finds its files through an index that is read, changed and written back, so that two processes
    compiling at once can each find the other's code under their own types. Here the name of a file is the digest of all
    that its content depends on, and the file appears whole or not at all: nothing needs a lock.
    """

    def __init__(self, kernel: Dispatcher):
        self.kernel = kernel

    @property
    def cache_path(self) -> str:
        return os.path.join(platformdirs.user_cache_dir("minicnn"), "compiled")

    def load_overload(self, signature: Any, target: Any) -> CompileResult | None:
        with _stopwatch:
            target.refresh()
            try:
                content = self._path(signature, target.codegen()).read_bytes()
            except OSError:
                return None
            code = content[32:]
            if hashlib.sha256(code).digest() != content[:32]:  # damaged
                return None
            return CompileResult._rebuild(target, *pickle.loads(code))

    def save_overload(self, signature: Any, result: CompileResult) -> None:
        if result.library.has_dynamic_globals:  # type: ignore[attr-defined]  # addresses in this process
            return
        code = dumps(result._reduce())
        try:
            _write_whole(self._path(signature, result.codegen), hashlib.sha256(code).digest() + code)
        except OSError as error:
            if not _stopwatch.warned:
                _stopwatch.warned = True
                warnings.warn(f"compiled kernels cannot be kept for the next run: {error}", stacklevel=2)

    def _path(self, signature: Any, codegen: Any) -> Path:
        versions = sys.version, numba.__version__, llvmlite.__version__
        fields = [getattr(t, "fields", ()) for t in signature]  # of a named tuple, `signature` shows only how many
        content = repr((signature, fields, codegen.magic_tuple(), versions, sorted(FAST), _sources(self.kernel)))
        digest = hashlib.sha256(content.encode()).hexdigest()
        return Path(self.cache_path, f"{self.kernel.py_func.__name__}-{digest[:40]}")


def _called(kernel: Dispatcher) -> list[Dispatcher]:
    """This kernel and the compiled functions that it calls by their names, and those that they call."""
    reached = [kernel]
    for f in reached:  # grows on the way
        named = [f.py_func.__globals__.get(name) for name in f.py_func.__code__.co_names]
        reached += [g for g in named if isinstance(g, Dispatcher) and g not in reached]
    return reached


def _sources(kernel: Dispatcher) -> list[str]:
    """What the code of this kernel is made from: the files that define it and what it calls, and the numbers they name.

    Of an intrinsic, that is the folder of the generator of its LLVM IR, and what it was generated for.
    """
    files, constants = set(), set()
    for f in _called(kernel):
        files.add(Path(f.py_func.__code__.co_filename))
        for name in f.py_func.__code__.co_names:
            value = f.py_func.__globals__.get(name)
            if isinstance(value, _Intrinsic):
                files.update(Path(value._defn.__code__.co_filename).parent.glob("*.py"))
                constants.add(f"{name}: {inspect.getclosurevars(value._defn).nonlocals}")
            elif isinstance(value, (int, float, tuple)):
                constants.add(f"{name} = {value}")
    return sorted(file.read_text() for file in files) + sorted(constants)


def _write_whole(path: Path, content: bytes) -> None:
    """Write under another name and rename, so that no reader ever sees half a file; OSError if that is impossible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


class _Stopwatch(event.Listener):
    """Adds up the time of compiling and loading; Numba's compiler lock is held while it runs, so one at a time.

    Meanwhile Python's garbage collector rests: it would take about a tenth of the time, and find next to nothing.
    """

    def __init__(self) -> None:
        self.seconds, self.depth, self.began, self.warned, self.collects = 0.0, 0, 0.0, False, True
        self.callbacks: list[Callable[[str], None]] = []

    def __enter__(self) -> None:
        if self.depth == 0:
            self.began, self.collects = time.perf_counter(), gc.isenabled()
            gc.disable()
        self.depth += 1  # compiling a kernel compiles those that it calls

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.began
            if self.collects:
                gc.enable()

    def on_start(self, event: Any) -> None:
        kernel = event.data["dispatcher"]
        if isinstance(getattr(kernel, "_cache", None), DiskCache):
            for callback in self.callbacks:
                callback(kernel.py_func.__name__)
            self.__enter__()

    def on_end(self, event: Any) -> None:
        if isinstance(getattr(event.data["dispatcher"], "_cache", None), DiskCache):
            self.__exit__()


_stopwatch = _Stopwatch()
event.register("numba:compile", _stopwatch)
