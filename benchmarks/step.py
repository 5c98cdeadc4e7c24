"""How long a training step takes, in minicnn and in PyTorch, beside the time that its arithmetic needs at the least."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks import harness, networks, probe, sides, tables
from benchmarks.harness import Record, in_process
from minicnn import _cli

DEFAULT = "resnet18,googlenet,vgg-a,resnet20"
LEAST = 3  # timed steps in a process


# --- In the child process ----------------------------------------------------------------------------------------


def measure_minicnn(threads: int, network: str, seconds: float) -> Record:
    step = sides.minicnn_step(networks.NETWORKS[network], threads)
    multiply_adds = probe.multiply_adds(step)  # the untimed first step, which compiles
    return {**timed(step, seconds), "multiply_adds": multiply_adds}


def measure_torch(threads: int, network: str, seconds: float, **options: bool) -> Record:
    step = sides.torch_step(networks.NETWORKS[network], threads, **options)
    step()
    return timed(step, seconds)


def timed(step: sides.Step, seconds: float) -> Record:
    """The median time of a step, over as many as fill `seconds`, but at least three."""
    times: list[float] = []
    while len(times) < LEAST or sum(times) < seconds:
        start = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - start)
        if not math.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss}: arithmetic with NaN takes another time than with numbers")
    return {"ms": 1e3 * statistics.median(times), "steps": len(times)}


# --- What is compared --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mode:
    """One way to run a step: a function for the child process, options for it, and variables of its environment."""

    measure: Callable[..., Record]
    options: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


# glibc's malloc returns large arrays to the system at once, and fresh pages cost more than what is done with them.
KEEP_PAGES = {"GLIBC_TUNABLES": f"glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={2**40}"}

MINICNN = Mode(measure_minicnn)
TORCH = {
    "NCHW": Mode(measure_torch),
    "channels_last": Mode(measure_torch, {"channels_last": True}),
    "channels_last+compiled": Mode(measure_torch, {"channels_last": True, "compiled": True}),
    "channels_last+pages-kept": Mode(measure_torch, {"channels_last": True}, KEEP_PAGES),
}
EAGER = "NCHW,channels_last"


def torch_modes(names: str) -> dict[str, Mode]:
    """PyTorch's modes of a comma-separated list; a ValueError for an unknown one, and where PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError("PyTorch, which minicnn is compared with, is not installed: pip install torch==2.13.0")
    for name in names.split(","):
        if name not in TORCH:
            raise ValueError(f"unknown mode {name!r}: choose from {', '.join(TORCH)}")
    return {name: TORCH[name] for name in names.split(",")}


# --- The command -------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(networks.NETWORKS)
    parser.add_argument("--networks", default=DEFAULT, metavar="A,B", help=f"of {known}")
    parser.add_argument("--modes", default=EAGER, metavar="A,B", help=f"PyTorch's, of {', '.join(TORCH)}")
    parser.add_argument("--rounds", type=_cli.positive(int), default=3, help="processes of each side and mode")
    parser.add_argument("--seconds", type=_cli.positive(float), default=4.0, help="of timed steps in each process")
    parser.add_argument("--quick", action="store_true", help="one round of one second: a first impression")


def run(options: argparse.Namespace) -> tables.Table:
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    modes, chosen = torch_modes(options.modes), networks.named(options.networks)
    rows = [measure(name, {"minicnn": MINICNN, **modes}, options.threads, rounds, seconds) for name in chosen]
    ratios = [row["ratio"] for row in rows]
    peaks = [row["gflops"] for row in rows]
    busy = [row["busy"] for row in rows if row["busy"] is not None]
    return tables.Table(
        name="step",
        title="A training step: minicnn and PyTorch",
        columns={
            "network": "{network}",
            "batch": "{batch} × {side}²",
            "minicnn, ms": "{minicnn[median]:.0f} ({minicnn[low]:.0f}–{minicnn[high]:.0f})",
            "PyTorch, ms": "{torch[median]:.0f} ({torch[low]:.0f}–{torch[high]:.0f})",
            "its best mode": "{torch_mode}",
            "PyTorch ÷ minicnn": "{ratio:.2f}",
            "limit, ms": "{limit_ms:.0f}",
            "limit ÷ minicnn": "{share:.0%}",
            "minicnn, MB": "{minicnn_mb:.0f}",
            "PyTorch, MB": "{torch_mb:.0f}",
        },
        rows=rows,
        machine=tables.machine(options.threads),
        notes=[
            f"PyTorch ÷ minicnn: geometric mean {statistics.geometric_mean(ratios):.2f}, lowest {min(ratios):.2f}.",
            "A step is forward, loss, backward and SGD with momentum. Times are the median (lowest–highest) over the "
            f"rounds ({rounds}). In a round each side and mode has a process of its own, one at a time: one untimed "
            f"step, then the median of as many as fill {seconds:g} s, but at least {LEAST}. PyTorch's modes were "
            f"{', '.join(modes)}; its fastest is shown, all are in the JSON.",
            "Limit: the time for the step's multiply-adds, as many as the plain formulas ask for, at the highest rate "
            f"that a probe found in the same rounds ({min(peaks):.0f} to {max(peaks):.0f} GF/s). MB: peak resident "
            "memory of the whole process.",
            *(
                [f"Between the measurements, other processes took up to {max(busy):.0%} of the machine."]
                if busy
                else []
            ),
        ],
    )


def measure(network: str, modes: Mapping[str, Mode], threads: int, rounds: int, seconds: float) -> Record:
    """One row of the table, with the records that it is made of."""
    print(f"{network}:", flush=True)
    measurements = {"peak": partial(in_process, probe.peak, threads=threads)}
    for name, mode in modes.items():
        arguments = {"network": network, "seconds": seconds, **mode.options}
        measurements[name] = partial(in_process, mode.measure, threads=threads, variables=mode.variables, **arguments)
    records = harness.alternate(measurements, rounds, report=report)
    return {"network": network, **shape(network), **summary(records), "records": records}


def report(name: str, turn: int, record: Record) -> None:
    figure = f"{record['gflops']:8.0f} GF/s" if name == "peak" else f"{record['ms']:8.0f} ms  "
    busy = "" if record["busy"] is None else f", others took {record['busy']:.0%} of the machine before"
    print(f"  round {turn + 1}: {figure} {record['peak_mb']:8.0f} MB  {name}{busy}", flush=True)


def shape(network: str) -> dict[str, Any]:
    return {"batch": networks.NETWORKS[network].batch, "side": networks.NETWORKS[network].side}


def summary(records: Mapping[str, list[Record]]) -> Record:
    """What the table shows of one network: both sides, PyTorch in its fastest mode, and the limit."""
    times = {name: harness.spread([r["ms"] for r in records[name]]) for name in records if name != "peak"}
    ours = times["minicnn"]
    best = min((name for name in times if name != "minicnn"), key=lambda name: times[name]["median"])
    gflops = max(record["gflops"] for record in records["peak"])
    limit = 2 * records["minicnn"][0]["multiply_adds"] / (1e6 * gflops)
    return {
        "minicnn": ours,
        "torch": times[best],
        "torch_mode": best,
        "ratio": times[best]["median"] / ours["median"],
        "gflops": gflops,
        "limit_ms": limit,
        "share": limit / ours["median"],
        "minicnn_mb": max(record["peak_mb"] for record in records["minicnn"]),
        "torch_mb": max(record["peak_mb"] for record in records[best]),
        "busy": max(
            (r["busy"] for of_mode in records.values() for r in of_mode if r["busy"] is not None), default=None
        ),
    }
