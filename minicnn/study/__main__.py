"""The command `python -m minicnn.study`: a claim as an experiment, from its arms to a page with the verdict."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from minicnn import _cli, device
from minicnn.study import claims, engine, index, report
from minicnn.study.claim import SCALES, Claim
from minicnn.study.engine import Bench, Study
from minicnn.study.progress import StudyProgress, duration
from minicnn.train.progress import say


def parser() -> _cli.Parser:
    p = _cli.Parser(
        prog="python -m minicnn.study",
        description="Repeat a claim of the papers: train its arms, compare them, write a page with the verdict.",
    )
    p.add_argument("claim", nargs="?", metavar="CLAIM", help="a number or a name of --list, or all")
    p.add_argument("--list", action="store_true", help="list the claims, one a line")
    p.add_argument("--scale", choices=SCALES, default="tiny", help="how large the experiment is")
    p.add_argument("--seeds", type=_cli.positive(int), metavar="N", help="of every arm (default: the scale's)")
    p.add_argument("--out", metavar="FOLDER", help="of results and pages (default: runs/studies-SCALE)")
    p.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="where the data of a name are, such as imagenet=FOLDER; may be given several times",
    )
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where arrays live")
    p.add_argument("--threads", type=_cli.threads, metavar="N", help="of the CPU kernels (default: usable cores)")
    return p


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.list:
        width = max(len(f"{claim.number} {claim.slug}") for claim in claims.CLAIMS)
        for claim in claims.CLAIMS:
            print(f"{f'{claim.number} {claim.slug}':{width}}  {claim.title}")
        return 0
    if options.claim is None:
        raise ValueError("say which claim: a number or a name, or all; python -m minicnn.study --list has them")
    chosen = claims.find(options.claim, options.scale)
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of NaN and Inf: the trainer watches for them itself
    on, why = device.choose(options.device)
    if options.threads:
        device.set_threads(options.threads)
    folder = Path(options.out or f"runs/studies-{options.scale}")
    places = _places(options.data)
    studies = [_study(claim, options.scale, options.seeds, on, folder, places) for claim in chosen]

    jobs = [job for study in studies for job in study.jobs()]
    finished = sum(job.path.exists() for job in jobs)  # data that are missing are found here
    hours = sum({id(study.bench.scale): study.bench.scale.hours for study in studies}.values())  # some share theirs
    place = "one GPU" if options.scale == "paper" else "two CPU cores"
    say(f"device: {on} ({why})")
    say(
        f"{len(jobs)} arms × seeds, {finished} of them finished already; stated for all: "
        f"{duration(3600 * hours)} on {place}"
    )
    progress = StudyProgress(len(jobs), sum(job.effort for job in jobs))
    try:
        for study in studies:
            _carry_out(study, progress)
            index.write(folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"; finished arms are kept in {folder}: to go on, repeat the command with --out {folder}"
        ) from None
    finally:
        progress.close()
    say(f"pages: {folder / 'index.md'}")
    return 0


def _study(claim: Claim, scale: str, seeds: int | None, on: str, folder: Path, places: dict[str, str]) -> Study:
    declared = claim.at(scale)
    counted = all(part.exact for part in claim.parts_at(scale))  # alike for every seed
    return Study(claim, scale, 1 if counted else seeds or declared.seeds, Bench(declared, on, folder, places))


def _carry_out(study: Study, progress: StudyProgress) -> None:
    """Do all arms and seeds, and bring the page up to date whenever a seed is complete."""
    claim, data = study.claim, [f" --data {name}={name.upper()}" for name in sorted(study.bench.places)]
    command = f"python -m minicnn.study {claim.slug} --scale {study.scale} --seeds {study.seeds}{''.join(data)}"
    for jobs in study.rounds():
        engine.run(jobs, progress)
        verdict = report.write(study, command)
    if not claim.scales:
        verdict = report.write(study, command)
    say(f"{claim.number} {claim.slug}: {verdict}; {study.bench.folder / claim.name}.md")


def _places(given: list[str]) -> dict[str, str]:
    places = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not (name and equals and place):
            raise ValueError(f"--data {text}: must be NAME=PLACE, such as imagenet=FOLDER or cifar10=FOLDER")
        places[name] = place
    return places


if __name__ == "__main__":
    sys.exit(main())
