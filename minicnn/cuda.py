"""Whether CUDA can be used here, and what to do where it cannot: for `--device`, and for the doctor's lines.

The checks stand in the order in which they rest on each other: CuPy, the toolkit that compiles kernels, the driver, the
card. None of them imports CuPy where it is not installed, or installed twice, and none compiles anything.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from minicnn.finding import Finding

LEAST_CAPABILITY = (7, 5)  # Turing, the oldest card that the kernels are compiled for
UPDATE = "install NVIDIA's current driver, https://www.nvidia.com/drivers"


def extra() -> str:
    """minicnn's extra that installs CuPy as the driver wants it; for CUDA 12 where there is no driver to ask."""
    return "cuda13" if driver_version() >= 13000 else "cuda12"


def install() -> str:
    """The command that installs CuPy."""
    return f"pip install 'minicnn[{extra()}]'"


def driver_version() -> int:
    """The newest CUDA that the driver works with, such as 13000 for 13.0, asked of itself; 0 where there is none."""
    version = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def wheels() -> dict[str, str]:
    """The installed packages that bring a module `cupy`, with their versions; they overwrite each other's files."""
    names = ((re.sub(r"[-_.]+", "-", each.name or "").lower(), each.version) for each in metadata.distributions())
    return {name: version for name, version in names if re.fullmatch(r"cupy(-cuda.*|-rocm.*)?", name)}


def _imported() -> Any:
    """CuPy, or None where it is not well."""
    return importlib.import_module("cupy") if cupy().state == "ok" else None


def cupy() -> Finding:
    """CuPy, which is needed for `--device cuda` alone, and which of its wheels."""
    if importlib.util.find_spec("cupy") is None:
        return Finding("missing", "CuPy is not installed", install())
    found = wheels()
    listed = " and ".join(f"{name} {version}" for name, version in found.items()) or "not installed by pip"
    if len(found) > 1:
        fix = f"pip uninstall -y {' '.join(found)} && {install()}"
        return Finding("wrong", f"more than one CuPy is installed, {listed}", fix)
    try:
        import cupy
    except ImportError as error:
        fix = f"pip uninstall -y {' '.join(found) or 'cupy'} && {install()}"
        return Finding("wrong", f"CuPy ({listed}) cannot be imported ({_line(error)})", fix)
    return Finding("ok", f"CuPy {cupy.__version__} ({listed})")


def toolkit() -> Finding:
    """The CUDA toolkit: its compiler NVRTC, which makes the kernels when they are first used, and cuBLAS."""
    module = _imported()
    if module is None:
        return _waits("CUDA toolkit")
    if module.cuda.runtime.is_hip:
        return Finding("ok", "CuPy is the one for ROCm, which compiles with HIP instead of the CUDA toolkit")
    made_for = module.cuda.runtime.runtimeGetVersion() // 1000
    fix = f"pip install 'minicnn[cuda{made_for}]'"
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
        from cupy_backends.cuda.libs import nvrtc

        major, minor = nvrtc.getVersion()
        load_nvidia_dynamic_lib("cublas")  # as CuPy looks for it
    except (ImportError, RuntimeError) as error:
        return Finding("wrong", f"CUDA toolkit: {_line(error).partition(': ')[0]}", fix)
    text = f"CUDA toolkit with NVRTC {major}.{minor} and cuBLAS"
    if major != made_for:
        return Finding("wrong", f"{text}, but CuPy is made for CUDA {made_for}", fix)
    return Finding("ok", text)


def driver() -> Finding:
    """NVIDIA's driver, which must know the toolkit's CUDA: a driver runs what any toolkit of its major version made."""
    module = _imported()
    version = module.cuda.runtime.driverGetVersion() if module else driver_version()
    if not version:
        return Finding("wrong" if module else "missing", "NVIDIA driver: none answers", UPDATE)
    text = f"NVIDIA driver for CUDA up to {_dotted(version)}"
    if module is None:
        return Finding("ok", text)
    needed = _toolkit_version(module)
    if version // 1000 < needed // 1000:
        names = " ".join(wheels()) or "cupy"
        instead = f", or pip uninstall -y {names} && {install()}" if version >= 12000 else ""
        return Finding("wrong", f"{text}, older than the toolkit, {_dotted(needed)}", f"{UPDATE}{instead}")
    return Finding("ok", text)


def card() -> Finding:
    """The card in use, which is the first that is visible, and its compute capability."""
    module = _imported()
    if module is None:
        return _waits("CUDA card")
    runtime = module.cuda.runtime
    try:
        count = runtime.getDeviceCount()
        found = runtime.getDeviceProperties(0) if count else {}
    except RuntimeError as error:  # CuPy's CUDARuntimeError
        return Finding("wrong", f"CUDA card: none answers ({_line(error)})", "see nvidia-smi, and CUDA_VISIBLE_DEVICES")
    if not count:
        return Finding("wrong", "CUDA card: none is visible", "see nvidia-smi, and CUDA_VISIBLE_DEVICES")
    capability = (found["major"], found["minor"])
    text = (
        f"{found['name'].decode()}, compute capability {capability[0]}.{capability[1]}, "
        f"{found['totalGlobalMem'] / 1e9:.0f} GB"
    )
    if count > 1:
        text += f", the first of {count} cards"
    if capability < LEAST_CAPABILITY and not runtime.is_hip:
        return Finding("wrong", f"{text}, below 7.5", "choose another card by CUDA_VISIBLE_DEVICES, or --device cpu")
    return Finding("ok", text)


def cache() -> Finding:
    """Where CuPy keeps the kernels that it has compiled, the same as it would choose."""
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    text = f"cache folder of CUDA kernels {folder}"
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        fix = "set CUPY_CACHE_DIR to a folder that can be written, or kernels are compiled anew in every run"
        return Finding("wrong", f"{text} cannot be written", fix)
    sizes = [file.stat().st_size for file in folder.glob("*") if file.is_file()]
    return Finding("ok", f"{text}, can be written: {len(sizes)} files of {sum(sizes) / 1e6:.0f} MB")


NEEDED: tuple[Callable[[], Finding], ...] = (cupy, toolkit, driver, card)


def problem() -> str | None:
    """Why CUDA cannot be used here, in one line that says what to do, or None if it can."""
    for check in NEEDED:
        found = check()
        if found.state != "ok":
            return f"{found.text}; {found.fix}"
    return None


def _waits(text: str) -> Finding:
    return Finding("missing", f"{text}: cannot be asked without a CuPy that works", cupy().fix)


def _toolkit_version(module: Any) -> int:
    """The version of NVRTC, or of the CUDA that CuPy was made for where there is no NVRTC."""
    try:
        from cupy_backends.cuda.libs import nvrtc

        major, minor = nvrtc.getVersion()
    except (ImportError, RuntimeError):
        return module.cuda.runtime.runtimeGetVersion()
    return 1000 * major + 10 * minor


def _dotted(version: int) -> str:
    """12090 -> "12.9" """
    return f"{version // 1000}.{version % 1000 // 10}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
