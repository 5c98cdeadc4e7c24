"""A claim's page: the verdict and where it comes from, beside what the papers found."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import itertools
import json
import math
import platform
import re
from collections.abc import Iterable, Sequence

import numpy as np

import minicnn
from minicnn import checkpoint, device
from minicnn.study import chart, page, statistics
from minicnn.study.claim import IMAGES, NOTES, SERIES, STEPS, TABLES, Chart, Figures, Part
from minicnn.study.engine import Study
from minicnn.study.page import Block, Bullets, Code, Heading, Picture, Table, Text
from minicnn.study.progress import duration
from minicnn.study.statistics import FAILS, HOLDS, Interval

Results = dict[str, dict[int, Figures]]  # {arm: {seed: figures}}
SUMMARY = ("number", "name", "title", "verdict", "published", "contradicts", "scale", "seeds", "figure")  # NAME.json
NO_EXPERIMENT = "no experiment settles it"
CONTRADICTION = "**This contradicts the papers**, whose figures say that the claim {0}."
SAYS = {  # the first sentence of a page
    HOLDS: "In our experiment the claim **holds**.",
    FAILS: "In our experiment the claim **does not hold**.",
    statistics.UNDECIDED: "Whether the claim holds is **undecided at this size**: the interval has room for both.",
    NO_EXPERIMENT: "This is a statement that **no experiment settles**. What the sources say:",
}


@dataclasses.dataclass(frozen=True)
class Judged:
    """A part of a claim, its value for each seed, and what follows from them."""

    part: Part
    values: list[float]
    interval: Interval | None  # None before there is a value
    verdict: str


def judge(part: Part, results: Results) -> Judged:
    """The part's value for every seed that all its arms have, their interval, and the verdict."""
    seeds = sorted(set.intersection(*(_with(part.figure, results.get(arm, {})) for arm in part.of)))
    values = [
        sum(factor * results[arm][seed][part.figure] for arm, factor in part.of.items()) for seed in seeds
    ]  # fmt: skip
    if not values:
        return Judged(part, [], None, statistics.UNDECIDED)
    if part.exact:
        found = statistics.exact(values[0])
    else:
        steps = [results[arm][seed].get(STEPS, {}).get(part.figure, 0.0) for arm in part.of for seed in seeds]
        found = statistics.interval(values, resolution=max(steps))
    return Judged(part, values, found, statistics.verdict(found, part.above, part.below))


def _with(figure: str, by_seed: dict[int, Figures]) -> set[int]:
    return {seed for seed, figures in by_seed.items() if figure in figures}


def verdict(parts: Iterable[Judged]) -> str:
    """Of the claim: of its parts that decide."""
    return statistics.together([judged.verdict for judged in parts if judged.part.decides])


