"""A training step, and inference, of whole networks: minicnn, PyTorch in its fastest modes, and the machine's limit."""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from benchmarks import harness, networks, probe, sides, tables
from benchmarks.harness import Record
from minicnn import _cli

DEFAULT = tuple(name for name in networks.NETWORKS if name not in ("vgg-a", "resnet152", "resnet1202"))
LEAST = 3  # timed steps in a process
COMPILE_LIMIT = 400.0  # seconds for a process in which PyTorch compiles


class Effort(NamedTuple):
    """How long a process steps on for the sake of its median."""

    seconds: float
    least: int = LEAST

    def __str__(self) -> str:
        return f"{self.seconds:g} s, but at least {self.least}"


SCOUTING, QUICK = Effort(1.0, least=1), Effort(1.0, least=2)


# --- In the child process ----------------------------------------------------------------------------------------


def measure_minicnn(threads: int, network: str, *, seconds: float, least: int, task: str) -> Record:
    prepare = {"training": sides.minicnn_step, "inference": sides.minicnn_inference}[task]
    step = prepare(networks.NETWORKS[network], threads)
    multiply_adds = probe.multiply_adds(step)  # the untimed first step, which compiles
    return {**timed(step, seconds, least), "multiply_adds": multiply_adds}


def measure_torch(threads: int, network: str, *, seconds: float, least: int, task: str, **options: bool) -> Record:
    prepare: Callable[..., sides.Step] = {"training": sides.torch_step, "inference": sides.torch_inference}[task]
    step = prepare(networks.NETWORKS[network], threads, **options)
    step()
    return timed(step, seconds, least)


def timed(step: sides.Step, seconds: float, least: int = LEAST) -> Record:
    """The median time of a step, over as many as fill `seconds`, but at least so many."""
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        result = step()
        times.append(time.perf_counter() - start)
        if not math.isfinite(result):
            raise ArithmeticError(f"the result is {result}: arithmetic with NaN takes another time than with numbers")
    return {"ms": 1e3 * statistics.median(times), "steps": len(times)}


# --- What is compared --------------------------------------------------------------------------------------------

# glibc's malloc returns large arrays to the system at once, and fresh pages cost more than what is done with them.
KEEP_PAGES = {"GLIBC_TUNABLES": f"glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={2**40}"}
ALLOCATORS: dict[str, dict[str, str]] = {"installed": {}, "tuned": KEEP_PAGES}

TORCH_MODES: dict[str, dict[str, bool]] = {
    "NCHW": {},
    "channels_last": {"channels_last": True},
    "channels_last+compiled": {"channels_last": True, "compiled": True},
}
TITLES = {"training": "A training step: minicnn and PyTorch", "inference": "Inference: minicnn and PyTorch"}
NOTES = {
    "training": "A step is forward, loss, backward and SGD with momentum.",
    "inference": "Inference is forward of the same batch, in evaluation mode and without a graph (`no_grad`, "
    "`inference_mode`). BatchNorm is folded into the convolutions: by `minicnn.folding.fold`, by PyTorch's "
    "`torch.fx.experimental.optimization.fuse`, and by its compiler (`freezing`).",
}


def torch_modes(network: str) -> dict[str, dict[str, bool]]:
    """PyTorch's modes for one network: compiled only where that is worth the wait."""
    return {
        name: mode for name, mode in TORCH_MODES.items() if not mode.get("compiled") or network in networks.COMPILED
    }


# --- The command -------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    known, gated = ", ".join(networks.NETWORKS), ", ".join(networks.GATED)
    parser.add_argument("--networks", metavar="A,B", help=f"of {known}; default: {', '.join(DEFAULT)}")
    parser.add_argument("--only", choices=TITLES, help="one of the two tables")
    parser.add_argument("--rounds", type=_cli.positive(int), default=3, help="processes of each side")
    parser.add_argument("--seconds", type=_cli.positive(float), default=4.0, help="of timed steps in each process")
    parser.add_argument(
        "--quick", action="store_true", help=f"{gated}, with a second of timed steps: under half an hour"
    )


