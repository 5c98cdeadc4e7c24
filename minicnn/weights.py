"""Published weights, by name, and weights for other programs: `python -m minicnn.weights list | get | convert`.

    python -m minicnn.weights get resnet18
    python -m minicnn.weights convert runs/mine --out mine.safetensors          from a run of ours to PyTorch
    python -m minicnn.weights convert theirs.pth --model resnet50 --out ours.safetensors

What `get` leaves behind is a file of ours that says which network it is of, its classes, and how images are to be
normalised for it: commands that take a weights file need to be told nothing more.
"""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from minicnn import _cli, checkpoint, evaluate, init, interop, models
from minicnn.data.catalogue import File
from minicnn.data.download import fetch

CLASSES_FILE = Path(__file__).with_name("imagenet_classes.txt")
HOST = "https://download.pytorch.org/models"
TAKES_ALONG = ("classes", "mean", "std", "source")  # of a file of ours, when it is converted


class Published(NamedTuple):
    """Weights for ImageNet's classes: how `models.build` makes the network, the file, its size, its accuracy."""

    model: dict[str, Any]
    file: str
    megabytes: int
    top1: float  # accuracies in per cent on ImageNet's validation images, one crop each
    top5: float

    @property
    def source(self) -> File:
        """Where the file is; its name ends in the first eight digits of its SHA-256."""
        return File(f"{HOST}/{self.file}", sha256=self.file[-12:-4])

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of the channels, of values in [0, 1], that the network has learned with."""
        if self.model["name"] in ("googlenet", "inception-v3"):  # trained in TensorFlow, by its custom
            return [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
        return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def _vgg(name: str, file: str, *figures: Any) -> Published:
    return Published({"name": name, "bn": "_bn" in file}, file, *figures)


def _resnet(name: str, file: str, *figures: Any) -> Published:
    return Published({"name": name}, file, *figures)


# torchvision's, by the names that they have there, with the accuracies that torchvision 0.29 states.
# fmt: off
PUBLISHED = {
    "alexnet": Published({"name": "alexnet", "variant": "torchvision", "image_size": 224},
                         "alexnet-owt-7be5be79.pth", 244, 56.522, 79.066),
    "vgg11":        _vgg("vgg-a", "vgg11-8a719046.pth",    531, 69.020, 88.628),
    "vgg13":        _vgg("vgg-b", "vgg13-19584684.pth",    532, 69.928, 89.246),
    "vgg16":        _vgg("vgg-d", "vgg16-397923af.pth",    553, 71.592, 90.382),
    "vgg19":        _vgg("vgg-e", "vgg19-dcbb9e9d.pth",    575, 72.376, 90.876),
    "vgg11_bn":     _vgg("vgg-a", "vgg11_bn-6002323d.pth", 532, 70.370, 89.810),
    "vgg13_bn":     _vgg("vgg-b", "vgg13_bn-abd245e5.pth", 532, 71.586, 90.374),
    "vgg16_bn":     _vgg("vgg-d", "vgg16_bn-6c64b313.pth", 554, 73.360, 91.516),
    "vgg19_bn":     _vgg("vgg-e", "vgg19_bn-c79401a0.pth", 575, 74.218, 91.842),
    "googlenet": Published({"name": "googlenet", "variant": "torchvision"},
                           "googlenet-1378be20.pth", 52, 69.778, 89.530),
    "inception_v3": Published({"name": "inception-v3"}, "inception_v3_google-0cc3c7bd.pth", 109, 77.294, 93.450),
    "resnet18":     _resnet("resnet18",  "resnet18-f37072fd.pth",   47, 69.758, 89.078),
    "resnet34":     _resnet("resnet34",  "resnet34-b627a593.pth",   87, 73.314, 91.420),
    "resnet50":     _resnet("resnet50",  "resnet50-0676ba61.pth",  103, 76.130, 92.862),
    "resnet101":    _resnet("resnet101", "resnet101-63fe2227.pth", 179, 77.374, 93.546),
    "resnet152":    _resnet("resnet152", "resnet152-394f9c45.pth", 242, 78.312, 94.046),
    "resnet50_v2":  _resnet("resnet50",  "resnet50-11ad3fa6.pth",  103, 80.858, 95.434),
    "resnet101_v2": _resnet("resnet101", "resnet101-cd907fc2.pth", 179, 81.886, 95.780),
    "resnet152_v2": _resnet("resnet152", "resnet152-f82ba261.pth", 242, 82.284, 96.002),
}
# fmt: on


def cache_folder() -> Path:
    """Where published weights are kept."""
    return platformdirs.user_cache_path("minicnn") / "weights"


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of the logits."""
    lines = CLASSES_FILE.read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def get(name: str, folder: Path | None = None) -> Path:
    """The file NAME.safetensors in `folder` (default: the cache folder), downloaded and converted if it is not there.

    It is written only once the whole download has the checksum that is published. Raises ValueError in one line for an
    unknown name, no network, or a wrong checksum; the next call goes on where a download broke off.
    """
    if name not in PUBLISHED:
        near = difflib.get_close_matches(name.lower(), PUBLISHED, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PUBLISHED)}"
        raise ValueError(f"no published weights are called {name!r}: {hint}")
    published, folder = PUBLISHED[name], folder or cache_folder()
    target = folder / f"{name}.safetensors"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    download = folder / published.file
    fetch(published.source, download)
    network = _loaded(download, published.model)
    mean, std = published.normalisation
    facts = {"classes": imagenet_classes(), "mean": mean, "std": std}
    _write(target, network, ours=True, source=published.source.url, **{k: json.dumps(v) for k, v in facts.items()})
    download.unlink()
    return target


