"""Whether Winograd's rounding errors can be seen in a training: the same with and without it, with several seeds."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import tables, training
from benchmarks.harness import Record
from minicnn.study import chart

WAYS = {"Winograd": "0", "direct": "1"}  # values of MINICNN_EXACT


def table(data: str | None, arguments: list[str], seeds: Sequence[str], threads: int) -> tables.Table:
    arguments = [*arguments, "--data", data] if data else arguments
    rows = [measure(seed, way, arguments, threads) for seed in seeds for way in WAYS]
    of_way = {way: [row["test_accuracy"] for row in rows if row["way"] == way] for way in WAYS}
    means = {way: statistics.mean(accuracies) for way, accuracies in of_way.items()}
    apart = max(max(accuracies) - min(accuracies) for accuracies in of_way.values())
    return tables.Table(
        name=f"accuracy-training-{Path(data).name}" if data else "accuracy-training",
        title="The same training with Winograd's convolution and without",
        columns={
            "seed": "{seed}",
            "3×3 convolutions": "{way}",
            "test accuracy": "{test_accuracy:.4f}",
            "test loss": "{test_loss:.4f}",
            "train accuracy": "{train_accuracy:.4f}",
            "train loss": "{train_loss:.4f}",
            "training, s": "{train_seconds:.1f}",
        },
        rows=rows,
        machine=tables.machine(threads),
        notes=[
            f"`{training.shown(arguments)}`; without Winograd, under `MINICNN_EXACT=1`.",
            f"Mean test accuracy: {means['Winograd']:.4f} with Winograd, {means['direct']:.4f} without, a "
            f"difference of {abs(means['Winograd'] - means['direct']):.4f}. Seeds alone make up to {apart:.4f}.",
            "Figure: the loss on the training images, over the epochs, the mean of all seeds.",
        ],
        figure=chart.lines(
            {way: chart.through(mean_loss([row for row in rows if row["way"] == way])) for way in WAYS},
            *("The mean of all seeds", "epoch", "training loss"),
        ),
    )


def measure(seed: str, way: str, arguments: list[str], threads: int) -> Record:
    """What one training's `result.json` says, and its curve."""
    with tempfile.TemporaryDirectory() as parent:
        folder, options = Path(parent, "run"), [*arguments, "--seed", seed]
        run = training.train(options, threads, folder, MINICNN_EXACT=WAYS[way])
    return {**run.result, "way": way, "metrics": run.metrics}


def mean_loss(rows: list[Record]) -> list[tuple[float, float]]:
    """(epoch, mean loss) over several trainings."""
    epochs = zip(*(row["metrics"] for row in rows), strict=True)
    return [(metrics[0]["epoch"], statistics.mean(m["train_loss"] for m in metrics)) for metrics in epochs]