def run(options: argparse.Namespace) -> Iterator[tables.Table]:
    """The table of training, then that of inference."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError("PyTorch, which minicnn is compared with, is not installed: pip install torch==2.13.0")
    chosen = networks.named(options.networks or ",".join(networks.GATED if options.quick else DEFAULT))
    effort = QUICK if options.quick else Effort(options.seconds)
    for task in [options.only] if options.only else TITLES:
        yield table(task, list(chosen), options.threads, options.rounds, effort)


def table(task: str, chosen: Sequence[str], threads: int, rounds: int, effort: Effort) -> tables.Table:
    rows: list[Record] = []
    failures: list[str] = []
    for network in chosen:
        print(f"{task}, {network}:", flush=True)
        try:
            rows.append(measure(network, task, threads, rounds, effort))
        except RuntimeError as error:  # the other networks' rows are worth having
            failures.append(f"{network} is missing: {error}")
            print(f"  {failures[-1]}", flush=True)
    if not rows:
        raise RuntimeError("; ".join(failures))
    return tables.Table(
        name="step" if task == "training" else task,
        title=TITLES[task],
        columns={
            "network": "{network}",
            "batch": "{batch} × {side}²",
            "minicnn, ms": "{minicnn[median]:.0f} ({minicnn[low]:.0f}–{minicnn[high]:.0f})",
            "PyTorch as installed, ms": "{installed[median]:.0f} ({installed[low]:.0f}–{installed[high]:.0f})",
            "its best mode": "{installed_mode}",
            "÷ minicnn": "{installed_ratio:.2f}",
            "PyTorch tuned, ms": "{tuned[median]:.0f} ({tuned[low]:.0f}–{tuned[high]:.0f})",
            "its best mode, tuned": "{tuned_mode}",
            "tuned ÷ minicnn": "{tuned_ratio:.2f}",
            "limit, ms": "{limit_ms:.0f}",
            "limit ÷ minicnn": "{share:.0%}",
            "minicnn, MB": "{minicnn_mb:.0f}",
            "PyTorch as installed, MB": "{installed_mb:.0f}",
            "PyTorch tuned, MB": "{tuned_mb:.0f}",
        },
        rows=rows,
        machine=tables.machine(threads),
        notes=[
            *means(rows),
            NOTES[task],
            *method(rows, rounds, effort),
            *memory(rows),
            *failures,
            *failed_modes(rows),
        ],
    )


def means(rows: Sequence[Record]) -> Iterator[str]:
    """What the gated networks' rows say together, if all are there."""
    gated = [row for row in rows if row["network"] in networks.GATED]
    if len(gated) < len(networks.GATED):
        return
    for name, what in (
        ("installed", "as installed"),
        ("tuned", "with the tuned allocator"),
        ("best", "with the allocator that is the faster"),
    ):
        ratios = {row["network"]: row[f"{name}_ratio"] for row in gated}
        lowest = min(ratios, key=ratios.__getitem__)
        yield (
            f"PyTorch {what} ÷ minicnn: geometric mean {statistics.geometric_mean(ratios.values()):.2f} over "
            f"{', '.join(ratios)}; lowest {ratios[lowest]:.2f} ({lowest})."
        )


def method(rows: Sequence[Record], rounds: int, effort: Effort) -> Iterator[str]:
    peaks = [row["gflops"] for row in rows]
    busy = [row["busy"] for row in rows if row["busy"] is not None]
    yield (
        "A scouting round measured every mode of PyTorch with both allocators, as installed and tuned to keep the "
        f"pages of freed arrays (`GLIBC_TUNABLES={KEEP_PAGES['GLIBC_TUNABLES']}`); the fastest of each then took turns "
        f"with minicnn, which is run as installed. Times are the median (lowest–highest) over those rounds ({rounds}). "
        "Each measurement is a process of its own, one at a time: an untimed first step, then the median of as many as "
        f"fill {effort} (in the scouting round {SCOUTING}). The "
        f"JSON has them all. `torch.compile` was tried for {', '.join(networks.COMPILED)}; its compiling is not in the "
        "times."
    )
    yield (
        "Limit: the time for the multiply-adds, as many as the plain formulas ask for, at the highest rate that a "
        f"probe found before the row's rounds ({min(peaks):.0f} to {max(peaks):.0f} GF/s). Winograd does with fewer."
    )
    if busy:
        yield f"Between the measurements, other processes took up to {max(busy):.0%} of the machine."


def memory(rows: Sequence[Record]) -> Iterator[str]:
    above = [row["network"] for row in rows if row["minicnn_mb"] > min(row["installed_mb"], row["tuned_mb"])]
    yield (
        "MB: peak resident memory of the whole process, libraries and compilers included, the median over the rounds. "
        f"minicnn takes more than PyTorch in {', '.join(above) or 'no row'}."
    )


