"""`python -m tests.cuda.host.environment [FOLDER]` makes what `pytest --device=host` needs.

That is CuPy's ROCm wheel, unpacked into a folder of its own (no ROCm, no GPU, no change to the Python that runs this),
and the stand-ins for the libraries that it links with. A wheel that is there already is kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs

from tests.cuda.host import libraries

WHEEL = "cupy-rocm-7-0==14.2.0"
CUDA_WHEEL = "cupy-cuda12x==14.2.0"
CUDA_WHEEL_NEEDS = "cuda-pathfinder==1.*"  # as it is imported
COMPILER_WHEELS = ("nvidia-cuda-nvrtc==13.4.*", "nvidia-cuda-runtime==13.4.*")


def _folder(variable: str, wheel: str) -> Path:
    named = os.environ.get(variable)
    return Path(named) if named else platformdirs.user_cache_path("minicnn", appauthor=False) / wheel.replace("==", "-")


def default() -> Path:
    """The folder of the environment: MINICNN_HOST_CUPY, or one in the user's cache."""
    return _folder("MINICNN_HOST_CUPY", WHEEL)


def cuda_wheel() -> Path:
    """Where CuPy's CUDA wheel is unpacked, to look names up: MINICNN_CUDA_WHEEL, or a folder in the user's cache."""
    return _folder("MINICNN_CUDA_WHEEL", CUDA_WHEEL)


def compiler() -> Path:
    """Where NVIDIA's compiler is unpacked: MINICNN_NVRTC, or a folder in the user's cache."""
    return _folder("MINICNN_NVRTC", COMPILER_WHEELS[0].removesuffix(".*"))


def install(folder: Path, *wheels: str) -> None:
    """Unpack wheels, without what they depend on, into `folder`, unless that is there already."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        options = ["--quiet", "--no-deps", "--target", f"{unfinished}/wheel"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *wheels], check=True)
        Path(unfinished, "wheel").rename(folder)


def make(folder: Path) -> Path:
    """The environment in `folder`, complete."""
    install(folder / "wheel", WHEEL)
    libraries.make(folder / "wheel", folder / "libraries")
    return folder


def existing() -> Path:
    """The default environment. Raises FileNotFoundError if nobody has made it."""
    folder = default()
    if not (folder / "libraries").exists():
        raise FileNotFoundError(f"{folder} is not there: make it with python -m tests.cuda.host.environment")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.cuda.host.environment", description="See GPU tests on the CPU."
    )
    parser.add_argument("folder", type=Path, nargs="?", default=default(), help="default: %(default)s")
    print(make(parser.parse_args().folder))
