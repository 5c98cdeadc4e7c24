"""Stand-ins for the ROCm libraries that CuPy's wheel links with: what minicnn needs works, the rest says its name.

Each library defines every symbol that CuPy's extension modules want of it, or they would not load. hip/*.cpp defines
the functions that work; any other ends the process with a line that names it.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

from tests.cuda.host import build

SOURCES = {"libamdhip64": "runtime.cpp", "libhipblas": "blas.cpp", "libhiprtc": "compiler.cpp"}
LOADED_BY_NAME = ["libhiprtc.so.7"]  # by CuPy when it first compiles
PREFIXES = {  # of a library's functions; all others are the runtime's
    "hipblas": "libhipblas",
    "hipfft": "libhipfft",
    "hiprand": "libhiprand",
    "hipsparse": "libhipsparse",
    "nccl": "librccl",
    "rocblas": "librocblas",
    "rocfft": "librocfft",
    "rocsolver": "librocsolver",
    "roctracer": "libroctracer64",
    "roctx": "libroctx64",
}
_WANTED = re.compile(r"\s((?:__)?(?:hip|nccl|roc)\w+)(?:@(\S+))?$", re.MULTILINE)
_NEEDED = re.compile(r"NEEDED.*\[((?:libamdhip|libhip|librccl|libroc)[^\]]*)\]")
_DEFINED = re.compile(r"^API [\w ]+?\**\s?\**(\w+)\(", re.MULTILINE)
_LETTERED = re.compile(r"API int hipblas##LETTER##(\w+)\(")


def defined(source: str) -> set[str]:
    """The functions that a file of hip/ defines."""
    products = {f"hipblas{letter}{name}" for letter in "SD" for name in _LETTERED.findall(source)}
    return products | set(_DEFINED.findall(source))


def wanted(extensions: list[Path]) -> tuple[list[str], dict[str, set[tuple[str, str]]]]:
    """The libraries' file names, and for each library the (symbol, version) pairs that CuPy's modules want."""
    run = {"capture_output": True, "text": True, "check": True}
    names = set(LOADED_BY_NAME)
    symbols: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for path in extensions:
        names |= set(_NEEDED.findall(subprocess.run(["readelf", "-d", path], **run).stdout))
        for symbol, version in _WANTED.findall(subprocess.run(["nm", "-D", "--undefined-only", path], **run).stdout):
            library = next((lib for prefix, lib in PREFIXES.items() if symbol.startswith(prefix)), "libamdhip64")
            symbols[library].add((symbol, version))
    return sorted(names), symbols


def make(wheel: Path, folder: Path) -> None:
    """Write into `folder` one library for each that the CuPy unpacked in `wheel` needs."""
    names, symbols = wanted([path for pattern in ("cupy*/**/*.so", "cupyx/**/*.so") for path in wheel.glob(pattern)])
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        library = name.partition(".")[0]
        source = build.HERE / "hip" / SOURCES[library] if library in SOURCES else None
        works = defined(source.read_text(encoding="utf-8")) if source else set()
        versions = defaultdict(list)
        for symbol, version in sorted(symbols[library]):
            versions[version or "unversioned"].append(symbol)
        script = "".join(f"{version} {{ global: {'; '.join(group)}; }};\n" for version, group in versions.items())
        stubs = "".join(
            f'extern "C" void {symbol}() {{ fputs("{symbol} does not work on the host\\n", stderr); abort(); }}\n'
            for symbol, _ in sorted(symbols[library])
            if symbol not in works
        )
        (folder / f"{library}.map").write_text(script or "unversioned { global: *; };\n")
        (folder / f"{library}.cpp").write_text(f"#include <cstdio>\n#include <cstdlib>\n{stubs}")
        command = [build.compiler(), "-std=c++17", "-O3", "-g1", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}"]
        command += [f"-Wl,--version-script={folder / library}.map", str(folder / f"{library}.cpp")]
        done = subprocess.run(
            [*command, *([str(source)] if source else []), "-o", str(folder / name)], text=True, capture_output=True
        )
        if done.returncode:
            raise build.CompileError(f"g++ cannot compile {name}:\n{done.stderr}")
