"""What a training step launches on a GPU, as its own code asks for it: every kernel with what it reads and writes.

The step runs on arrays without elements (hollow.py). Our kernels arrive at the launcher, products at the wrapper of
cuBLAS, other array operations at the stand-in for CuPy. Which parameters a kernel reads and which it writes, and its
shared memory, is taken from its source.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

from benchmarks import hollow
from kernels.cuda import gemm, launcher
from minicnn import device

Array = hollow.ndarray


class Touch(NamedTuple):
    """Memory that a kernel reads or writes: `length` bytes from `start`, or evenly spread, the `share` of them."""

    array: int  # the serial number of its owner
    start: int
    length: int
    share: float = 1.0

    @property
    def bytes(self) -> float:
        return self.length * self.share


class Launch(NamedTuple):
    """One launch. A kernel of ours has a grid, a block and shared memory; cuBLAS and CuPy choose their own."""

    kernel: str
    reads: tuple[Touch, ...]
    writes: tuple[Touch, ...]
    flops: float
    grid: launcher.Dim = ()
    block: launcher.Dim = ()
    shared: int | None = None  # bytes of a block
    numbers: tuple[Any, ...] = ()  # scalar arguments


def touch(a: Array) -> Touch:
    """All elements of an array."""
    start = a.memory.ctypes.data - a.owner.memory.ctypes.data
    steps = [(size - 1) * stride for size, stride in zip(a.shape, a.strides, strict=True)]
    start += sum(step for step in steps if step < 0)
    length = sum(map(abs, steps)) + a.itemsize if a.size else 0
    return Touch(a.serial, start, length, min(1.0, a.nbytes / length) if length else 1.0)


# ---- What a source says of a kernel ---------------------------------------------------------------------------------


class Kernel(NamedTuple):
    """What the text of a kernel says: its parameters' names, those of arrays that are read, or written; the memory."""

    names: tuple[str, ...]
    read: frozenset[str]
    written: frozenset[str]
    shared: int  # bytes, without what the launch adds


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_CONSTANTS = re.compile(r"constexpr int ([^;]+;)")
_SHARED = re.compile(r"(?<!extern )__shared__ (\w+) ([^;]+);")
_SIZES = {"float": 4, "Moments": 12, "half": 2}


@functools.cache
def kernel(code: str, name: str) -> Kernel:
    """What `code`, the text of a compilation, says of the kernel `name`.

    An array is written unless it is const, and read unless it is mentioned only where an element of it is assigned to.
    """
    code = _COMMENT.sub("", code)
    found = re.search(rf"__global__[^{{;]*\b{name}\s*\(([^)]*)\)\s*\{{", code)
    assert found, f"{name} is not in its source"
    body = code[found.end() : re.compile(r"^\}", re.MULTILINE).search(code, found.end()).start()]  # type: ignore[union-attr]
    arrays, names = {}, []
    for declaration in found[1].split(","):
        names.append(declaration.split()[-1].lstrip("*"))
        if "*" in declaration:
            arrays[names[-1]] = "const" in declaration
    written = frozenset(name for name, const in arrays.items() if not const)
    read = frozenset(name for name in arrays if name not in written or _is_read(name, body))
    return Kernel(tuple(names), read, written, _shared(code, body))


def _is_read(name: str, body: str) -> bool:
    """Whether `name` is mentioned other than as name[...] = ..."""
    for mention in re.finditer(rf"(?<![.\w]){name}\b", body):  # not threadIdx.y
        end, depth = mention.end(), 0
        if body[end] != "[":
            return True
        for end in range(mention.end(), len(body)):
            depth += {"[": 1, "]": -1}.get(body[end], 0)
            if depth == 0:
                break
        if not re.match(r"\] = ", body[end:]):
            return True
    return False


def _shared(code: str, body: str) -> int:
    """The bytes of the arrays that a kernel, or a function that it calls, declares in shared memory."""
    constants = dict(re.findall(r"(\w+) = ([^,;]+)", " ".join(_CONSTANTS.findall(code))))

    def number(term: str) -> int:
        return int(term) if term.isdigit() else sum(map(number, constants[term].split(" + ")))

    functions = re.findall(r"__device__[^;{]*?\b(\w+)\([^)]*\) \{\n(.*?)^\}", code, re.MULTILINE | re.DOTALL)
    texts = [body, *(text for name, text in functions if re.search(rf"\b{name}\(", body))]
    total = 0
    for ctype, declared in (found for text in texts for found in _SHARED.findall(text)):
        for array in declared.split(","):
            total += _SIZES[ctype] * math.prod(map(number, re.findall(r"\[(\w+)\]", array)))
    return total


# ---- What a launch touches ------------------------------------------------------------------------------------------


