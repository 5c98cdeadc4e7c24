"""Compiled code on disk: whole or not there, for any number of processes; without a disk, compiled in memory."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels.cpu import compile, local_normalisation, philox
from kernels.cpu.machine import VECTOR

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the variable that moves the cache is Linux's")

RELU = """
import numpy as np
from kernels.cpu import compile, relu
compile.on_compile(lambda name: print("compiling", name))
for dtype in (np.float32, np.float64):
    assert relu(np.array([-1.5, 2.5], dtype)).tolist() == [0, 2.5]
assert compile.seconds() > 0
"""

# Kernels that call each other, and generated code: whole numbers, so that every way to sum gives the same.
CONVOLUTION = """
import numpy as np
from kernels import reference
from kernels.cpu import compile, conv2d
compile.on_compile(lambda name: print("compiling", name))
x = np.arange(2 * 5 * 6 * 5, dtype=np.float32).reshape(2, 5, 6, 5) % 7
w = np.arange(3 * 3 * 5 * 9, dtype=np.float32).reshape(3, 3, 5, 9) % 5
assert np.array_equal(conv2d(x, w, pad=1), reference.conv2d(x, w, pad=1))
"""


def start(program: str, cache: Path, **variables: str) -> subprocess.Popen:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), **variables}
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def run(program: str, cache: Path, **variables: str) -> tuple[str, str]:
    return finish(start(program, cache, **variables))


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "minicnn" / "compiled").iterdir())


def test_processes_may_compile_at_once_and_later_ones_need_not(tmp_path):
    for process in [start(CONVOLUTION, tmp_path) for _ in range(3)]:
        out, err = finish(process)
        assert "compiling" in out and err == ""
    assert run(CONVOLUTION, tmp_path) == ("", "")
    assert all(re.fullmatch(r"\w+-[0-9a-f]{40}", path.name) for path in kept(tmp_path))  # no half of a file is left


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[:-100],
    "emptied": lambda content: b"",
    "of another program": lambda content: b"no machine code",
    "a bit flipped": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "its digest damaged": lambda content: bytes([content[0] ^ 1]) + content[1:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_again(damage, tmp_path):
    assert run(RELU, tmp_path) == ("compiling clip_below\n" * 2, "")
    first, second = kept(tmp_path)
    content = first.read_bytes()
    first.write_bytes(DAMAGES[damage](content))
    assert run(RELU, tmp_path) == ("compiling clip_below\n", "")
    assert kept(tmp_path) == [first, second] and len(first.read_bytes()) > 1000
    assert run(RELU, tmp_path) == ("", "")


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path):
    (tmp_path / "minicnn").write_text("a file where the folder should be")
    out, err = run(RELU, tmp_path)
    assert out == "compiling clip_below\n" * 2
    assert err.count("UserWarning: compiled kernels cannot be kept for the next run") == err.count("Warning") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_costs_one_warning(tmp_path):
    tmp_path.chmod(0o500)
    try:
        out, err = run(RELU, tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert out == "compiling clip_below\n" * 2
    assert err.count("UserWarning: compiled kernels cannot be kept for the next run") == err.count("Warning") == 1


def test_a_full_disk_costs_one_warning_and_leaves_nothing_behind(tmp_path):
    """No file may grow beyond 1000 bytes: the kernels' own writing fails half-way, as it does on a full disk."""
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    out, err = run(full + RELU, tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert out == "compiling clip_below\n" * 2
    assert err.count("UserWarning: compiled kernels cannot be kept for the next run") == err.count("Warning") == 1
    assert kept(tmp_path) == []


@pytest.mark.parametrize("vector", ["128", "256"])
def test_other_vectors_have_code_of_their_own(vector, tmp_path):
    if vector == VECTOR:
        pytest.skip("these are the vectors of the first run")
    run(CONVOLUTION, tmp_path, MINICNN_VECTOR=VECTOR)
    assert "compiling multiply_tile" in run(CONVOLUTION, tmp_path, MINICNN_VECTOR=vector)[0]
    assert run(CONVOLUTION, tmp_path, MINICNN_VECTOR=VECTOR)[0] == ""


def test_training_says_what_is_compiled(tmp_path):
    command = [sys.executable, "-u", "-m", "minicnn.train", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as training:
        try:
            lines = [next(training.stdout) for _ in range(3)]
        finally:
            training.kill()
    assert re.fullmatch(r"compiling \w+ \(once; kept for the next run\)\n", lines[2]), lines


# ---- What the name of a file depends on ----------------------------------------------------------------------------


def test_code_depends_on_the_sources_of_all_that_it_calls():
    called = compile._called(local_normalisation.lrn_rows)
    assert {k.py_func.__name__ for k in called} == {"lrn_rows", "scales", "neighbour_sums"}
    assert {k.py_func.__name__ for k in compile._called(philox.drop)} == {"drop", "philox"}


FACTOR = 2


def difference(pair):
    return (pair.first - pair.second) * FACTOR


def kept_for(pair: tuple, cache: Path) -> Path:
    """Where the code of `difference`, compiled anew for such a pair, is kept."""
    before = set(kept(cache)) if (cache / "minicnn").exists() else set()
    assert compile.compiled(difference)(pair) == difference(pair)
    (new,) = set(kept(cache)) - before
    return new


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_code_depends_on_the_names_of_a_tuples_fields(cache):
    """Both types print as `Pair(int64 x 2)`, and compiled code knows a field by its place."""
    first = kept_for(namedtuple("Pair", "first second")(5, 3), cache)
    assert kept_for(namedtuple("Pair", "second first")(5, 3), cache) != first


def test_code_depends_on_the_numbers_that_it_names(cache, monkeypatch):
    pair = namedtuple("Pair", "first second")(5, 3)
    first = kept_for(pair, cache)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert kept_for(pair, cache) != first


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_afterwards_as_it_was(cache, enabled):
    def broken(pair):
        return pair.third

    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        kept_for(namedtuple("Pair", "first second")(5, 3), cache)
        with pytest.raises(Exception, match="third"):
            compile.compiled(broken)(namedtuple("Pair", "first second")(5, 3))
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_nothing_damaged_is_unpickled(cache, monkeypatch):
    pair = namedtuple("Pair", "first second")(5, 3)
    file = kept_for(pair, cache)
    file.write_bytes(file.read_bytes()[:-1])

    def unpickle(content):
        raise AssertionError("unpickled")

    monkeypatch.setattr(compile.pickle, "loads", unpickle)
    assert compile.compiled(difference)(pair) == 4
