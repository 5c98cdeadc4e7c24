"""Compile CUDA source for the CPU: g++ and the headers of include/, which give a kernel what CUDA gives it.

What has been compiled is kept on disk under a hash of everything that it depends on: source, headers, compiler and
options. The folder is MINICNN_HOST_KERNELS, or a cache folder of the user's; it can be deleted at any time.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import platformdirs

HERE = Path(__file__).parent
INCLUDE = HERE / "include"
# -O1 compiles fastest and is fast enough; -fno-gnu-unique, or two modules would share the variables of one name.
OPTIONS = (
    *("-std=c++17", "-O1", "-g1", "-fPIC", "-w"),
    *(
        "-fvisibility=hidden",
        "-fno-gnu-unique",
        "-fno-strict-aliasing",
        "-ffp-contract=off",
        "-ftls-model=local-dynamic",
    ),
)
UBSAN = ("-fsanitize=undefined,float-cast-overflow", "-fno-sanitize=vptr", "-fno-sanitize-recover=all")

_KERNEL = re.compile(
    r'extern\s+"C"\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?'
    r"void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\("
)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w:<> ]+?)\s+(\w+)\s*\[\s*\]\s*;")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class CompileError(RuntimeError):
    """What g++ says about a source."""


def cache() -> Path:
    """The folder of what has been compiled."""
    named = os.environ.get("MINICNN_HOST_KERNELS")
    return Path(named) if named else platformdirs.user_cache_path("minicnn", appauthor=False) / "host-kernels"


@functools.cache
def compiler() -> str:
    """The C++ compiler, CXX or g++. Raises CompileError if there is none."""
    name = os.environ.get("CXX", "g++")
    try:
        subprocess.run([name, "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise CompileError(f"no C++ compiler: {name} does not run; install g++ or name one in CXX") from None
    return name


@functools.cache
def _fixed() -> bytes:
    """What every compilation depends on besides its source and its options."""
    version = subprocess.run([compiler(), "--version"], capture_output=True, check=True).stdout
    headers = sorted(path for path in INCLUDE.rglob("*") if path.is_file())
    return b"\0".join([version, *(path.read_bytes() for path in headers)])


def _product(text: str, options: Iterable[str], ending: str) -> Path:
    """What g++ makes of a C++ text, made if it has not been yet. Raises CompileError with g++'s words."""
    options = list(options)
    key = hashlib.sha256(b"\0".join([_fixed(), text.encode(), *(o.encode() for o in options)])).hexdigest()[:32]
    path = cache() / f"{key}.{ending}"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, product = Path(folder, "source.cpp"), Path(folder, "product")
        source.write_text(text, encoding="utf-8")
        command = [compiler(), f"-I{INCLUDE}", *options, str(source), "-o", str(product)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"g++ cannot compile the kernel:\n{done.stderr}")
        product.replace(path)  # at once, so that no other process sees half a file
    return path


def library(text: str, options: Iterable[str]) -> Path:
    """The shared library of a C++ text."""
    return _product(text, ("-shared", *options), "so")


@functools.cache
def prelude(headers: tuple[str, ...], options: tuple[str, ...]) -> tuple[str, str]:
    """The options that put these headers in front of a text; compiled once, they cost it a third of their time."""
    text = "".join(f"#include <{header}>\n" for header in headers)
    compiled = _product(text, ("-x", "c++-header", *options), "h.gch")
    return "-include", str(compiled.with_suffix(""))


@functools.cache
def runtime() -> ctypes.CDLL:
    """block.cpp, which runs the blocks of all modules; loaded for all to see."""
    text = (HERE / "block.cpp").read_text(encoding="utf-8").replace('"include/', '"')
    path = library(text, ("-std=c++17", "-O2", "-g1", "-fPIC", "-fvisibility=hidden"))
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def kernels(code: str) -> list[str]:
    """The names of the `extern "C"` kernels in a source."""
    return _KERNEL.findall(_COMMENT.sub("", code))


def module(
    code: str,
    *,
    instances: Iterable[str] = (),
    options: Iterable[str] = (),
    headers: Iterable[str] = (),
    ubsan: bool = False,
) -> Path:
    """The library of a CUDA source; it exports `host_launch_NAME` and `host_signature_NAME` for each kernel.

    `instances` are template instances such as "im2col<float, 3>", exported as instance0, instance1, …; `headers` are
    some that the source includes, to be compiled once for all sources with the same options.
    """
    exports = {name: name for name in kernels(code)} | {f"instance{i}": name for i, name in enumerate(instances)}
    code = _DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(host::dynamic_shared());", code)
    lines = [f"HOST_KERNEL({symbol}, {name})" for symbol, name in exports.items()]
    text = "\n".join(['#line 1 "kernel.cu"', code, '#line 1 "exports"', *lines, ""])
    options = (*OPTIONS, *(UBSAN if ubsan else ()), *options)
    return library(text, (*prelude(("cuda_on_host.h", *headers), options), *options))
