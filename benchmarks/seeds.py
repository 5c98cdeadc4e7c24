"""How far a training's result depends on chance: the same command with several seeds, the README's by default."""

from __future__ import annotations

import argparse

from benchmarks import harness, tables, training


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B", help="(default: %(default)s)")


def run(options: argparse.Namespace) -> tables.Table:
    seeds = [int(seed) for seed in options.seeds.split(",")]
    rows = [training.train([*options.arguments, "--seed", str(seed)], options.threads).result for seed in seeds]
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
