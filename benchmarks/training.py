"""One whole training: how long it took, the accuracy it reached, and the curve."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import harness, tables
from minicnn.study import chart


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run's folder says: `config.json`, `result.json`, and the rows of `metrics.csv`."""

    config: dict[str, Any]
    result: dict[str, Any]
    metrics: list[dict[str, float]]


def read(folder: Path) -> Run:
    """The run in a folder; a ValueError if it holds none, or one that is not finished."""
    for name in ("config.json", "result.json", "metrics.csv"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: holds no finished run, {name} is missing")
    config, result = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "result.json")
    )
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        metrics = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return Run(config, result, metrics)


def train(arguments: list[str], threads: int, folder: Path, **variables: str) -> Run:
    """Run `python -m minicnn.train` into a folder, with these variables in its environment.

    A RuntimeError if it fails (it has said why itself).
    """
    own = ["--threads", str(threads), "--out", str(folder)]
    command = [sys.executable, "-m", "minicnn.train", *arguments, *own]
    if code := subprocess.run(command, env=harness.environment(None, **variables)).returncode:
        raise RuntimeError(f"{shown(arguments)}: ended with exit code {code}")
    return read(folder)


def shown(arguments: list[str]) -> str:
    """The command as a reader would type it."""
    return f"python -m minicnn.train {without_folders(shlex.join(arguments))}".rstrip()


def without_folders(text: str) -> str:
    """The text with absolute paths cut down to their last part: the folders of one machine mean nothing elsewhere."""
    return re.sub(r"(?<![\w.])/[^\s'\"]*/", "PATH/", text)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the table, training-NAME, and of the run's folder, runs/training-NAME")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="take this finished run instead of training now")


def run(options: argparse.Namespace) -> tables.Table:
    name = f"training-{options.name}"
    done = read(options.run) if options.run else train(options.arguments, options.threads, Path("runs", name))
    configuration = ", ".join(f"{key}={value}" for key, value in done.config.items())
    return tables.Table(
        name=name,
        title=f"Training: {options.name}",
        columns={
            "network": "{model}",
            "parameters": "{parameters:,}",
            "test accuracy": "{test_accuracy:.4f}",
            "train accuracy": "{train_accuracy:.4f}",
            "test loss": "{test_loss:.4f}",
            "epochs": "{epochs}",
            "training, s": "{train_seconds:.0f}",
            "compiling, s": "{compile_seconds:.1f}",
            "images/s": "{images_per_second:.0f}",
        },
        rows=[{**done.result, "metrics": done.metrics}],
        machine=tables.machine(done.result["threads"]),
        notes=[
            *([] if options.run else [f"`{shown(options.arguments)}`"]),
            f"Configuration: {without_folders(configuration)}.",
            "Accuracies are those of the last weights. Training: steps only, without validation and compiling.",
        ],
        figure=accuracy_curve(done.metrics),
    )


def accuracy_curve(metrics: list[dict[str, float]]) -> str:
    """Every accuracy in the metrics, over the epochs."""
    names = dict.fromkeys(name for row in metrics for name in row if name.endswith("accuracy"))
    points = {name: [(row["epoch"], row[name]) for row in metrics if name in row] for name in names}
    lines = {name.replace("_", " "): chart.through(line) for name, line in points.items()}
    return chart.lines(lines, "Accuracy while training", "epoch", "accuracy")