def failed_modes(rows: Sequence[Record]) -> Iterator[str]:
    for row in rows:
        for mode, record in row["scouting"].items():
            if "failed" in record:
                yield f"{row['network']}: PyTorch's {mode} is missing: {record['failed']}"


# --- One row -----------------------------------------------------------------------------------------------------


def measure(network: str, task: str, threads: int, rounds: int, effort: Effort) -> Record:
    """One row of the table, with the records that it is made of; a RuntimeError if a measurement fails."""
    common: dict[str, Any] = {"threads": threads, "network": network, "task": task}
    modes = torch_modes(network)

    def of_torch(run: Callable[..., Record], mode: str, allocator: str, effort: Effort) -> Callable[[], Record]:
        limit = COMPILE_LIMIT if modes[mode].get("compiled") else None
        variables = ALLOCATORS[allocator]
        return partial(
            run, measure_torch, variables=variables, limit=limit, **common, **modes[mode], **effort._asdict()
        )

    scouts = {
        f"{mode}, {allocator}": of_torch(harness.attempt, mode, allocator, SCOUTING)
        for mode in modes
        for allocator in ALLOCATORS
    }
    probes = {"peak": partial(harness.in_process, probe.peak, threads=threads)}
    scouting = {name: record for name, [record] in harness.alternate({**probes, **scouts}, 1, report=report).items()}
    best = {name: fastest({mode: scouting[f"{mode}, {name}"] for mode in modes}) for name in ALLOCATORS}
    contenders: dict[str, Callable[[], Record]] = {
        "minicnn": partial(harness.in_process, measure_minicnn, **effort._asdict(), **common),
        **{name: of_torch(harness.in_process, mode, name, effort) for name, mode in best.items()},
    }
    records = harness.alternate(contenders, rounds, report=report)
    return {
        "network": network,
        **shape(network),
        **{f"{allocator}_mode": mode for allocator, mode in best.items()},
        **summary(records, scouting["peak"]["gflops"]),
        "busy": busiest([*scouting.values(), *(record for of_one in records.values() for record in of_one)]),
        "scouting": scouting,
        "records": records,
    }


def fastest(records: Mapping[str, Record]) -> str:
    """The mode with the shortest step; a RuntimeError with the reasons if none worked."""
    worked = {mode: record["ms"] for mode, record in records.items() if "ms" in record}
    if not worked:
        raise RuntimeError("; ".join(record["failed"] for record in records.values()))
    return min(worked, key=worked.__getitem__)


def report(name: str, turn: int, record: Record) -> None:
    """A line for people who wait."""
    busy = "" if record["busy"] is None else f", others took {record['busy']:.0%} of the machine before"
    if "failed" in record:
        print(f"  round {turn + 1}: {name} failed: {record['failed']}", flush=True)
        return
    figure = f"{record['gflops']:8.0f} GF/s" if name == "peak" else f"{record['ms']:8.0f} ms  "
    print(f"  round {turn + 1}: {figure} {record['peak_mb']:8.0f} MB  {name}{busy}", flush=True)


def shape(network: str) -> dict[str, Any]:
    return {"batch": networks.NETWORKS[network].batch, "side": networks.NETWORKS[network].side}


def summary(records: Mapping[str, Sequence[Record]], gflops: float) -> Record:
    """What the table shows of one network's rounds: minicnn, PyTorch with each allocator, and the limit."""
    compared = ("minicnn", *ALLOCATORS)
    times = {side: harness.spread([record["ms"] for record in records[side]]) for side in compared}
    ours = times["minicnn"]["median"]
    ratios = {f"{allocator}_ratio": times[allocator]["median"] / ours for allocator in ALLOCATORS}
    limit = 2 * records["minicnn"][0]["multiply_adds"] / (1e6 * gflops)
    return {
        **times,
        **ratios,
        "best_ratio": min(ratios.values()),
        "gflops": gflops,
        "limit_ms": limit,
        "share": limit / ours,
        # The median: where no kernels are on disk yet, the first process compiles them.
        **{f"{side}_mb": statistics.median(record["peak_mb"] for record in records[side]) for side in compared},
    }


def busiest(records: Sequence[Record]) -> float | None:
    return max((record["busy"] for record in records if record["busy"] is not None), default=None)
