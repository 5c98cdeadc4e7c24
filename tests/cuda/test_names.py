"""Level 0: every name that minicnn takes from CuPy is in CuPy's CUDA wheel; that takes neither a GPU nor a driver."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kernels
import minicnn
from tests.cuda.host import environment

PACKAGES = [Path(package.__file__).parent for package in (kernels, minicnn)]
NUMPY_ONLY = Path(kernels.__file__).parent / "cpu"
PROBE = """
import importlib, importlib.util, json, pathlib, sys
def there(name):
    module, *rest = name.split(".")
    thing = importlib.import_module(module)
    while rest:
        part, *rest = rest
        module += "." + part
        try:
            thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(module)
        except ModuleNotFoundError:
            return False
        except Exception:  # it loads a library of CUDA that is not here: its names stand in its file
            binary = pathlib.Path(importlib.util.find_spec(module).origin).read_bytes()
            return all(part.encode() in binary for part in rest)
    return True
names = json.load(sys.stdin)
json.dump([name for name in names if not there(name)], sys.stdout)
"""


def is_cupy(module: str) -> bool:
    return module.partition(".")[0] in ("cupy", "cupyx", "cupy_backends")


def names_of(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a module takes from CuPy: from what it imports, from `xp`, from `array_module(...)`."""
    known = {"xp": "cupy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_cupy(alias.name):
                    first = alias.name.partition(".")[0]
                    known[alias.asname or first] = alias.name if alias.asname else first
                    yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and is_cupy(node.module):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}"

    def dotted(node: ast.AST) -> str | None:
        if isinstance(node, ast.Attribute):
            owner = dotted(node.value)
            return f"{owner}.{node.attr}" if owner else None
        if isinstance(node, ast.Call):
            return "cupy" if isinstance(node.func, ast.Name) and node.func.id == "array_module" else None
        return known.get(node.id) if isinstance(node, ast.Name) else None

    yield from filter(None, (dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)))


def names() -> dict[str, str]:
    """Each name with a file that uses it."""
    files = [path for package in PACKAGES for path in package.rglob("*.py") if NUMPY_ONLY not in path.parents]
    return {name: path.name for path in files for name in names_of(ast.parse(path.read_text(encoding="utf-8")))}


def missing(wanted: list[str]) -> list[str]:
    folder = environment.cuda_wheel()
    if not folder.exists():
        pytest.skip(f"{folder} is not there: python -m tests.cuda unpacks CuPy's CUDA wheel into it")
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(wanted),
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_names_are_found_in_the_source():
    source = """
    import cupy, cupyx
    from cupy.cuda import device as d
    from numpy import exp
    def f(x):
        xp = array_module(x)
        return xp.exp(x) + array_module(x).add.at(x) + cupy.cuda.Device(0).attributes + d.get() + exp(x).y + cupyx.z
    """
    found = set(names_of(ast.parse(source.replace("\n    ", "\n"))))
    assert found == {
        *("cupy", "cupyx", "cupyx.z", "cupy.exp", "cupy.add", "cupy.add.at", "cupy.cuda", "cupy.cuda.Device"),
        *("cupy.cuda.device", "cupy.cuda.device.get"),
    }


def test_every_name_is_in_the_cuda_wheel():
    used = names()
    assert len(used) > 30
    assert {name: used[name] for name in missing(list(used))} == {}


def test_a_name_that_is_not_there_is_missed():
    assert missing(["cupy.exp", "cupy.nothing", "cupy.cuda.nothing", "cupy.ndarray.get"]) == [
        "cupy.nothing",
        "cupy.cuda.nothing",
    ]
    cublas = "cupy_backends.cuda.libs.cublas"
    assert missing([f"{cublas}.sgemm", f"{cublas}.nothing_at_all"]) == [f"{cublas}.nothing_at_all"]
