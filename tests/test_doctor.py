"""The doctor says of each part ok, missing or wrong, and what to do; it never fails itself."""

from __future__ import annotations

import platformdirs
import pytest

from minicnn import device, doctor
from minicnn.doctor import Finding, examine, main


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(device, "cuda_problem", lambda: "CuPy is not installed; pip install it")


def test_a_sound_machine(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.CHECKS)
    assert {line.split()[0] for line in lines} <= {"ok", "missing"}
    for part in ("Python 3.", "NumPy 2.", "BLAS", "CPU", "cores", "Numba", "safetensors", "cache folder"):
        assert any(part in line for line in lines)
    assert lines[-1] == "missing  CUDA: CuPy is not installed; pip install it"


def test_something_wrong_is_said_with_its_remedy(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    assert main([]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong")]
    assert "held to Prescott cores: unset OPENBLAS_CORETYPE" in line


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "file" / name)
    assert examine(doctor.cache).state == "wrong"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "new" / name)
    assert examine(doctor.cache).state == "ok" and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("problem", "state"),
    [(None, "ok"), ("CuPy is not installed; …", "missing"), ("no CUDA device is visible", "wrong")],
)
def test_cuda(monkeypatch, problem, state):
    monkeypatch.setattr(device, "cuda_problem", lambda: problem)
    assert examine(doctor.cupy).state == state


def test_a_check_that_fails_is_a_finding():
    def broken():
        raise RuntimeError("out of\nluck")

    def absent():
        import a_library_that_is_not_there  # noqa: F401

    assert examine(broken) == Finding("wrong", "broken", "RuntimeError: out of luck")
    assert str(examine(absent)).startswith("wrong    absent: No module named")
