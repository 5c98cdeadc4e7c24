"""How exact the fast kernels are: single kernels, then all gradients of deep networks; or whole trainings."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import numpy as np

from benchmarks import exact_training, gradients, ops, tables
from benchmarks.harness import Record, in_process
from benchmarks.kernel_cases import CASES, Case

# The others only move and compare numbers, draw them, or are a formula applied to each.
ROUNDING = ("conv2d", "linear", "batch_norm_stats", "bn_relu", "lrn", "avg_pool", "cross_entropy")


# --- In the child process ----------------------------------------------------------------------------------------


def measure_errors(threads: int, cases: list[str]) -> Record:
    """`errors`: for each case, how far float32 results are from float64's, minicnn's by each way and PyTorch's."""
    from minicnn import device

    device.set_threads(threads)
    return {"errors": {name: errors(CASES[name], threads) for name in cases}}


def errors(case: Case, threads: int) -> dict[str, float]:
    from benchmarks import minicnn_kernels
    from kernels import cpu

    arrays = operands(case)
    exact = as_list(minicnn_kernels.prepare(case.kernel, tuple(a.astype(np.float64) for a in arrays), case.options)())
    call = minicnn_kernels.prepare(case.kernel, arrays, case.options)
    with cpu.exact():
        found = {"direct": error(as_list(call()), exact)}
    if case.kernel.startswith("conv2d") and minicnn_kernels.takes_winograd(call):
        found["Winograd"] = error(as_list(call()), exact)
    if importlib.util.find_spec("torch"):
        found |= {name: error(results, exact) for name, results in torch_results(case, arrays, threads).items()}
    return found


def torch_results(case: Case, arrays: tuple[np.ndarray, ...], threads: int) -> dict[str, list[np.ndarray]]:
    """What PyTorch computes in each of its layouts."""
    import torch

    from benchmarks import torch_kernels

    torch.set_num_threads(threads)
    return {
        name: torch_kernels.results(case.kernel, torch_kernels.prepare(case.kernel, arrays, case.options, layout)())
        for name, layout in torch_kernels.LAYOUTS.items()
    }


def operands(case: Case) -> tuple[np.ndarray, ...]:
    """Random ones; in front of a ReLU such that no sum lies so near 0 that rounding decides what passes."""
    arrays = case.arrays()
    if case.kernel not in ("bn_relu", "bn_relu_grad"):
        return arrays
    x, gamma, beta, residual = arrays[-4:]
    normalised = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * gamma + beta
    near = np.abs(normalised + residual) < 1e-3
    return (*arrays[:-1], np.where(near, residual + 0.01, residual))


def as_list(results: Any) -> list[np.ndarray]:
    return list(results) if isinstance(results, tuple) else [results]


def error(results: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """The largest difference, as a share of the largest value; of several results, the worst.

    PyTorch may return fewer: its cross-entropy keeps the probabilities to itself.
    """
    pairs = zip(results, exact, strict=False)
    return max(float(np.abs(result - truth).max() / np.abs(truth).max()) for result, truth in pairs)


# --- The command -------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", metavar="PATTERN", help="kernels in whose row this regular expression is, no networks"
    )
    parser.add_argument(
        "--train", action="store_true", help="instead: trainings with and without Winograd, on the bundled images"
    )
    parser.add_argument("--data", metavar="SPEC", help="with --train: other images, such as fashion-mnist")
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B", help="with --train: of the trainings")


def run(options: argparse.Namespace) -> Iterator[tables.Table]:
    if not options.train and (options.data or options.arguments):
        raise ValueError("accuracy: --data, and options of minicnn.train after --, need --train")
    if options.train:
        yield exact_training.table(options.data, options.arguments, options.seeds.split(","), options.threads)
        return
    yield table(options.only or "", options.threads)
    if options.only is None:
        yield gradients.table(options.threads)


def table(pattern: str, threads: int) -> tables.Table:
    rows = [row for group, cases in ops.selected(pattern).items() for row in measure(group, cases, threads)]
    return tables.Table(
        name="accuracy",
        title="Rounding errors of kernels",
        columns={
            "kernel": "{kernel}",
            "size": "{layer}",
            "minicnn, direct": "{direct:.1e}",
            "minicnn, Winograd": "{Winograd:.1e}",
            "PyTorch": "{PyTorch:.1e}",
            "direct ÷ PyTorch": "{ratio:.2f}",
        },
        rows=rows,
        machine=tables.machine(threads),
        notes=[
            *summary(rows),
            "The largest difference of a float32 result from the same in float64 (computed by minicnn), as a share of "
            "the largest value; of kernels with several results, the worst. Operands are random and normally "
            "distributed. PyTorch: in the better of its layouts. Winograd: where it is taken, with the error of the "
            "direct way beside it. Kernels that only move, compare or draw numbers are not listed.",
        ],
    )


def measure(group: str, cases: list[Case], threads: int) -> list[Record]:
    """The rows of one group of cases."""
    rounding = [case for case in cases if is_measured(case)]
    print(f"{group}: {len(rounding)} kernels", flush=True)
    found = in_process(measure_errors, threads=threads, cases=[case.name for case in rounding])["errors"]
    return [row_of(case, found[case.name]) for case in rounding]


def is_measured(case: Case) -> bool:
    """BatchNorm with ReLU only where a residual can keep the sums away from 0."""
    has_residual = len(case.operands) == {"bn_relu": 4, "bn_relu_grad": 5}.get(case.kernel, len(case.operands))
    return case.kernel.startswith(ROUNDING) and has_residual


def row_of(case: Case, found: dict[str, float]) -> Record:
    layouts = [found[name] for name in ("NCHW", "channels_last") if name in found]
    theirs = min(layouts, default=None)
    row = {"kernel": case.kernel, "layer": case.layer, "Winograd": None, "PyTorch": theirs, **found}
    return {**row, "ratio": found["direct"] / theirs if theirs else None}


def summary(rows: list[Record]) -> list[str]:
    """The worst rows of each way."""
    notes = []
    for way, column, form in (("direct", "ratio", "{:.2f} times PyTorch's"), ("Winograd", "Winograd", "{:.1e}")):
        compared = [row for row in rows if row[column] is not None]
        if compared:
            worst = max(compared, key=itemgetter(column))
            notes.append(f"Worst, {way}: {form.format(worst[column])} ({worst['kernel']} {worst['layer']}).")
    return notes
