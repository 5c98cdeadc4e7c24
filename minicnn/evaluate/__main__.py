"""The command `python -m minicnn.evaluate`: how good a trained network is, and what it takes for what."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import _cli, checkpoint, data, device, models
from minicnn.data import Dataset, Loader, augment
from minicnn.evaluate.accuracy import report
from minicnn.evaluate.average import scores
from minicnn.evaluate.centre import fitted, predictions
from minicnn.evaluate.precise import precise_bn
from minicnn.evaluate.progress import watched
from minicnn.evaluate.views import PROTOCOLS, Views, choose
from minicnn.evaluate.weights import configuration, load, metadata, normalised_for
from minicnn.weights import TAKES_ALONG


def parser() -> argparse.ArgumentParser:
    count = _cli.positive(int)
    p = _cli.Parser(prog="python -m minicnn.evaluate", description="Evaluate a trained network.")
    add = p.add_argument
    add("weights", metavar="RUN|WEIGHTS", help="a run folder, or a .safetensors or .pth file")
    add("--data", metavar="SPEC", help="as for minicnn.train (default: the run's own, else bundled)")
    add("--split", choices=["test", "train"], default="test", help="which images")
    add("--model", help="the network's name, for weights from elsewhere")
    add("--image-size", type=count, metavar="N", help="resample images to this side")
    add("--skip-corrupt", action="store_true", help="leave out image files that cannot be decoded")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where arrays live")
    add("--threads", type=_cli.threads, metavar="N", help="of the CPU kernels (default: usable cores)")
    add = p.add_argument_group("as the papers tested", "scores are means of the softmax over all views").add_argument
    add("--crops", type=int, choices=PROTOCOLS, help="of each image: 1, its centre; 10, corners and centre (AlexNet); "
        "50, a grid (VGG); 144, of three squares at four scales (GoogLeNet)")  # fmt: skip
    add("--dense", action="store_true", help="all of each image at once; with --crops the mean of both")
    add("--scales", type=sides, default=(), metavar="N,…", help="lengths of the shorter side, of images that are not "
        "cut to squares (default: the paper's, 8/7 of the network's size; CIFAR's as they are)")  # fmt: skip
    add("--pad", type=_cli.not_negative(int), metavar="N", help="black pixels around the image (default: 0, or what "
        "crops of an image no larger than the network need)")  # fmt: skip
    add("--precise-bn", type=count, metavar="N", help="first take batch normalisation's statistics from N training "
        "batches")  # fmt: skip
    add("--save", metavar="FILE", help="write the weights with these statistics to a new .safetensors file")
    return p


def sides(text: str) -> tuple[int, ...]:
    """For argparse's `type`: whole numbers above 0, separated by commas."""
    return tuple(_cli.positive(int)(part) for part in text.split(","))


sides.__name__ = "int"  # argparse names it in "invalid int value"


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    if options.save and not options.precise_bn:
        p.error("--save writes what --precise-bn has changed; give that too")
    if options.save and Path(options.save).exists():
        p.error(f"--save {options.save}: is there already; give a new name")
    on, _ = device.choose(options.device)
    if options.threads:
        device.set_threads(options.threads)

    path = Path(options.weights)
    if not path.exists():
        raise ValueError(f"{path}: no such run folder or file")
    own = configuration(path)
    train, test = data.load_pair(
        options.data or own.get("data", "bundled"),
        image_size=options.image_size or own.get("image_size"),
        skip_corrupt=options.skip_corrupt or own.get("skip_corrupt", False),
    )
    dataset = train if options.split == "train" else test
    network = load(path, options.model, dataset)
    for has, takes, what in [
        (dataset.num_classes, network.num_classes, "classes"),
        (dataset.channels, network.in_channels, "channels"),
    ]:
        if has != takes:
            raise ValueError(f"{path}: {network.name} was trained for {takes} {what}, {dataset.name} has {has}")
    network.to(device=on)
    train, dataset = normalised_for(path, train), normalised_for(path, dataset)
    ways = chosen(options, network, dataset)

    if options.precise_bn:
        watch = functools.partial(watched, what="training batches")
        precise_bn(network, training_batches(train, own, network), options.precise_bn, on=on, watch=watch)
        if options.save:
            along = {key: value for key, value in metadata(path).items() if key in TAKES_ALONG}
            checkpoint.write(options.save, network.state_dict(), {"model": json.dumps(network.config), **along})
    for views in ways:
        print(f"{views}")
    print(report(*seen(network, dataset, ways, on), dataset.classes))
    if dataset.corrupt:
        print(f"\nskipped {len(dataset.corrupt)} files that cannot be decoded, such as {dataset.corrupt[0]}")
    return 0


def chosen(options: argparse.Namespace, network: models.Model, dataset: Dataset) -> list[Views]:
    """The ways to look at an image that the options ask for; none for the centre of images as they are trained on."""
    look = functools.partial(choose, size=network.image_size, scales=options.scales, pad=options.pad, dataset=dataset)
    ways = [look(None)] if options.dense else []
    if options.crops or ((options.scales or options.pad) and not ways):
        ways.append(look(options.crops or 1))
    return ways


def seen(network: models.Model, dataset: Dataset, ways: list[Views], on: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, classes) and labels (N,); of several ways to look at the images the mean, each counting alike."""
    if not ways:
        return predictions(network, dataset, on=on, watch=functools.partial(watched, what="batches"))
    each = [scores(network, dataset, views, on=on, watch=functools.partial(watched, what="images")) for views in ways]
    return np.mean([probabilities for probabilities, _ in each], axis=0), each[0][1]


def training_batches(train: Dataset, own: dict[str, Any], network: models.Model) -> Loader:
    """Batches as the network was trained on, where its run says how; of other weights 64 images, fitted to its size."""
    if own.get("validation"):
        train, _ = data.split_validation(train, own["validation"], own["seed"])
    changes = augment.parse(own["augment"]) if "augment" in own else fitted(network.image_size)
    size = min(own.get("batch_size", 64), len(train))
    return Loader(train, size, augment=changes, seed=own.get("seed", 0))


if __name__ == "__main__":
    sys.exit(main())
