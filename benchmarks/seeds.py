"""How far a training's result depends on chance: one command, by default the README's, with several seeds."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import harness, tables, training
from benchmarks.harness import Record


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B", help="of weights, order, augmentation and dropout")


def run(options: argparse.Namespace) -> tables.Table:
    rows = [measure(seed, options.arguments, options.threads) for seed in options.seeds.split(",")]
    accuracy = harness.spread([row["test_accuracy"] for row in rows])
    return tables.Table(
        name="seeds",
        title="The same training with several seeds",
        columns={
            "seed": "{seed}",
            "test accuracy": "{test_accuracy:.4f}",
            "train accuracy": "{train_accuracy:.4f}",
            "training, s": "{train_seconds:.1f}",
            "compiling, s": "{compile_seconds:.1f}",
            "whole command, s": "{seconds:.1f}",
        },
        rows=rows,
        machine=tables.machine(options.threads),
        notes=[
            f"`{training.shown(options.arguments)}`",
            "Test accuracy: median {median:.4f}, lowest {low:.4f}, highest {high:.4f}.".format(**accuracy),
        ],
    )


def measure(seed: str, arguments: list[str], threads: int) -> Record:
    """What one training's `result.json` says, and the seconds that the whole command took."""
    with tempfile.TemporaryDirectory() as parent:
        began = time.perf_counter()
        run = training.train([*arguments, "--seed", seed], threads, Path(parent, "run"))
        return {**run.result, "seconds": time.perf_counter() - began}
