"""Run CUDA kernels on NumPy arrays: every array lies in memory of its own that ends at a page nobody may touch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.cuda.host import build

ORDERS = {"forward": 0, "reverse": 1, "random": 2}
ALIGNMENT = 16  # bytes: what the widest load of a kernel wants
PROT_NONE = 0  # of mman.h: neither read nor written
UNTOUCHED = 0xA5  # fills what lies beside an array; a write out of bounds shows


class KernelError(RuntimeError):
    """A kernel did what it must not: a barrier that not all threads reach, a wild access, undefined behaviour, …"""


class _Launch(ctypes.Structure):
    """struct Launch of block.h."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("order", ctypes.c_uint),
        ("seed", ctypes.c_uint),
    ]


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def guarded(array: np.ndarray) -> Iterator[np.ndarray]:
    """A copy of a contiguous array between two pages that fault, as near to the second as its alignment allows.

    Raises KernelError afterwards if something was written beside it.
    """
    page = mmap.PAGESIZE
    room = -(-max(array.nbytes, 1) // ALIGNMENT) * ALIGNMENT
    inner = -(-room // page) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for edge in (start, start + page + inner):
        if _libc().mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    whole = np.frombuffer(memory, np.uint8, inner, page)
    whole[:] = UNTOUCHED
    begin = inner - room
    copy = whole[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    yield copy
    if (whole[:begin] != UNTOUCHED).any() or (whole[begin + array.nbytes :] != UNTOUCHED).any():
        raise KernelError(f"memory beside an array of shape {array.shape} was written")


class HostModule:
    """The kernels of one source, compiled for the CPU.

    `order` is the order in which threads run between barriers: "forward" and "reverse" by number, "random" another
    one for each block, from `seed`. `ubsan` makes undefined behaviour of the kernels' C++ an error.
    """

    def __init__(self, library: Path, order: str, seed: int):
        if order not in ORDERS:
            raise ValueError(f"order: unknown order {order!r}, choose one of {', '.join(ORDERS)}")
        build.runtime()
        self._library = ctypes.CDLL(str(library))
        self._order, self._seeds = ORDERS[order], itertools.count(seed)

    def signature(self, name: str) -> list[str]:
        """The parameters as NumPy names them: "f4" a float, "*f4" a float pointer, "&f4" one that is only read."""
        spell = self._export("host_signature_", name)
        spell.restype = ctypes.c_char_p
        return spell().decode().split()

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int = 0
    ) -> None:
        """Run one kernel. `args`: C-contiguous NumPy arrays, None for a null pointer, NumPy scalars of the exact type.

        Raises TypeError for arguments that do not fit the signature, KernelError for what the kernel does wrong.
        """
        types = self.signature(name)
        if len(args) != len(types):
            raise TypeError(f"{name}: takes {len(types)} arguments, {len(args)} given")
        for i, (arg, wanted) in enumerate(zip(args, types, strict=True)):
            if not _fits(arg, wanted):
                given = f"{type(arg).__name__} {getattr(arg, 'dtype', '')}".strip()
                raise TypeError(f"{name}: argument {i} must be {wanted}, {given} given")
        with contextlib.ExitStack() as stack:
            copies = [stack.enter_context(guarded(a)) if isinstance(a, np.ndarray) else a for a in args]
            self._run(name, grid, block, copies, shared)
            for arg, copy, wanted in zip(args, copies, types, strict=True):
                if wanted.startswith("*") and arg is not None:
                    arg[...] = copy

    def _run(self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int) -> None:
        values = [np.array([_value(arg)]) for arg in args]
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(value.ctypes.data for value in values))
        launch = self._export("host_launch_", name)
        launch.restype = ctypes.c_char_p
        problem = launch(
            ctypes.byref(_Launch(_dim(grid), _dim(block), shared, self._order, next(self._seeds))), pointers
        )
        if problem:
            raise KernelError(f"{name}: {problem.decode()}")

    def _export(self, kind: str, name: str) -> Any:
        try:
            return getattr(self._library, kind + name)
        except AttributeError:
            raise KeyError(f"no kernel {name} in this module") from None


def _fits(arg: Any, wanted: str) -> bool:
    if wanted[0] not in "*&":
        return isinstance(arg, np.generic) and arg.dtype == wanted
    if arg is None:
        return True
    return isinstance(arg, np.ndarray) and arg.flags.c_contiguous and arg.dtype == wanted[1:]


def _value(arg: Any) -> np.generic:
    return np.uint64(0 if arg is None else arg.ctypes.data) if arg is None or isinstance(arg, np.ndarray) else arg


def _dim(sizes: Sequence[int]) -> Any:
    return (ctypes.c_uint * 3)(*sizes, *(1,) * (3 - len(sizes)))


@functools.cache
def _library(code: str, ubsan: bool) -> Path:
    return build.module(code, ubsan=ubsan)


def load(source: Path | str, *, order: str = "forward", ubsan: bool = False, seed: int = 1) -> HostModule:
    """The module of a .cu file (a Path) or of its text (a str)."""
    code = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    return HostModule(_library(code, ubsan), order, seed)
