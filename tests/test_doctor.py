"""The doctor says of each part ok, missing or wrong, and what to do; it never fails itself."""

from __future__ import annotations

import math
import mmap
import os
import sys

import platformdirs
import pytest

from kernels.cpu import cores, machine
from minicnn import doctor
from minicnn.doctor import examine, main
from minicnn.finding import Finding


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)


def test_a_sound_machine(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.CHECKS)
    assert {line.split()[0] for line in lines} <= {"ok", "missing"}
    for part in (
        "Python 3.",
        "NumPy 2.",
        "BLAS",
        "CPU",
        "kernels: ",
        "threads: ",
        "memory",
        "Numba",
        "safetensors",
        "cache folder",
        "CuPy",
        "CUDA toolkit",
        "NVIDIA driver",
        "CUDA card",
        "cache folder of CUDA kernels",
    ):
        assert any(part in line for line in lines)


def test_something_wrong_is_said_with_its_remedy(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    assert main([]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong")]
    assert "held to Prescott cores: unset OPENBLAS_CORETYPE" in line


@pytest.mark.parametrize(
    ("vector", "chosen_by_hand", "state", "text"),
    [
        ("256", False, "ok", "generated code for 256-bit vectors (because)"),
        ("plain", True, "ok", "Numba and BLAS alone (because)"),
        ("plain", False, "missing", "Numba and BLAS alone (because)"),
    ],
)
def test_which_path_the_kernels_take_and_why(monkeypatch, vector, chosen_by_hand, state, text):
    monkeypatch.setattr(machine, "VECTOR", vector)
    monkeypatch.setattr(machine, "WHY", "because")
    monkeypatch.delenv("MINICNN_VECTOR", raising=False)
    if chosen_by_hand:
        monkeypatch.setenv("MINICNN_VECTOR", vector)
    found = examine(doctor.path)
    assert (found.state, found.text) == (state, f"kernels: {text}")
    assert bool(found.fix) == (state == "missing")


@pytest.mark.parametrize(
    ("visible", "quota", "text"),
    [
        (8, math.inf, "threads: 8, the default of --threads, by the machine's 8 cores"),
        (3, math.inf, "threads: 3, the default of --threads, by this process's affinity, 3 of the machine's 8 cores"),
        (8, 2.5, "threads: 2, the default of --threads, by its control group's quota, 2.5 cores' time, of"),
        (8, 0.5, "threads: 1, the default of --threads, by its control group's quota, 0.5 cores' time, of"),
        (4, 6.0, "threads: 4, the default of --threads, by this process's affinity, 4 of the machine's 8 cores"),
    ],
)
def test_where_the_number_of_threads_comes_from(monkeypatch, visible, quota, text):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "visible_cores", lambda: visible)
    monkeypatch.setattr(cores, "quota", lambda: quota)
    assert examine(doctor.threads).text.startswith(text)


def test_a_system_that_keeps_no_memory(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert examine(doctor.memory).state == "missing"


def test_the_cache_is_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    for name in ("compiled/a", "compiled/b", "data/x/y"):
        (tmp_path / "minicnn" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "minicnn" / name).write_bytes(bytes(2_000_000))
    assert examine(doctor.cache).text.endswith("can be written: 2 compiled kernels of 4 MB, 2 MB of data")


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "file" / name)
    assert examine(doctor.cache).state == "wrong"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "new" / name)
    assert examine(doctor.cache).state == "ok" and not (tmp_path / "new").exists()


def test_a_check_that_fails_is_a_finding():
    def broken():
        raise RuntimeError("out of\nluck")

    def absent():
        import a_library_that_is_not_there  # noqa: F401

    assert examine(broken) == Finding("wrong", "broken", "RuntimeError: out of luck")
    assert str(examine(absent)).startswith("wrong    absent: No module named")
