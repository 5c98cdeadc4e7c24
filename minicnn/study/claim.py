"""How a claim is declared: what it says, the arms that are compared, and what would make it hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from minicnn.study.engine import Bench
    from minicnn.study.progress import ArmProgress

Figures = dict[str, Any]  # what an arm has shown, as JSON: numbers by name, and SERIES, TABLES, NOTES, STEPS, IMAGES
SERIES = "series"  # {name: [numbers]}: by epoch, or by layer
TABLES = "tables"  # [{"title", "head", "rows"}]: cells as text
NOTES = "notes"  # [sentences] for the page
STEPS = "steps"  # {figure: the step in which it is counted}
IMAGES = "images"  # {caption: a PNG in base64}
SCALES = ("tiny", "small", "paper")


class Work(Protocol):
    """What is done for one arm and one seed; `minicnn.study.training.Training` is the most frequent kind."""

    @property
    def label(self) -> str:
        """What its result files begin with."""

    def identity(self, bench: Bench) -> dict[str, Any]:
        """All that the result depends on, besides the seed and the machine: equal work is done once."""

    def effort(self, bench: Bench) -> float:
        """About how many seconds it takes on two CPU cores, which weights the progress."""

    def run(self, bench: Bench, seed: int, progress: ArmProgress) -> Figures:
        """Do it."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison. Arms of a later `wave` start when the earlier ones have all their seeds."""

    name: str
    work: Work
    wave: int = 1


@dataclass(frozen=True)
class Part:
    """One thing that must be so for the claim to hold: Σ factor · figure(arm) lies between `above` and `below`.

    `of` maps the names of arms to their factors: {"B": 1, "A": -1} is the difference B − A, taken seed by seed.
    `exact` figures are counted, and alike for every seed. A part that does not `decide` is shown, and has no say.
    """

    says: str
    figure: str
    of: Mapping[str, float]
    above: float = -math.inf
    below: float = math.inf
    unit: str = "points"
    exact: bool = False
    decides: bool = True


class Chart(NamedTuple):
    """A picture: series of every arm over their positions, or, with `across`, figures over the arms' own numbers."""

    title: str
    x: str
    y: str
    series: str | tuple[str, ...] = ""  # the mean over the seeds as a line, from the lowest to the highest as a band
    across: tuple[str, ...] = ()  # figures; the arms' names are numbers
    arms: tuple[str, ...] = ()  # of them only these
    log: bool = False


class Data(NamedTuple):
    """Which images: a name of `python -m minicnn.data list`, or `imagenet`.

    `train` and `test` images are a fixed subset with the same share of every class; None means all.
    """

    name: str
    train: int | None = None
    test: int | None = None
    image_size: int | None = None


@dataclass(frozen=True)
class Scale:
    """How large an experiment is made. `recipe` and `settings` are those of minicnn.train, for all arms alike.

    hours: stated beforehand, of all seeds; of two CPU cores, for `paper` of one GPU of 5·10¹² multiply-adds a second.
    """

    data: Data | None
    hours: float
    seeds: int = 3
    recipe: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    arms: Sequence[Arm] | None = None  # in place of the claim's
    parts: Sequence[Part] | None = None


LEARNING = (
    Chart("Training error while training", "epoch", "training error, %", series="train_error by epoch"),
    Chart("Error on other images", "epoch", "error, %", series="other_error by epoch"),
)


# Of the table of arms: each figure with its heading and how its numbers are written.
TRAINED = {
    "train_error": "training error, %|.2f",
    "test_error": "test error, %|.2f",
    "train_loss": "training loss|.4g",
    "test_loss": "test loss|.4g",
    "parameters": "parameters|,.0f",
    "multiply_adds": "multiply-adds|,.0f",
    "seconds": "seconds|.1f",
}


@dataclass(frozen=True)
class Claim:
    """One statement, and the experiment that asks whether it is so.

    published: (what, the papers' figure) pairs. `sources` says where the story and the papers differ, or what the
    papers add; `settle` what would decide it where we cannot, or where we contradict them. A claim without scales is
    a statement that no experiment settles: its page says what the sources say.
    """

    number: int
    slug: str
    title: str
    statement: str
    published: Sequence[tuple[str, str]]
    sources: Sequence[str]
    method: str = ""
    settle: str = ""
    arms: Sequence[Arm] = ()
    parts: Sequence[Part] = ()
    scales: Mapping[str, Scale] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=TRAINED.copy)  # figure -> its heading and format
    charts: Sequence[Chart] = LEARNING
    published_verdict: str = "holds"

    @property
    def name(self) -> str:
        """Of its pages."""
        return f"{self.number:02}-{self.slug}"

    def at(self, scale: str) -> Scale:
        return self.scales.get(scale, Scale(None, 0.0, seeds=0))

    def arms_at(self, scale: str) -> Sequence[Arm]:
        return self.at(scale).arms or self.arms

    def parts_at(self, scale: str) -> Sequence[Part]:
        return self.at(scale).parts or self.parts
