"""Arms × seeds: each is one result file, written whole, named after all that it depends on, and never made twice.

Two claims that compare the same arm share its file, and so does a study that was stopped with the one that goes on. A
change of a recipe, of the data or of what is measured makes another name, so that old results are never mixed in; a
change of the code does not, and whoever makes one that matters deletes the files.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicnn import checkpoint, data
from minicnn.data import Dataset, augment, split_validation
from minicnn.data.catalogue import PUBLIC
from minicnn.study.claim import Arm, Claim, Data, Figures, Scale, Work
from minicnn.study.progress import StudyProgress

RESULTS, UNFINISHED = "results", "unfinished"


@dataclass(frozen=True)
class Bench:
    """Where an arm runs: the images of its scale, a device, and the folder of all results.

    `places` says where the data of a name are: {"imagenet": FOLDER}.
    """

    scale: Scale
    device: str
    folder: Path
    places: Mapping[str, str]

    def images(self) -> tuple[Dataset, Dataset]:
        """(training, test) images of the scale; ValueError with the command that gets them where they are missing."""
        return _images(*self._data())

    def fingerprint(self) -> dict[str, Any]:
        """What tells these images from others, wherever they lie."""
        return _fingerprint(*self._data())

    def _data(self) -> tuple[Data, str]:
        wanted = self.scale.data
        if wanted is None:
            raise ValueError("this claim needs no images")
        return wanted, self.places.get(wanted.name, wanted.name)

    def shown_size(self, changes: str) -> int:
        """The side of the images that a network is trained on, after the augmentation."""
        train, _ = self.images()
        return augment.parse(changes)(train.take(np.arange(1))[0], np.random.default_rng(0)).shape[1]

    def result(self, work: Work, seed: int) -> Path:
        """The file of one arm and seed."""
        return self.folder / RESULTS / f"{self._name(work, seed)}.json"

    def unfinished(self, work: Work, seed: int) -> Path:
        """The folder of an arm that is being trained."""
        return self.folder / UNFINISHED / self._name(work, seed)

    def _name(self, work: Work, seed: int) -> str:
        identity = json.dumps(work.identity(self), sort_keys=True)
        return f"{work.label}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}-seed{seed}"


@functools.cache
def _images(wanted: Data, place: str) -> tuple[Dataset, Dataset]:
    name = wanted.name
    if name == place == "imagenet":
        raise ValueError(
            "imagenet is not on this machine, and nobody may pass it on: get it from image-net.org, then say "
            "--data imagenet=FOLDER, with train/CLASS/*.JPEG and val/CLASS/*.JPEG in it"
        )
    spec = f"{name}:{place}" if name in PUBLIC and Path(place).exists() and name != place else place
    try:
        train, test = data.load_pair(spec, image_size=wanted.image_size)
    except ValueError as error:
        raise ValueError(str(error).replace(f"with {name}:FOLDER", f"with --data {name}=FOLDER")) from None
    return _subset(train, wanted.train), _subset(test, wanted.test)


def _subset(dataset: Dataset, count: int | None) -> Dataset:
    """A fixed choice of `count` images, the same share of every class."""
    if count is None or count >= len(dataset):
        return dataset
    return split_validation(dataset, count / len(dataset), seed=0)[1]


@functools.cache
def _fingerprint(wanted: Data, place: str) -> dict[str, Any]:
    train, test = _images(wanted, place)
    return {
        "name": train.name,
        "train": len(train),
        "test": len(test),
        "image_size": train.image_size,
        "digest": f"{_digest(train):08x}{_digest(test):08x}",
    }


def _digest(dataset: Dataset) -> int:
    images, _ = dataset.take(np.unique(np.linspace(0, len(dataset) - 1, 16).astype(np.int64)))
    return zlib.crc32(dataset.labels.tobytes(), zlib.crc32(images.tobytes()))


class Job(NamedTuple):
    """One arm with one seed, of a claim."""

    bench: Bench
    arm: Arm
    seed: int
    label: str

    @property
    def path(self) -> Path:
        return self.bench.result(self.arm.work, self.seed)

    @property
    def effort(self) -> float:
        return self.arm.work.effort(self.bench)


@dataclass(frozen=True)
class Study:
    """A claim at a scale, with so many seeds."""

    claim: Claim
    scale: str
    seeds: int
    bench: Bench

    def rounds(self) -> Iterator[list[Job]]:
        """The jobs in their order: a round has one seed of all arms of a wave, so that pairs are complete early."""
        arms = self.claim.arms_at(self.scale)
        for wave in sorted({arm.wave for arm in arms}):
            for seed in range(self.seeds):
                yield [self.job(arm, seed) for arm in arms if arm.wave == wave]

    def jobs(self) -> list[Job]:
        return [job for jobs in self.rounds() for job in jobs]

    def job(self, arm: Arm, seed: int) -> Job:
        return Job(self.bench, arm, seed, f"{self.claim.number} {self.claim.slug}, {arm.name}, seed {seed}")

    def results(self) -> dict[str, dict[int, Figures]]:
        """What is finished: {arm: {seed: figures}}."""
        found: dict[str, dict[int, Figures]] = {}
        for arm in self.claim.arms_at(self.scale):
            paths = {seed: self.job(arm, seed).path for seed in range(self.seeds)}
            found[arm.name] = {seed: read(path)["figures"] for seed, path in paths.items() if path.exists()}
        return found


def run(jobs: list[Job], progress: StudyProgress) -> None:
    """Do the jobs whose results are not there yet."""
    for job in jobs:
        if job.path.exists():
            progress.skip(job.effort)
            continue
        began = time.perf_counter()
        figures = job.arm.work.run(job.bench, job.seed, progress.arm(job.label, job.effort))
        seconds = time.perf_counter() - began
        write(job, {"seconds": round(seconds, 3), **figures})
        shutil.rmtree(job.bench.unfinished(job.arm.work, job.seed), ignore_errors=True)
        errors = [f"{figure.replace('_', ' ')} {figures[figure]:.2f} %" for figure in ERRORS if figure in figures]
        progress.finish(", ".join([job.label, *errors, f"{seconds:.1f} s"]), job.effort)


ERRORS = ("train_error", "test_error")


def write(job: Job, figures: Figures) -> None:
    content = {"seed": job.seed, "identity": job.arm.work.identity(job.bench), "figures": figures}
    job.path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_whole(job.path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return {**content, "figures": dict(content["figures"])}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: is damaged; delete it, and the study makes it anew") from None