def convert(source: Path, out: Path, *, to: str | None = None, model: dict[str, Any] | None = None) -> str:
    """Write the weights at `source` to the file `out`, "minicnn"'s layout or "torch"'s names and layout; says what.

    `source` is a run folder, a file of ours, or a `.safetensors` or `.pth` file of PyTorch's, for which `model` is what
    `models.build` takes. By default `to` is what the source is not. In PyTorch, safetensors.torch.load_file reads the
    result. Raises ValueError in one line for what cannot be read or does not fit.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: weights are written as NAME.safetensors")
    if not source.exists():
        raise ValueError(f"{source}: no such run folder or file")
    if out.exists() and out.samefile(source):
        raise ValueError(f"--out {out}: is the file that is read; choose another name")
    metadata = evaluate.metadata(source)
    ours = source.is_dir() or checkpoint.is_ours(metadata)
    if model is not None:
        network = _loaded(source, model)
    elif ours:
        network = evaluate.load(source)
    else:
        raise ValueError(f"{source}: does not say which network it is of; say it with --model")
    to = to or ("torch" if ours else "minicnn")
    _write(out, network, ours=to == "minicnn", **{key: metadata[key] for key in TAKES_ALONG if key in metadata})
    numbers = sum(array.size for array in network.state_dict().values())
    layout = "minicnn's layout" if to == "minicnn" else "PyTorch's names and layout"
    return f"{out}: {network.name}, {numbers:,} numbers, in {layout}"


def _loaded(source: Path, model: dict[str, Any]) -> models.Model:
    """A network with the weights of a file."""
    with init.skipped():
        network = models.build(**model)
    interop.load_torch(network, source)
    return network


def _write(path: Path, network: models.Model, *, ours: bool, **metadata: str) -> None:
    metadata["model"] = json.dumps(network.config)
    if ours:
        checkpoint.write(path, network.state_dict(), metadata)
    else:
        checkpoint.write(path, interop.to_torch(network), {**metadata, "format": "pt", "layout": "OIHW"})


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    parser = _cli.Parser(prog="python -m minicnn.weights", description="Published weights, and weights for PyTorch.")
    place = _cli.Parser(add_help=False)
    place.add_argument("--folder", type=Path, default=cache_folder(), help="where they are kept (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[place], help="what there is, and what is here")
    download = commands.add_parser("get", parents=[place], help="download, verify, convert and keep weights")
    download.add_argument("names", nargs="+", metavar="NAME", help=", ".join(PUBLISHED))

    p = commands.add_parser("convert", help="from PyTorch's names and layout, or to them")
    p.add_argument("source", type=Path, metavar="RUN|WEIGHTS", help="a run folder, a .safetensors or a .pth file")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    p.add_argument("--to", choices=["torch", "minicnn"], help="whose layout (default: the one that it has not)")
    p.add_argument("--model", metavar="NAME", help="the network's name, for weights from elsewhere")
    p.add_argument("--variant", type=_cli.variant, default={}, metavar="JSON", help="such as '{\"bn\": true}'")
    p.add_argument("--classes", type=_cli.positive(int), metavar="N", help="that it tells apart (default: the paper's)")
    p.add_argument("--channels", type=_cli.positive(int), default=3, metavar="N", help="of its images")
    p.add_argument(
        "--image-size", type=_cli.positive(int), metavar="N", help="side of its images (default: the paper's)"
    )
    options = parser.parse_args(arguments)

    if options.command == "list":
        for name, published in PUBLISHED.items():
            kept = options.folder / f"{name}.safetensors"
            print(
                f"{name:12} {published.megabytes:4} MB  1000 classes  top-1 {published.top1:.3f}  "
                f"top-5 {published.top5:.3f}  {published.source.url}{f'; in {kept}' if kept.is_file() else ''}"
            )
    elif options.command == "get":
        try:
            for name in options.names:
                print(f"{name}: {get(name, options.folder)}", flush=True)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("; run the same command again, it goes on from there") from None
    else:
        model = None
        if options.model:
            sizes = {"num_classes": options.classes, "in_channels": options.channels, "image_size": options.image_size}
            model = {"name": options.model, **sizes, **options.variant}
        print(convert(options.source, options.out, to=options.to, model=model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
