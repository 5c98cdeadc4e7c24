"""Reading run folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def metrics(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_run(one: Path, two: Path) -> bool:
    """The same checkpoints, byte for byte, and the same metrics but for the time."""
    files = ("last.safetensors", "best.safetensors")
    rows = [[{**row, "seconds": None} for row in metrics(run)] for run in (one, two)]
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in files) and rows[0] == rows[1]
