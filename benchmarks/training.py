"""One whole training: the command, how long it took, the accuracy it reached, and the curve."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import curve, harness, tables


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder says: `result.json`, and the rows of `metrics.csv`."""

    result: dict[str, Any]
    metrics: list[dict[str, float]]


def read(folder: Path) -> Run:
    """The run in a folder; a ValueError if it holds none, or one that is not finished."""
    for name in ("result.json", "metrics.csv"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no finished run: {name} is missing")
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        metrics = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return Run(json.loads((folder / "result.json").read_text(encoding="utf-8")), metrics)


def train(arguments: list[str], threads: int) -> Run:
    """Run `python -m minicnn.train` in a folder that is thrown away; `seconds` of the whole command join the result."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "run")
        command = [sys.executable, "-m", "minicnn.train", "--threads", str(threads), *arguments, "--out", str(folder)]
        start = time.perf_counter()
        code = subprocess.run(command, env=harness.environment()).returncode
        seconds = time.perf_counter() - start
        if code:
            raise RuntimeError(f"{shown(arguments)}: exit code {code}, see above")
        run = read(folder)
    return Run({**run.result, "seconds": seconds}, run.metrics)


def shown(arguments: list[str]) -> str:
    """The command as a reader would type it: absolute folders, which differ from machine to machine, are left out."""
    return "python -m minicnn.train " + shlex.join(re.sub(r"(^|[:=])/.*/", r"\1PATH/", word) for word in arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the table: training-NAME")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="take a finished run instead of training now")


def run(options: argparse.Namespace) -> tables.Table:
    done = read(options.run) if options.run else train(options.arguments, options.threads)
    return tables.Table(
        name=f"training-{options.name}",
        title=f"Training: {options.name}",
        columns={
            "test accuracy": "{test_accuracy:.4f}",
            "train accuracy": "{train_accuracy:.4f}",
            "test loss": "{test_loss:.4f}",
            "epochs": "{epochs}",
            "training, s": "{train_seconds:.0f}",
            "compiling, s": "{compile_seconds:.1f}",
            "images/s": "{images_per_second:.0f}",
            "parameters": "{parameters:,}",
            "seed": "{seed}",
        },
        rows=[{**done.result, "metrics": done.metrics}],
        machine=tables.machine(options.threads),
        notes=[
            f"`{shown(options.arguments)}`",
            "The accuracy is that of the last weights; none was chosen by the test images.",
        ],
        figure=accuracy_curve(done.metrics),
    )


def accuracy_curve(metrics: list[dict[str, float]]) -> str:
    """Every accuracy in the metrics over the epochs."""
    names = dict.fromkeys(name for row in metrics for name in row if name.endswith("accuracy"))
    lines = {name: [(row["epoch"], row[name]) for row in metrics if name in row] for name in names}
    return curve.svg({name.replace("_", " "): line for name, line in lines.items()}, "epoch")
