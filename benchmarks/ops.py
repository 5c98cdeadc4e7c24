"""How fast each kernel is at the sizes of real networks, beside the machine's limit and PyTorch's kernel."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import re
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks import harness, probe, step, tables
from benchmarks.harness import Record, in_process
from benchmarks.kernel_cases import CASES, COLD, GROUPS, MOST_COPIES, Case
from minicnn import _cli

LEAST = 3  # timed calls …
LONGEST = 1.0  # … if they do not take so many seconds
REST = 0.05  # seconds: threads of BLAS and OpenMP spin for a while after their work, and would slow whoever is next
WINOGRAD, DIRECT = "Winograd", "direct"


# --- In the child process ----------------------------------------------------------------------------------------


def measure_minicnn(threads: int, cases: list[str], seconds: float) -> Record:
    """`ms`: for each case, milliseconds by the way in which it is computed."""
    from benchmarks import minicnn_kernels
    from kernels import cpu
    from minicnn import device

    def calls(case: Case) -> list[minicnn_kernels.Call]:
        return [minicnn_kernels.prepare(case.kernel, arrays, case.options) for arrays in case.cold_arrays()]

    def ways(case: Case) -> dict[str, float]:
        ready = calls(case)
        if not case.kernel.startswith("conv2d"):
            return {"": timed(ready, seconds)}
        times = {WINOGRAD: timed(ready, seconds)} if minicnn_kernels.takes_winograd(ready[0]) else {}
        with cpu.exact():
            return {**times, DIRECT: timed(ready, seconds)}

    device.set_threads(threads)
    return {"ms": {name: ways(CASES[name]) for name in cases}}


def measure_torch(threads: int, cases: list[str], seconds: float) -> Record:
    """`ms`: for each case, milliseconds by layout in memory; where there are no maps, all layouts are the same."""
    import torch

    from benchmarks import torch_kernels

    def ways(case: Case) -> dict[str, float]:
        has_maps = any(len(shape) == 4 for shape in case.operands) or case.kernel == "sgd_step"
        times, operands = {}, case.cold_arrays()
        for name, layout in torch_kernels.LAYOUTS.items() if has_maps else [("", torch.contiguous_format)]:
            ready = [torch_kernels.prepare(case.kernel, arrays, case.options, layout) for arrays in operands]
            times[name] = timed(ready, seconds)
        return times

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return {"ms": {name: ways(CASES[name]) for name in cases}}


def timed(calls: list[Callable[[], Any]], seconds: float) -> float:
    """The median time of a call in milliseconds; they take turns, so that each finds its operands out of the caches.

    As many calls as fill the seconds, but at least three, or as many as fill a second.
    """
    time.sleep(REST)
    calls[0]()
    times: list[float] = []
    spent = 0.0
    turns = itertools.cycle(calls[1:] + calls[:1])
    while spent < seconds or (len(times) < LEAST and spent < LONGEST):
        call = next(turns)
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        spent += times[-1]
    return 1e3 * statistics.median(times)


# --- The command -------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows in whose name this regular expression is")
    parser.add_argument("--rounds", type=_cli.positive(int), default=3, help="processes of each side")
    parser.add_argument("--seconds", type=_cli.positive(float), default=0.06, help="of timed calls for each row")
    parser.add_argument("--quick", action="store_true", help="one round: a first impression")


def run(options: argparse.Namespace) -> tables.Table:
    rounds = 1 if options.quick else options.rounds
    rows = [
        row
        for group, cases in selected(options.only).items()
        for row in measure(group, cases, options.threads, rounds, options.seconds)
    ]
    peaks, bandwidths = ([row[name] for row in rows] for name in ("gflops", "gb_s"))
    return tables.Table(
        name="ops",
        title="Kernels: minicnn, PyTorch and the machine's limit",
        columns={
            "kernel": "{kernel}",
            "size": "{layer}",
            "way": "{way}",
            "minicnn, ms": "{minicnn[median]:.3g} ({minicnn[low]:.3g}–{minicnn[high]:.3g})",
            "rate": "{rate:.0f} {unit}",
            "of the limit": "{share:.0%}",
            "PyTorch, ms": "{torch[median]:.3g} ({torch[low]:.3g}–{torch[high]:.3g})",
            "its rate": "{torch_rate:.0f} {unit}",
            "its layout": "{layout}",
            "PyTorch ÷ minicnn": "{ratio:.2f}",
        },
        rows=rows,
        machine=tables.machine(options.threads),
        notes=[
            *summary(rows),
            f"Times are the median (lowest–highest) over the rounds ({rounds}). In a round each side has a process of "
            f"its own, one at a time, for about a dozen layers; there, a row's time is the median of as many calls as "
            f"fill {options.seconds:g} s, but at least {LEAST} or a second of them. PyTorch's layout is the "
            "faster of its two.",
            f"Operands are random. So many sets of them take turns that {COLD >> 20} MB pass before one comes again "
            f"(at most {MOST_COPIES} sets): like most of a step's, they are found in memory, not in a cache. Both "
            "sides keep the pages of freed arrays "
            f"(`GLIBC_TUNABLES={step.KEEP_PAGES['GLIBC_TUNABLES']}`): fresh ones would cost more than the arithmetic.",
            "GF/s: the multiply-adds of the plain formula, two operations each, whichever way was taken. GB/s: of the "
            "bytes that must move, every input and output once. Limit: whichever takes longer, that arithmetic at the "
            f"highest rate that a probe found in the same rounds ({min(peaks):.0f} to {max(peaks):.0f} GF/s), or those "
            f"bytes at the bandwidth that another found ({min(bandwidths):.0f} to {max(bandwidths):.0f} GB/s). "
            "Winograd does up to four times less arithmetic than the plain formula, so it may pass its limit.",
        ],
    )


def selected(pattern: str) -> dict[str, list[Case]]:
    """The groups of cases, without those whose name the pattern is not found in; a ValueError if none is left."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"--only {pattern!r}: not a regular expression: {error}") from None
    found = {group: [case for case in cases if wanted.search(case.name)] for group, cases in GROUPS.items()}
    found = {group: cases for group, cases in found.items() if cases}
    if not found:
        raise ValueError(f"--only {pattern!r}: no row has such a name; one is {next(iter(CASES))!r}")
    return found


