"""Level 4's script without a GPU: what it makes of records, limits and absent programs. Its dry run needs level 3's."""

from __future__ import annotations

import json
import sys
import time

import pytest

from tests.cuda import gpu

SETTING = gpu.Setting("cuda", 1, "it is not installed")


def test_the_table_has_the_faster_layout_and_a_dash_for_what_is_missing():
    records = {
        "minicnn, float32": {"ms": 10.0},
        "PyTorch, float32, NCHW": {"ms": 30.0},
        "PyTorch, float32, channels_last": {"ms": 20.0},
        "minicnn, TF32": {"failed": "it exploded"},
        "PyTorch, TF32, NCHW": {"ms": 5.0},
    }
    lines = gpu.table([{"network": "net", "batch": "1 × 8²", "records": records}], "cuda").splitlines()
    assert lines[2:] == [
        "| net | 1 × 8² | float32 | 10.0 | 20.0 | 2.00 |",
        "| net | 1 × 8² | TF32 | – | 5.0 | – |",
    ]


@pytest.mark.parametrize(
    ("failures", "state"),
    [
        ([None, None], "passed"),
        ([None, gpu.LATE], "unfinished"),
        ([gpu.LATE, gpu.LATE], "not run"),
        ([None, gpu.LATE, "it exploded"], "failed"),
    ],
)
def test_what_failures_make_of_a_section(failures, state):
    assert gpu.state(failures) == state


def test_steps_that_fail_are_rows_with_the_reason(monkeypatch):
    monkeypatch.setattr(gpu.harness, "attempt", lambda *_, **__: {"failed": "it exploded"})
    section = gpu.steps(SETTING, gpu.Clock(60))
    assert section.state == "failed" and "- vgg-16, minicnn, TF32: it exploded" in section.text
    assert "PyTorch is not compared: it is not installed." in section.text
    section = gpu.steps(SETTING, gpu.Clock(-1))
    assert section.state == "not run" and f"- vgg-16, minicnn, TF32: {gpu.LATE}" in section.text


@pytest.mark.parametrize(
    ("script", "state", "line"),
    [
        ("echo '========= ERROR SUMMARY: 0 errors'", "passed", "memcheck: exit code 0, ERROR SUMMARY: 0 errors"),
        ("echo '========= ERROR SUMMARY: 2 errors'; exit 99", "failed", "exit code 99, ERROR SUMMARY: 2 errors"),
    ],
)
def test_the_sanitizer_is_believed(monkeypatch, tmp_path, script, state, line):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    section = gpu.sanitizer(SETTING, gpu.Clock(60))
    assert section.state == state and line in section.text


def test_without_a_sanitizer(monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda *_, **__: None)
    assert gpu.sanitizer(SETTING, gpu.Clock(60)).state == "not run"


PASSES, FAILS, HANGS = "def test_a(): pass\n", "def test_b(): assert 0\n", "def test_c(): import time; time.sleep(60)\n"


@pytest.mark.parametrize(
    ("text", "seconds", "state", "counts"),
    [
        (PASSES, 60, "passed", "1 passed, 0 failed, 0 skipped."),
        (PASSES + FAILS, 60, "failed", "1 passed, 1 failed, 0 skipped."),
        (PASSES + HANGS, 15, "unfinished", "1 passed, 0 failed, 0 skipped; the time ran out"),
        (PASSES, -1, "not run", "0 passed"),
    ],
)
def test_tests_are_counted(monkeypatch, tmp_path, text, seconds, state, counts):
    (tmp_path / "test_it.py").write_text(text)
    monkeypatch.setitem(gpu.TESTS, "cpu", ["-p", "no:cacheprovider", "-p", "tests.conftest", str(tmp_path)])
    section = gpu.tests(gpu.Setting("cpu", 1, None), gpu.Clock(seconds))
    assert (section.state, section.text.startswith(counts)) == (state, True), section.text


def test_a_command_that_hears_no_interruption_is_ended():
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
    start = time.monotonic()
    assert gpu.finished([sys.executable, "-c", code], 3, patience=1) == (None, "on\n")
    assert time.monotonic() - start < 300


def test_the_report_is_dated_and_names_the_card(tmp_path):
    section = gpu.Section("A part", "passed", "all is well", {"ms": 1.0})
    paths = gpu.write("cuda", "NVIDIA H100 80GB", {"driver": "13.0"}, [section], tmp_path)
    assert [path.name[:4] + path.name[14:] for path in paths] == [
        f"GPU--nvidia-h100-80gb{end}" for end in (".md", ".json")
    ]
    assert paths[0].read_text("utf-8").endswith("- driver: 13.0\n\n## A part\n\n**passed**\n\nall is well\n")
    assert json.loads(paths[1].read_text("utf-8"))["sections"][0]["data"] == {"ms": 1.0}


def test_without_cuda_it_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        gpu.harness, "in_process", lambda *_, **__: {"problem": "CuPy is not installed; pip install it"}
    )
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "CUDA cannot be used: CuPy is not installed; pip install it\n"
    assert not list(tmp_path.iterdir())
