"""The command `python -m minicnn.doctor`: what minicnn finds on this machine, and what to do where that is not well."""

from __future__ import annotations

import mmap
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import platformdirs

from minicnn import _cli, cuda
from minicnn.finding import Finding


def python() -> Finding:
    text = f"Python {platform.python_version()}, {sys.executable}"
    return (
        Finding("ok", text) if sys.version_info >= (3, 11) else Finding("wrong", text, "install Python 3.11 or later")
    )


def numpy() -> Finding:
    text = f"NumPy {np.__version__}"
    return (
        Finding("ok", text)
        if int(np.__version__.split(".")[0]) >= 2
        else Finding("wrong", text, "pip install -U numpy")
    )


def blas() -> Finding:
    """The library behind NumPy's matrix product."""
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if not found:
        return Finding(
            "missing", "BLAS that threads can be set of", "install NumPy's own wheel, by pip, for fast products"
        )
    first = found[0]
    text = f"BLAS {first['internal_api']} {first['version']}, {first['num_threads']} threads"
    forced = os.environ.get("OPENBLAS_CORETYPE")
    if forced:
        return Finding("wrong", f"{text}, held to {forced} cores", "unset OPENBLAS_CORETYPE")
    return Finding("ok", f"{text}, {first.get('architecture', 'unknown')} code; the kernels call it on one thread each")


def processor() -> Finding:
    """The model and the vector instructions that Numba compiles for."""
    from llvmlite import binding

    has = binding.get_host_cpu_features()
    wide = [name for name in ("avx2", "fma", "avx512f", "neon", "sve") if has.get(name)]
    text = f"CPU {platform.machine()} {binding.get_host_cpu_name()}, {', '.join(wide) or 'no wide vectors'}"
    return Finding("ok", text) if wide else Finding("missing", text, "the kernels will be several times slower")


def path() -> Finding:
    """Which code the kernels of convolutions and products run on this processor and system."""
    from kernels.cpu import machine

    text = f"kernels: {machine.path()}"
    state = "missing" if machine.VECTOR == "plain" and "MINICNN_VECTOR" not in os.environ else "ok"
    return Finding(state, text, "convolutions will be several times slower" if state == "missing" else "")


def threads() -> Finding:
    """How many threads the kernels take, and what decides that."""
    from kernels.cpu import cores

    usable, visible, there, quota = cores.usable_cores(), cores.visible_cores(), os.cpu_count(), cores.quota()
    why = f"the machine's {there} cores"
    if visible != there:
        why = f"this process's affinity, {visible} of {why}"
    if usable != visible:
        why = f"its control group's quota, {quota:g} cores' time, of {why}"
    return Finding("ok", f"threads: {usable}, the default of --threads, by {why}")


def memory() -> Finding:
    """Whether the kernels' large arrays lie in memory that is used again, step after step."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        return Finding("ok", "memory: kept for the next step's arrays, in huge pages where the system gives them")
    return Finding("missing", "memory that is kept for the next step's arrays", "on Linux alone; steps take longer")


def numba() -> Finding:
    """Numba compiles one kernel, and the kernel computes what the reference does."""
    import kernels
    from kernels import reference

    x = np.linspace(-1, 1, 10, dtype=np.float32)
    text = f"Numba {metadata.version('numba')}"
    if not np.array_equal(kernels.of(x).relu(x), reference.relu(x)):
        return Finding("wrong", f"{text} compiles wrongly", "pip install -U numba llvmlite")
    return Finding("ok", f"{text} compiles")


def libraries() -> Finding:
    names = ("safetensors", "pillow", "tqdm", "threadpoolctl", "platformdirs")
    return Finding("ok", ", ".join(f"{name} {metadata.version(name)}" for name in names))


def cache() -> Finding:
    """Where compiled kernels and downloaded data sets are kept."""
    folder = platformdirs.user_cache_path("minicnn")
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError:
        variable = "XDG_CACHE_HOME" if sys.platform.startswith("linux") else "HOME"
        fix = f"set {variable} to a folder that can be written, or kernels are compiled anew in every run"
        return Finding("wrong", f"cache folder {folder} cannot be written", fix)
    kernels, data = _sizes(folder / "compiled"), _sizes(folder / "data")
    held = f"{len(kernels)} compiled kernels of {sum(kernels) / 1e6:.0f} MB, {sum(data) / 1e6:.0f} MB of data"
    return Finding("ok", f"cache folder {folder}, can be written: {held}")


def _sizes(folder: Path) -> list[int]:
    return [file.stat().st_size for file in folder.rglob("*") if file.is_file()]


CHECKS: tuple[Callable[[], Finding], ...] = (
    python, numpy, blas, processor, path, threads, memory, numba, libraries, cache,
    cuda.cupy, cuda.toolkit, cuda.driver, cuda.card, cuda.cache,
)  # fmt: skip


def examine(check: Callable[[], Finding]) -> Finding:
    """What a check finds; one that fails itself has found something wrong."""
    try:
        return check()
    except metadata.PackageNotFoundError as error:
        return Finding("wrong", f"{error.name} is not installed", "install minicnn again with pip")
    except ImportError as error:
        return Finding("wrong", f"{check.__name__}: {error}", "install minicnn again with pip")
    except Exception as error:  # anything at all: the doctor reports it and goes on
        return Finding("wrong", check.__name__, f"{type(error).__name__}: {' '.join(str(error).split())}")


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    _cli.Parser(
        prog="python -m minicnn.doctor",
        description="Print what minicnn finds on this machine: each line ok, missing or wrong, and what to do.",
        epilog="The exit code is 1 if something is wrong.",
    ).parse_args(arguments)
    findings = [examine(check) for check in CHECKS]
    print("\n".join(map(str, findings)))
    return int(any(finding.state == "wrong" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