def measure(group: str, cases: list[Case], threads: int, rounds: int, seconds: float) -> list[Record]:
    """The rows of one group of cases."""
    print(f"{group}:", flush=True)
    arguments: Record = {"threads": threads, "cases": [case.name for case in cases], "seconds": seconds}
    measurements = {
        "limits": partial(in_process, probe.limits, threads=threads),
        "minicnn": partial(in_process, measure_minicnn, variables=step.KEEP_PAGES, **arguments),
    }
    if importlib.util.find_spec("torch"):
        measurements["PyTorch"] = partial(in_process, measure_torch, variables=step.KEEP_PAGES, **arguments)
    records = harness.alternate(measurements, rounds, report=report)
    limits = {name: max(record[name] for record in records["limits"]) for name in ("gflops", "gb_s")}
    return [row for case in cases for row in rows_of(case, records, limits)]


def report(name: str, turn: int, record: Record) -> None:
    figure = "{gflops:.0f} GF/s, {gb_s:.0f} GB/s".format(**record) if name == "limits" else "done"
    busy = "" if record["busy"] is None else f", others took {record['busy']:.0%} of the machine before"
    print(f"  round {turn + 1}: {name} {figure}{busy}", flush=True)


def rows_of(case: Case, records: dict[str, list[Record]], limits: dict[str, float]) -> Iterator[Record]:
    """A row for each way in which minicnn computes a case, each beside PyTorch's faster layout."""

    def times(side: str) -> dict[str, dict[str, float]]:
        rounds = [record["ms"][case.name] for record in records.get(side, [])]
        return {way: harness.spread([ms[way] for ms in rounds]) for way in (rounds[0] if rounds else ())}

    theirs = times("PyTorch")
    layout = min(theirs, key=lambda name: theirs[name]["median"], default=None)
    work, unit = (2 * case.multiply_adds, "GF/s") if case.multiply_adds else (case.moved, "GB/s")
    limit = max(2 * case.multiply_adds / limits["gflops"], case.moved / limits["gb_s"]) / 1e6
    for way, ours in times("minicnn").items():
        torch = None if layout is None else theirs[layout]
        yield {
            "kernel": case.kernel,
            "layer": case.layer,
            "way": way,
            "minicnn": ours,
            "torch": torch,
            "layout": layout,
            "unit": unit,
            "rate": work / ours["median"] / 1e6,
            "torch_rate": torch and work / torch["median"] / 1e6,
            "ratio": torch and torch["median"] / ours["median"],
            "limit_ms": limit,
            "share": limit / ours["median"],
            **limits,
            "torch_layouts": theirs,
        }


def summary(rows: list[Record]) -> Iterator[str]:
    """What the rows say together, beside PyTorch: direct convolution, Winograd, and all else."""
    has_winograd = {(row["kernel"], row["layer"]) for row in rows if row["way"] == WINOGRAD}
    classes = {
        "Convolution by Winograd": [row for row in rows if row["way"] == WINOGRAD],
        "Direct convolution where Winograd is not taken": [
            row for row in rows if row["way"] == DIRECT and (row["kernel"], row["layer"]) not in has_winograd
        ],
        "Direct convolution where it is": [
            row for row in rows if row["way"] == DIRECT and (row["kernel"], row["layer"]) in has_winograd
        ],
        "Other kernels": [row for row in rows if not row["way"]],
    }
    for name, members in classes.items():
        compared = [row for row in members if row["ratio"]]
        if compared:
            ratios = [row["ratio"] for row in compared]
            worst = min(compared, key=lambda row: row["ratio"])
            yield (
                f"{name}: PyTorch ÷ minicnn has a geometric mean of {statistics.geometric_mean(ratios):.2f} over "
                f"{len(ratios)} rows; lowest {worst['ratio']:.2f} ({worst['kernel']} {worst['layer']}), "
                f"{sum(ratio < 0.92 for ratio in ratios)} below 0.92."
            )
