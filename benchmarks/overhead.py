"""What an op costs before it has computed anything: ops on single numbers, and a small network with one image."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import harness, networks, ops, sides, tables
from benchmarks.harness import Record, in_process

SMALL = networks.Network("resnet20", batch=1, side=32)
NETWORK = "a training step of ResNet-20, batch 1"

Calls = Mapping[str, Callable[[], Any]]


# --- In the child process ----------------------------------------------------------------------------------------


def measure_minicnn(threads: int, seconds: float) -> Record:
    import minicnn
    from minicnn import Tensor
    from minicnn import ops as op

    def number(*shape: int) -> Tensor:
        return Tensor(np.ones(shape, np.float32), requires_grad=True)

    x, w = number(1, 1, 1, 1), number(1, 1, 1, 1)
    row, matrix = number(1, 1), number(1, 1)
    forward = {
        "relu": partial(op.relu, x),
        "add": partial(op.add, x, w),
        "conv2d 1×1": partial(op.conv2d, x, w),
        "linear": partial(op.linear, row, matrix),
    }
    return measure(forward, (x, w, row, matrix), minicnn.no_grad, sides.minicnn_step(SMALL, threads), seconds)


def measure_torch(threads: int, seconds: float) -> Record:
    import torch
    import torch.nn.functional as F

    def number(*shape: int) -> torch.Tensor:
        return torch.ones(shape, requires_grad=True)

    x, w = number(1, 1, 1, 1), number(1, 1, 1, 1)
    row, matrix = number(1, 1), number(1, 1)
    forward = {
        "relu": partial(torch.relu, x),
        "add": partial(torch.add, x, w),
        "conv2d 1×1": partial(F.conv2d, x, w),
        "linear": partial(F.linear, row, matrix),
    }
    return measure(forward, (x, w, row, matrix), torch.no_grad, sides.torch_step(SMALL, threads), seconds)


def measure(
    forward: Calls, leaves: Sequence[Any], no_grad: Callable[[], Any], train: sides.Step, seconds: float
) -> Record:
    """Each call without a graph, each with its gradients, and the whole step, in microseconds."""
    with no_grad():
        alone = microseconds(forward, seconds)
    train()
    return {
        "us": {
            **alone,
            **microseconds(with_backward(forward, *leaves), seconds),
            **microseconds({NETWORK: train}, seconds),
        }
    }


def with_backward(forward: Calls, *leaves: Any) -> Calls:
    """The same calls, each followed by its gradients; both libraries spell that alike."""

    def both(call: Callable[[], Any]) -> None:
        call().backward()
        for leaf in leaves:
            leaf.grad = None

    return {f"{name}, forward and backward": partial(both, call) for name, call in forward.items()}


def microseconds(calls: Calls, seconds: float) -> dict[str, float]:
    return {name: 1e3 * ops.timed([call], seconds) for name, call in calls.items()}


# --- The table ---------------------------------------------------------------------------------------------------


def table(threads: int, rounds: int, seconds: float) -> tables.Table:
    measurements = {"minicnn": partial(in_process, measure_minicnn, threads=threads, seconds=seconds)}
    if importlib.util.find_spec("torch"):
        measurements["PyTorch"] = partial(in_process, measure_torch, threads=threads, seconds=seconds)
    records = harness.alternate(measurements, rounds)
    rows = []
    for name in records["minicnn"][0]["us"]:
        both = {side: harness.spread([record["us"][name] for record in records[side]]) for side in records}
        ours, theirs = both["minicnn"], both.get("PyTorch")
        rows.append(
            {"op": name, "minicnn": ours, "torch": theirs, "ratio": theirs and theirs["median"] / ours["median"]}
        )
    ratios = [row["ratio"] for row in rows if row["ratio"]]
    mean = [f"PyTorch ÷ minicnn: geometric mean {statistics.geometric_mean(ratios):.2f}."] if ratios else []
    return tables.Table(
        name="scaling-overhead",
        title="What an op costs in itself",
        columns={
            "op": "{op}",
            "minicnn, µs": "{minicnn[median]:.1f} ({minicnn[low]:.1f}–{minicnn[high]:.1f})",
            "PyTorch, µs": "{torch[median]:.1f} ({torch[low]:.1f}–{torch[high]:.1f})",
            "PyTorch ÷ minicnn": "{ratio:.2f}",
        },
        rows=rows,
        machine=tables.machine(threads),
        notes=[
            *mean,
            "Ops work on arrays of a single number, so that all of their time is overhead. Forward alone records no "
            f"graph. Median (lowest–highest) over the rounds ({rounds}), each side in a process of its own; PyTorch "
            "as installed, in eager mode.",
        ],
    )
