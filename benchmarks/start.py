"""How long a training command takes until its first step is done: with compiled kernels on disk, and without."""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any, NoReturn

from benchmarks import harness, tables, training
from benchmarks.harness import Record, in_process
from minicnn import _cli


class FirstStepDone(BaseException):
    """Ends the training; no error handling on the way takes it for an error."""


def measure(threads: int, arguments: list[str], began: float) -> Record:
    """Seconds from `began`, the time when this process was asked for, to the end of the first training step."""
    from minicnn.train.__main__ import main
    from minicnn.train.trainer import Trainer

    step = Trainer.step

    def only_step(*args: Any) -> NoReturn:
        step(*args)
        raise FirstStepDone

    Trainer.step = only_step  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        try:
            code = main([*arguments, "--threads", str(threads), "--out", folder])
        except FirstStepDone:
            return {"seconds": time.time() - began}
    raise RuntimeError(f"the training ended with exit code {code} before its first step")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=_cli.positive(int), default=3, help="starts with kernels on disk")


def run(options: argparse.Namespace) -> tables.Table:
    def start(**variables: str) -> float:
        began, arguments = time.time(), options.arguments
        return in_process(measure, threads=options.threads, variables=variables, arguments=arguments, began=began)[
            "seconds"
        ]

    with tempfile.TemporaryDirectory() as cache:
        without = start(XDG_CACHE_HOME=cache)
        with_kernels = [start(XDG_CACHE_HOME=cache) for _ in range(options.rounds)]
    return tables.Table(
        name="start",
        title="From the command to the end of the first training step",
        columns={"compiled kernels": "{kernels}", "seconds": "{median:.1f} ({low:.1f}–{high:.1f})"},
        rows=[
            {"kernels": "none on disk", **harness.spread([without])},
            {"kernels": "on disk", **harness.spread(with_kernels)},
        ],
        machine=tables.machine(options.threads),
        notes=[f"`{training.shown(options.arguments)}`; median (lowest–highest)."],
    )
