"""NVIDIA's run-time compiler without a GPU, a driver or CuPy: what each kernel needs of each generation of cards.

`python -m tests.cuda.nvrtc` prints registers, spilled bytes and shared memory of every kernel. The compiler comes as
the wheel nvidia-cuda-nvrtc, the headers of `half` as nvidia-cuda-runtime.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import kernels.cuda
from kernels.cuda.launcher import Source, source

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)  # compute capabilities, times ten
# What CuPy 14 compiles with, and what the kernels ask of it.
OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")
FOLDER = Path(kernels.cuda.__file__).parent


class Needs(NamedTuple):
    """What one kernel takes of a multiprocessor."""

    kernel: str
    registers: int  # of a thread
    spilled: int  # bytes of a thread that did not fit into registers, written or read
    shared: int  # bytes of a block


def _wheel_folders() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")  # a namespace package, shared by NVIDIA's wheels
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _found(pattern: str) -> list[Path]:
    return sorted(path for folder in _wheel_folders() for path in folder.glob(pattern))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiler, or None where its wheel is not installed."""
    paths = [path for path in _found("*/lib/libnvrtc.so.*") if "alt" not in path.name]
    return ctypes.CDLL(str(paths[-1])) if paths else None


@functools.cache
def half_headers() -> Path | None:
    """The folder of cuda_fp16.h, or None where its wheel is not installed."""
    paths = _found("*/include/cuda_fp16.h")
    return paths[-1].parent if paths else None


def _check(nvrtc: ctypes.CDLL, status: int) -> None:
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    if status:
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(status).decode()}")


def compile_log(code: str, name: str, architecture: int) -> str:
    """Compile for one architecture; the log, with the assembler's account of every kernel.

    Raises SyntaxError with the compiler's messages for code that it refuses.
    """
    nvrtc = library()
    assert nvrtc is not None
    options = [*OPTIONS, f"-arch=sm_{architecture}", "--ptxas-options=-v"]
    if "cuda_fp16.h" in code:
        options.append(f"-I{half_headers()}")
    program = ctypes.c_void_p()
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), name.encode(), 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), given)
        size = ctypes.c_size_t()
        _check(nvrtc, nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        log = ctypes.create_string_buffer(size.value)
        _check(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    if status:
        raise SyntaxError(f"{name} for sm_{architecture}:\n{text}")
    return text


def needs(log: str) -> list[Needs]:
    """What the assembler's account says of each kernel."""

    def number(pattern: str, part: str) -> int:
        return sum(int(found) for found in re.findall(pattern, part))

    parts = log.split("Compiling entry function '")[1:]
    return [
        Needs(
            part.partition("'")[0],
            number(r"Used (\d+) registers", part),
            number(r"(\d+) bytes spill", part) + number(r"(\d+) bytes stack frame", part),
            number(r"(\d+) bytes smem", part),
        )
        for part in parts
    ]


_VARIANTS = re.compile(r"^// ([A-Z]+) is ([a-z ]+ or [a-z ]+)\.$", re.MULTILINE)


def sources() -> Iterator[tuple[str, Source]]:
    """(name, source) of every .cu file for all types that a line of it such as `// T is float or half.` names."""
    for path in sorted(FOLDER.glob("*.cu")):
        declared = [(name, types.split(" or ")) for name, types in _VARIANTS.findall(path.read_text(encoding="utf-8"))]
        for types in itertools.product(*(values for _, values in declared)):
            chosen = tuple(zip((name for name, _ in declared), types, strict=True))
            yield " ".join([path.name, *types]), source(path, chosen)


def main() -> None:
    if library() is None:
        raise SystemExit("the compiler is missing: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime")
    columns = "{:36} {:24} {:>9} {:>8} {:>7}  {}"
    print(columns.format("source", "kernel", "registers", "spilled", "shared", "architectures"))
    for name, text in sources():
        tables = {architecture: needs(compile_log(text.code, name, architecture)) for architecture in ARCHITECTURES}
        for rows in zip(*tables.values(), strict=True):
            low, high = (choose(row.registers for row in rows) for choose in (min, max))
            registers = f"{low}" if low == high else f"{low}-{high}"
            row = columns.format(
                name,
                rows[0].kernel,
                registers,
                max(r.spilled for r in rows),
                max(r.shared for r in rows),
                f"sm_{ARCHITECTURES[0]} to sm_{ARCHITECTURES[-1]}",
            )
            print(row)


if __name__ == "__main__":
    main()
