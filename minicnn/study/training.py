"""An arm that is trained: minicnn's trainer from a configuration to the figures of its last weights."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minicnn import checkpoint, init, models
from minicnn.data import Dataset, split_validation
from minicnn.models import Model
from minicnn.study.claim import NOTES, SERIES, STEPS, Figures
from minicnn.study.progress import ArmProgress
from minicnn.summary import profile
from minicnn.train import Trainer, options
from minicnn.train.__main__ import compile_kernels, learn, measure
from minicnn.train.progress import say
from minicnn.train.run import Row, Run
from minicnn.train.trainer import NotFinite

if TYPE_CHECKING:
    from minicnn.study.engine import Bench

SAVE_EVERY = 60.0  # seconds: an arm that is shorter is trained anew when it was stopped
CPU_RATE = 2.5e10  # multiply-adds in a second on two cores, forward and backward: for the time left, before it is known

Probe = Callable[[Model, Dataset], Figures]  # what is measured on a trained network, with the images it was tested on


@dataclass(frozen=True)
class Training:
    """A network of `models.build`, trained; `settings` are this arm's own, on top of those that all arms share."""

    model: str
    variant: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    watched: tuple[Probe, ...] = ()  # after every epoch: their series have a value for each

    def configuration(self, bench: Bench, seed: int) -> dict[str, Any]:
        """The trainer's, as the command would make it of the same options."""
        train, _ = bench.images()
        chosen = options.parser().parse_args([self.model])
        own = {"recipe": bench.scale.recipe, "variant": dict(self.variant), "data": train.name, "seed": seed}
        vars(chosen).update(own | dict(bench.scale.settings) | dict(self.settings))
        return options.configuration(chosen)

    @property
    def label(self) -> str:
        return self.model

    def identity(self, bench: Bench) -> dict[str, Any]:
        # The seed, 0 here, drops out as all that is off does: an option that is added later makes no new names.
        settings = {key: value for key, value in self.configuration(bench, 0).items() if value}
        return {
            **settings,
            "images": bench.fingerprint(),
            "probes": [probe.__name__ for probe in self.probes + self.watched],
        }

    def effort(self, bench: Bench) -> float:
        train, _ = bench.images()
        settings = self.configuration(bench, 0)
        return 3 * self.multiply_adds(bench) * len(train) * settings["epochs"] / CPU_RATE

    def multiply_adds(self, bench: Bench) -> int:
        """Of one image's way through the network, which is 224 pixels wide where the images are larger."""
        train, _ = bench.images()
        side = bench.shown_size(self.configuration(bench, 0)["augment"])
        return multiply_adds(self.model, json.dumps(dict(self.variant)), train.num_classes, train.channels, side)

    def run(self, bench: Bench, seed: int, progress: ArmProgress) -> Figures:
        """Train, or go on with what was stopped; a training that diverges has an error no better than chance."""
        config = self.configuration(bench, seed)
        train, test = bench.images()
        # Without a validation split a recipe listens to no other images: the test images show the curve then.
        learned, other = split_validation(train, config["validation"], seed) if config["validation"] else (train, test)
        trainer = Trainer(config, learned, on=bench.device)
        run = SparseRun(bench.unfinished(self, seed), self.model)
        if run.begin(config, resume=True):
            trainer.restore(*run.read_last())
            say(f"{run.folder.name}: goes on after epoch {trainer.epochs_done}")
        compile_kernels(trainer)
        progress.begin(config["epochs"], len(trainer.loader), trainer.epochs_done)
        figures: Figures = {
            "parameters": trainer.parameters(),
            "multiply_adds": self.multiply_adds(bench),
            STEPS: {"train_error": 100 / len(learned), "test_error": 100 / len(test)},
        }
        kept = Watched(run, trainer.epochs_done)
        progress.after_epoch = lambda: kept.add(probe(trainer.model, test) for probe in self.watched)
        try:
            learn(trainer, run, other, progress)
            result = measure(trainer, run, test)
        except NotFinite as error:
            return {**figures, **_diverged(train.num_classes), NOTES: [f"diverged: {error}"]}
        figures |= {
            "train_error": 100 * (1 - result["train_accuracy"]),
            "test_error": 100 * (1 - result["test_accuracy"]),
            "train_loss": result["train_loss"],
            "test_loss": result["test_loss"],
            "seconds": result["train_seconds"],
            "images_per_second": result["images_per_second"],
            SERIES: {**by_epoch(run.read_metrics()), **kept.series},
        }
        for probe in self.probes:
            found = probe(trainer.model, test)
            for shared in (SERIES, STEPS):
                figures[shared] |= found.pop(shared, {})
            figures |= found
        return figures


class SparseRun(Run):
    """A run folder that keeps what it takes to go on, written at most once a minute, and nothing else."""

    def __init__(self, folder: Any, model: str):
        super().__init__(folder, model)
        self._written = time.monotonic()

    def write_last(self, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
        if time.monotonic() - self._written >= SAVE_EVERY:
            super().write_last(arrays, metadata)
            self._written = time.monotonic()

    def write_best(self, weights: dict[str, Any], metadata: dict[str, str]) -> None:
        pass


class Watched:
    """What is measured after every epoch, kept beside the checkpoint for a training that is stopped and goes on."""

    def __init__(self, run: Run, epochs_done: int):
        self.path = run.path("watched.json")
        kept = json.loads(self.path.read_text("utf-8")) if epochs_done and self.path.exists() else {}
        self.series: dict[str, list[float]] = {name: values[:epochs_done] for name, values in kept.items()}

    def add(self, found: Iterable[Figures]) -> None:
        """An epoch has ended: one more value for each series."""
        for figures in found:
            for name, values in figures[SERIES].items():
                self.series.setdefault(name, []).extend(values)
        if self.series:
            checkpoint.write_whole(self.path, json.dumps(self.series).encode())


def by_epoch(rows: list[Row]) -> dict[str, list[float]]:
    """The curves of a training: errors in %, of the training images on the way, and of the others after each epoch."""
    columns = {"train_error by epoch": "train_accuracy", "other_error by epoch": "validation_accuracy"}
    return {name: [100 * (1 - float(row[column])) for row in rows] for name, column in columns.items()}


def _diverged(num_classes: int) -> Figures:
    chance = 100 * (1 - 1 / num_classes)
    guess = math.log(num_classes)
    return {"train_error": chance, "test_error": chance, "train_loss": guess, "test_loss": guess, SERIES: {}}


@functools.cache
def multiply_adds(model: str, variant: str, num_classes: int, channels: int, side: int) -> int:
    """What one image costs on its way forward, counted once for each network; `variant` is JSON."""
    with init.skipped():
        network = models.build(model, num_classes, channels, side, **json.loads(variant))
    return sum(row.multiply_adds for row in profile(network))