def _columns(a: dict[str, Any]) -> tuple[Touch, Touch]:
    """Of im2col: the rows of x that the windows of this piece lie on, without those that no window sees; the piece."""
    x, col, first, rows = a["x"], a["col"], int(a["first"]), int(a["rows"])
    h, w, c, oh, ow, kh, kw = (int(a[name]) for name in ("H", "W", "C", "OH", "OW", "KH", "KW"))
    sh, sw, ph, dh = (int(a[name]) for name in ("SH", "SW", "PH", "DH"))
    line = w * c * x.itemsize
    (image, row), (last_image, last_row) = divmod(first // ow, oh), divmod((first + rows - 1) // ow, oh)
    begin = image * h + min(h, max(0, row * sh - ph))
    end = last_image * h + min(h, last_row * sh - ph + (kh - 1) * dh + 1)
    seen = min(1.0, kh / sh) * min(1.0, kw / sw)
    whole = touch(x)
    read = Touch(whole.array, whole.start + begin * line, max(0, end - begin) * line, seen)
    return read, touch(col)._replace(length=rows * kh * kw * c * col.itemsize)


def _by_table(table: Array) -> tuple[list[Touch], list[Touch]]:
    """Of an optimiser's common launch: the arrays whose addresses the table holds. All but gradients are written."""
    named = [(which, address) for row in table.memory.tolist() for which, address in enumerate(row) if address]
    touched = [(which, touch(hollow.owners[address])) for which, address in named]
    return [t for _, t in touched], [t for which, t in touched if which != 1]


# Additions, multiplications and the like that a kernel makes for each float that it reads, about. These kernels wait
# for memory: the figures decide no time.
_FLOPS = {
    "finish": 2, "relu": 1, "relu_grad": 0.5, "add": 0.5, "normalise": 4, "normalise_grad": 3, "stats_of_slices": 5,
    "grads_of_slices": 2, "sums_of_slices": 1, "join_sums": 1, "join_stats": 4, "lrn": 12, "lrn_grad": 15,
    "softmax": 5, "cross_entropy": 6, "cross_entropy_grad": 3, "dropout": 25, "max_pool": 4, "max_pool_grad": 4,
    "avg_pool": 4, "avg_pool_grad": 4, "global_avg_pool": 1, "global_avg_pool_grad": 1, "sgd_all": 2,
}  # fmt: skip


class Recorder:
    """A launcher that launches nothing and keeps what it is asked to launch."""

    array = hollow.ndarray

    def __init__(self) -> None:
        self.launches: list[Launch] = []

    def elsewhere(self, array: Any) -> str:
        return ""

    def launch(
        self,
        source: launcher.Source,
        name: str,
        grid: launcher.Dim,
        block: launcher.Dim,
        arguments: list[Any],
        shared: int,
    ) -> None:
        text = kernel(source.code, name)
        given = dict(zip(text.names, arguments, strict=True))
        arrays = {key: value for key, value in given.items() if isinstance(value, Array)}
        reads = [touch(a) for key, a in arrays.items() if key in text.read]
        writes = [touch(a) for key, a in arrays.items() if key in text.written]
        if name == "im2col":
            reads, writes = ([t] for t in _columns(given))
        if name.endswith("_all"):
            through, changed = _by_table(given["arrays"])
            reads, writes = reads + through, changed
        numbers = tuple(value for key, value in given.items() if key not in arrays and value is not None)
        flops = _FLOPS.get(name, 0) * sum(t.bytes for t in reads) / 4
        own = text.shared + shared
        self.launches.append(Launch(name, tuple(reads), tuple(writes), flops, grid, block, own, numbers))

    def seen(self, name: str, read: Sequence[Array], written: Sequence[Array]) -> None:
        """What CuPy and cuBLAS do."""
        reads, writes = tuple(map(touch, read)), tuple(map(touch, written))
        if name == "cuBLAS":
            (m, k), n = read[0].shape[-2:], read[1].shape[-1]
            self.launches.append(Launch("cuBLAS", reads, writes, 2.0 * m * k * n, numbers=(m, k, n)))
        else:
            self.launches.append(Launch(f"CuPy {name}", reads, writes, float(max(a.size for a in written))))

    def accumulate(self, a: Array, b: Array, out: Array, accumulate: bool) -> None:
        """In the place of gemm's own call of cuBLAS."""
        self.seen("cuBLAS", [a, b, out] if accumulate else [a, b], [out])


@contextlib.contextmanager
def recording(cache: int) -> Iterator[Recorder]:
    """Within the block what is done on CUDA is kept and not done, as on a card with `cache` bytes of L2."""
    recorder = Recorder()
    ours = mock.patch.object(gemm, "_cublas", recorder.accumulate)
    usable = mock.patch.object(device, "cuda_problem", lambda: None)
    with hollow.cupy(recorder.seen, cache), launcher.using(recorder), ours, usable:
        yield recorder
