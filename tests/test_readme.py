"""What the README shows is true: its first block has the two commands, its Python runs as it stands."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_first_block_is_the_two_commands():
    assert README.read_text("utf-8").index("```bash") == README.read_text("utf-8").index("```")
    commands = [line for line in blocks("bash")[0].splitlines() if not line.startswith(("git clone", "cd "))]
    assert commands == ["pip install '.[test]' && python -m minicnn.train", "python -m pytest"]


def test_the_example_runs():
    (example,) = blocks("python")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(example, str(README), "exec"), {})
    loss, error = (float(line.rpartition(" ")[2]) for line in output.getvalue().splitlines())
    assert loss < 1.5
    assert error < 1e-6
