"""How a training step's time grows with batch, image, depth and threads; or what an op costs in itself."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from benchmarks import harness, overhead, sides, step, tables
from benchmarks.harness import Record, in_process
from benchmarks.networks import Network
from minicnn import _cli

NAMES = ("batch", "side", "depth", "threads")
OVERHEAD = "overhead"


@dataclasses.dataclass(frozen=True)
class Point:
    """One step that is measured: `value` is what its axis varies."""

    value: int
    network: Network
    threads: int


def axis(name: str, threads: int) -> list[Point]:
    """The points of one axis, in order; all else is the same in each."""
    if name == "batch":
        return [Point(n, Network("resnet20", n, 32), threads) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)]
    if name == "side":  # all above 64, up to which the network is another one
        return [Point(side, Network("resnet18", 4, side), threads) for side in (96, 128, 160, 192, 224, 256)]
    if name == "depth":
        return [Point(depth, Network(f"resnet{depth}", 32, 32), threads) for depth in (20, 32, 44, 56, 110)]
    counts = sorted({threads, *(2**i for i in range(threads.bit_length()) if 2**i < threads)})
    return [Point(count, Network("resnet20", 128, 32), count) for count in counts]


# --- In the child process ----------------------------------------------------------------------------------------


def measure_step(threads: int, network: Record, seconds: float) -> Record:
    train = sides.minicnn_step(Network(**network), threads)
    train()
    return step.timed(train, seconds)


# --- The command -------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    known = (*NAMES, OVERHEAD)
    parser.add_argument("--axes", default=",".join(known), metavar="A,B", help=f"of {', '.join(known)}")
    parser.add_argument("--rounds", type=_cli.positive(int), default=3, help="processes of each point")
    parser.add_argument("--seconds", type=_cli.positive(float), default=1.0, help="of timed steps in each process")
    parser.add_argument("--quick", action="store_true", help="one round: a first impression")


def run(options: argparse.Namespace) -> Iterator[tables.Table]:
    """The table of steps, then that of single ops."""
    rounds = 1 if options.quick else options.rounds
    names = [name.strip() for name in options.axes.split(",")]
    for name in names:
        if name not in (*NAMES, OVERHEAD):
            raise ValueError(f"unknown axis {name!r}: choose from {', '.join((*NAMES, OVERHEAD))}")
    if axes := [name for name in names if name != OVERHEAD]:
        yield table(axes, options.threads, rounds, options.seconds)
    if OVERHEAD in names:
        yield overhead.table(options.threads, rounds, options.seconds / 10)


def table(names: Sequence[str], threads: int, rounds: int, seconds: float) -> tables.Table:
    rows: list[Record] = []
    fits = []
    for name in names:
        of_axis = measure(name, threads, rounds, seconds)
        rows += of_axis
        if len(of_axis) > 1:
            slope = exponent([row["value"] for row in of_axis], [row["ms"]["median"] for row in of_axis])
            fits.append(f"{name}^{slope:.2f}")
    return tables.Table(
        name="scaling",
        title="How the time of a training step grows",
        columns={
            "axis": "{axis}",
            "at": "{value}",
            "network": "{model}",
            "batch": "{batch} × {side}²",
            "threads": "{threads}",
            "step, ms": "{ms[median]:.1f} ({ms[low]:.1f}–{ms[high]:.1f})",
            "images/s": "{rate:.0f}",
            "exponent from the point before": "{exponent:.2f}",
        },
        rows=rows,
        machine=tables.machine(threads),
        notes=[
            f"Fitted to all points of an axis, the time grows as {', '.join(fits) or '–'}. Arithmetic grows as batch¹, "
            "side², depth¹ and, shared out, threads⁻¹; an exponent nearer to 0 is time that the axis does not change.",
            f"minicnn; a step is forward, loss, backward and SGD with momentum. Median (lowest–highest) over the "
            f"rounds ({rounds}), each point in a process of its own, in each the median of the steps that fill "
            f"{seconds:g} s, but at least {step.LEAST}.",
        ],
    )


def measure(name: str, threads: int, rounds: int, seconds: float) -> list[Record]:
    """The rows of one axis."""
    points = axis(name, threads)
    measurements = {
        f"{name} {point.value}": partial(
            in_process,
            measure_step,
            threads=point.threads,
            network=dataclasses.asdict(point.network),
            seconds=seconds,
        )
        for point in points
    }
    records = harness.alternate(measurements, rounds, report=step.report)
    rows: list[Record] = []
    for point in points:
        ms = harness.spread([record["ms"] for record in records[f"{name} {point.value}"]])
        before = rows[-1] if rows else None
        slope = exponent([before["value"], point.value], [before["ms"]["median"], ms["median"]]) if before else None
        rate = 1e3 * point.network.batch / ms["median"]
        entries = {"axis": name, "value": point.value, "threads": point.threads, "ms": ms, "rate": rate}
        rows.append({**dataclasses.asdict(point.network), **entries, "exponent": slope})
    return rows


def exponent(values: Sequence[float], times: Sequence[float]) -> float:
    """The p for which times = constant · valuesᵖ fits best: the slope of a line through their logarithms."""
    return float(np.polyfit([math.log(value) for value in values], [math.log(time) for time in times], 1)[0])