def write(study: Study, command: str) -> str:
    """Write NAME.md, NAME.html, NAME.json and the pictures of Markdown into the study's folder; returns the verdict."""
    folder = study.bench.folder
    results = study.results() if study.claim.scales else {}
    judged = [judge(part, results) for part in study.claim.parts_at(study.scale)] if results else []
    found = verdict(judged) if results else NO_EXPERIMENT
    blocks = _blocks(study, results, judged, found, command)
    name = study.claim.name
    folder.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Picture):
            content = block.content if isinstance(block.content, bytes) else block.content.encode()
            checkpoint.write_whole(folder / block.name, content)
    title = f"{study.claim.number}. {study.claim.title}"
    checkpoint.write_whole(folder / f"{name}.md", page.markdown(blocks).encode())
    checkpoint.write_whole(folder / f"{name}.html", page.html(title, blocks).encode())
    seeds = max((len(item.values) for item in judged), default=0)
    against, scale = contradicts(found, study), study.scale if results else ""
    facts = (study.claim.number, name, study.claim.title, found, study.claim.published_verdict, against, scale, seeds)
    summary = dict(zip(SUMMARY, (*facts, headline(judged, found)), strict=True))
    checkpoint.write_whole(folder / f"{name}.json", (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    return found


def contradicts(found: str, study: Study) -> bool:
    """Whether a verdict is the opposite of the papers'; at the scale that only shows that it runs, none counts."""
    return study.scale != "tiny" and {found, study.claim.published_verdict} == {HOLDS, FAILS}


def headline(judged: Sequence[Judged], found: str) -> str:
    """The first part that has decided the verdict, in a few words."""
    deciding = [item for item in judged if item.part.decides and item.interval and item.verdict == found]
    return f"{deciding[0].part.says}: {_interval(deciding[0])} {deciding[0].part.unit}" if deciding else ""


def _blocks(study: Study, results: Results, judged: list[Judged], found: str, command: str) -> list[Block]:
    claim = study.claim
    blocks: list[Block] = [Heading(f"{claim.number}. {claim.title}", 1), Text(claim.statement), Text(SAYS[found])]
    if contradicts(found, study):
        blocks.append(Text(CONTRADICTION.format(claim.published_verdict)))
    if results:
        blocks += [Heading("What was compared"), Text(claim.method), Bullets(_setting(study, results))]
        blocks += _differences(claim.name, judged)
        blocks += _arms(study, results)
        blocks += _tables(results)
        blocks += _pictures(study, results)
    if claim.published:
        blocks += [Heading("What the papers found"), Table(("what", "published"), claim.published)]
    blocks += [Heading("What the sources say"), *map(Text, claim.sources)] if claim.sources else []
    if results and found != HOLDS and claim.settle:
        blocks += [Heading("What would settle it"), Text(claim.settle)]
    if results:
        blocks += [Heading("To repeat it"), Code(command), Bullets(_machine(study, results))]
    return blocks


# What was done


def _setting(study: Study, results: Results) -> list[str]:
    scale, claim = study.bench.scale, study.claim
    items = []
    if scale.data is not None:
        images = study.bench.fingerprint()
        side = images["image_size"]
        items.append(
            f"Images: {images['train']:,} of {images['name']} to train on and {images['test']:,} to test on, "
            f"{side}×{side} pixels, the same for all arms, with the same share of every class."
        )
        recipe = ", ".join(f"{key} {value}" for key, value in scale.settings.items())
        items.append(
            f"Budget of every arm: the {scale.recipe} recipe of `minicnn.train`{' with ' + recipe if recipe else ''}. "
            "A seed sets weights, order of the images, augmentation and dropout; all arms of a seed see the same "
            "images in the same order."
        )
    if study.scale == "tiny":
        items.append("At this scale networks learn next to nothing: it shows that the experiment runs, not what is so.")
    have = [len(by_seed) for by_seed in results.values()]
    missing = f", of which some arms have {min(have)} so far" if min(have) < study.seeds else ""
    items.append(f"Scale `{study.scale}`, {study.seeds} seed{'s' if study.seeds > 1 else ''}{missing}.")
    place = "one GPU" if study.scale == "paper" else "two CPU cores"
    items.append(f"Stated beforehand: {duration(3600 * scale.hours)} on {place}, all seeds of all arms.")
    if any(part.decides for part in claim.parts_at(study.scale)):
        items.append(
            "The claim holds if all parts hold whose verdict is not in brackets; an interval has a confidence of 95 % "
            "(Student's t over the seeds, for these images)."
        )
    return items


def _machine(study: Study, results: Results) -> list[str]:
    seconds = sum(figures.get("seconds", 0.0) for by_seed in results.values() for figures in by_seed.values())
    versions = f"minicnn {minicnn.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"
    return [
        f"Taken: {duration(seconds)} in all, on {study.bench.device}, {device.threads()} threads, "
        f"{platform.machine()}.",
        f"{versions}; {datetime.date.today().isoformat()}.",
    ]


# What was found


def _differences(name: str, judged: list[Judged]) -> list[Block]:
    rows = []
    for item in judged:
        said = item.verdict if item.part.decides else f"({item.verdict})"
        each = ", ".join(_number(value) for value in item.values[:10]) or "–"
        unclaimed = math.isinf(item.part.above) and math.isinf(item.part.below)
        rows.append((item.part.says, each, _interval(item), _region(item.part), "shown only" if unclaimed else said))
    head = ("part", "seed by seed", "mean [interval]", "claimed", "verdict")
    blocks: list[Block] = [Heading("The verdict, part by part"), Table(head, rows)]
    for i, unit in enumerate(dict.fromkeys(item.part.unit for item in judged)):
        shown = [item for item in judged if item.part.unit == unit and item.interval]
        pictured = [
            (item.part.says, *item.interval, item.part.above, item.part.below) for item in shown if item.interval
        ]
        if pictured:
            title = "Differences and their 95 % intervals; the green region is what is claimed"
            svg = chart.intervals(pictured, title, unit)
            blocks.append(Picture(f"{name}-parts{i or ''}.svg", svg, f"Intervals, in {unit}"))
    return blocks


def _interval(item: Judged) -> str:
    if item.interval is None:
        return "–"
    mean, low, high = item.interval
    if item.part.exact:
        return _number(mean)
    return f"{_number(mean)} [{_number(low)}, {_number(high)}]"


def _region(part: Part) -> str:
    above, below = math.isfinite(part.above), math.isfinite(part.below)
    if above and below:
        return f"between {_number(part.above)} and {_number(part.below)} {part.unit}"
    return f"above {_number(part.above)} {part.unit}" if above else f"below {_number(part.below)} {part.unit}" * below


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return text.replace("-", "−")


def _arms(study: Study, results: Results) -> list[Block]:
    shown = {
        figure: form.split("|")
        for figure, form in study.claim.columns.items()
        if any(figure in figures for by_seed in results.values() for figures in by_seed.values())
    }
    rows = []
    for arm, by_seed in results.items():
        cells = [
            _mean([f[figure] for f in by_seed.values() if figure in f], form) for figure, (_, form) in shown.items()
        ]
        rows.append([arm, str(len(by_seed)), *cells])
    if not shown:
        return []
    head = ["arm", "seeds", *(heading for heading, _ in shown.values())]
    notes = [
        f"{arm}, seed {seed}: {note}"
        for arm, by_seed in results.items()
        for seed, figures in by_seed.items()
        for note in figures.get(NOTES, [])
    ]
    blocks: list[Block] = [Heading("Arm by arm"), Text("Mean ± standard deviation over the seeds."), Table(head, rows)]
    return [*blocks, Bullets(notes)] if notes else blocks


def _mean(values: list[float], form: str) -> str:
    if not values:
        return "–"
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    mean = f"{np.mean(values):{form}}"
    return f"{mean} ± {spread:{form}}" if spread else mean


def _tables(results: Results) -> list[Block]:
    """The tables that arms have made themselves, of the first seed: they are counted, not sampled."""
    blocks: list[Block] = []
    for by_seed in results.values():
        for table in next(iter(by_seed.values()), {}).get(TABLES, []):
            blocks += [Heading(table["title"], 3), Table(table["head"], table["rows"])]
    return blocks


def _pictures(study: Study, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for i, wanted in enumerate(study.claim.charts, start=1):
        drawn = _across(wanted, results) if wanted.across else _series(wanted, results)
        if drawn:
            svg = chart.lines(drawn, wanted.title, wanted.x, wanted.y, log=wanted.log)
            blocks.append(Picture(f"{study.claim.name}-{i}.svg", svg, wanted.title))
    for arm, by_seed in results.items():
        for caption, encoded in next(iter(by_seed.values()), {}).get(IMAGES, {}).items():
            file = re.sub(r"[^a-z0-9]+", "-", f"{study.claim.name} {arm} {caption}".lower()).strip("-")
            blocks.append(Text(f"{arm}: {caption}"))
            blocks.append(Picture(f"{file}.png", base64.b64decode(encoded), f"{arm}: {caption}"))
    return [Heading("Pictures"), *blocks] if blocks else []


def _series(wanted: Chart, results: Results) -> dict[str, chart.Line]:
    """A line for each arm, or for each series: the mean over the seeds, and the band from the lowest to the highest."""
    drawn = {}
    names = wanted.series if isinstance(wanted.series, tuple) else (wanted.series,)
    for arm, series in itertools.product(wanted.arms or results, names):
        runs = [f[SERIES][series] for f in results.get(arm, {}).values() if series in f.get(SERIES, {})]
        length = min(map(len, runs), default=0)
        if length:
            values = np.array([run[:length] for run in runs])
            ends = (values.min(axis=0).tolist(), values.max(axis=0).tolist()) if len(runs) > 1 else ((), ())
            drawn[series if len(names) > 1 else arm] = chart.Line(
                range(1, length + 1), values.mean(axis=0).tolist(), *ends
            )
    return drawn


def _across(wanted: Chart, results: Results) -> dict[str, chart.Line]:
    """A line for each figure, over the numbers that the arms are named after."""
    drawn = {}
    for figure in wanted.across:
        points = {
            float(arm): [f[figure] for f in by_seed.values() if figure in f]
            for arm, by_seed in results.items()
            if not wanted.arms or arm in wanted.arms
        }
        known = sorted((x, values) for x, values in points.items() if values)
        if known:
            xs, runs = zip(*known, strict=True)
            drawn[figure.replace("_", " ")] = chart.Line(
                xs, [float(np.mean(v)) for v in runs], [min(v) for v in runs], [max(v) for v in runs]
            )
    return drawn
