"""The command `python -m minicnn.look`: pictures of what a trained network has learned and what its answer rests on."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from minicnn import _cli, checkpoint, device
from minicnn.look.occlusion import probabilities
from minicnn.look.page import html
from minicnn.look.parts import PARTS, Options
from minicnn.look.subject import Subject, open_subject

LIKELIEST = 5  # classes that are listed


def some_parts(text: str) -> list[str]:
    """Names of parts, joined by commas."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(PARTS)}"
            raise argparse.ArgumentTypeError(f"unknown part {name!r}: {hint}")
    return names


def parser() -> _cli.Parser:
    p = _cli.Parser(
        prog="python -m minicnn.look",
        description="Look inside a trained network: pictures as PNG, and one HTML page with all of them.",
    )
    p.add_argument("weights", metavar="RUN|WEIGHTS", help="a run folder, or a .safetensors file")
    p.add_argument("--image", required=True, metavar="FILE", help="an image file, or test:N, image N of the data set")
    p.add_argument("--out", metavar="FOLDER", help="where the pictures go (default: look/ and the image's name)")
    p.add_argument("--only", type=some_parts, metavar="PARTS", help=f"some of {','.join(PARTS)} (default: all)")
    p.add_argument("--layer", metavar="NAME", help="for maps, projections and gradcam, such as layer2.0.conv1")
    p.add_argument("--unit", type=_cli.not_negative(int), metavar="K", help="of --layer (default: the strongest)")
    p.add_argument("--class", dest="of", metavar="NAME", help="the class asked about (default: the image's, if known)")
    p.add_argument("--square", type=_cli.positive(int), metavar="N", help="pixels hidden at once (default: a quarter)")
    p.add_argument("--data", metavar="SPEC", help="as for minicnn.train (default: the run's own)")
    p.add_argument("--model", help="the network's name, for weights from elsewhere")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where arrays live")
    p.add_argument("--threads", type=_cli.threads, metavar="N", help="of the CPU kernels (default: usable cores)")
    return p


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    if given.unit is not None and given.layer is None:
        raise ValueError("--unit needs --layer: the layer that it is a unit of")
    on, _ = device.choose(given.device)
    if given.threads:
        device.set_threads(given.threads)
    subject = open_subject(given.weights, given.image, spec=given.data, model=given.model, of=given.of, on=on)
    options = Options(given.layer, given.unit, given.square)
    options.check(subject)
    out = folder(given.out, given.image)
    likeliest = likely(subject)
    print("\n".join(likeliest))

    sections = []
    for name in given.only or PARTS:
        section = PARTS[name](subject, options)
        for figure in section.figures:
            checkpoint.write_whole(out / figure.file, figure.content)
            print(out / figure.file, flush=True)
        sections.append(section)
    facts = {
        "network": f"{subject.model.name} ({given.weights})",
        "image": given.image,
        "it says": ", ".join(likeliest),
        "asked about": f"{subject.classes[subject.label]} ({subject.why})",
    }
    page = out / "index.html"
    checkpoint.write_whole(page, html(f"Inside {subject.model.name}", facts, sections).encode())
    print(page)
    return 0


def folder(out: str | None, image: str) -> Path:
    """The folder for the pictures, made if need be; ValueError for what cannot be one."""
    path = Path(out) if out else Path("look") / Path(image.replace(":", "-")).stem
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: exists and is not a folder; choose another --out")
    path.mkdir(parents=True, exist_ok=True)
    return path


def likely(subject: Subject) -> list[str]:
    """The likeliest classes with their probabilities."""
    p = probabilities(subject.model, subject.x)[0]
    return [f"{subject.classes[i]} {p[i]:.3f}" for i in (-p).argsort(kind="stable")[:LIKELIEST]]


if __name__ == "__main__":
    sys.exit(main())
