"""Notebooks are valid, without outputs, and their code is what this repository has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.cpu_only("reads texts")


def cells(notebook: Path) -> dict[str, str]:
    """The source of each code cell, by its id."""
    content = json.loads(notebook.read_text("utf-8"))
    return {cell["id"]: "".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_of_format_4_and_has_no_outputs(notebook):
    content = json.loads(notebook.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert {"metadata", "cells", "nbformat", "nbformat_minor"} == set(content)
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in content["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), f"{notebook.name}, {cell['id']}", "exec")
        assert set(cell) == wanted


def test_the_gpu_report_is_made_and_packed_from_a_folder(tmp_path, monkeypatch):
    """The notebook's cells but for pip, on a repository whose two commands only say that they were called."""
    (notebook,) = (path for path in NOTEBOOKS if path.name == "gpu_report.ipynb")
    repository, place = tmp_path / "repository", tmp_path / "place"
    for module in ("minicnn/doctor.py", "tests/cuda/gpu.py"):
        (repository / module).parent.mkdir(parents=True, exist_ok=True)
        (repository / module).write_text("import sys, pathlib; print(__file__, sys.argv[1:])")
    report = "\npathlib.Path('report').mkdir(); pathlib.Path('report/GPU.md').write_text('# Well')\n"
    (repository / "tests/cuda/gpu.py").write_text((repository / "tests/cuda/gpu.py").read_text() + report)
    (repository / "pyproject.toml").touch()
    place.mkdir()
    (place / "IPython").mkdir()
    (place / "IPython/display.py").write_text("FileLink = Markdown = str\ndisplay = print\n")
    code = cells(notebook)
    source = code["source"].replace('SOURCE = ""', f"SOURCE = {str(repository)!r}")
    script = "\n".join([source, code["fetch"], code["doctor"], code["gpu"], code["download"]])
    child = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(place)!r})\n{script}"],
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert "gpu.py ['--minutes', '9.5', '--out', 'report']" in child.stdout
    assert child.stdout.endswith("# Well\ngpu-report.zip\n")
    assert (place / "minicnn-source" / "gpu-report.zip").exists()


def test_the_gpu_report_needs_a_source(tmp_path):
    (notebook,) = (path for path in NOTEBOOKS if path.name == "gpu_report.ipynb")
    script = "\n".join([cells(notebook)["source"], cells(notebook)["fetch"]])
    child = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (child.returncode, child.stderr) == (1, "SOURCE names no repository: fill it in above\n")
