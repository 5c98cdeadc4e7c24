"""What is looked at: a network, an image as the network sees it, and the class that is asked about."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minicnn import data, device, evaluate, models
from minicnn.data import Dataset, folder
from minicnn.data.folder import ImageFiles
from minicnn.look.occlusion import probabilities
from minicnn.weights import imagenet_classes

# Of ImageNet's training images, with which networks that are published under torchvision's names were trained
# (pytorch/vision, the preset of each of its classification weights).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64  # images, where a figure is of several


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode, and an image prepared for it as for a test."""

    model: models.Model
    x: Any  # (1, H, W, C), normalised, on the model's device
    others: Any  # (N, H, W, C) test images of its data set, or just x where they are not at hand
    picture: np.ndarray  # uint8 (H, W, 3): the image that x is
    classes: tuple[str, ...]
    label: int  # the class that is asked about
    why: str  # how that was chosen


def open_subject(
    weights: str,
    image: str,
    *,
    spec: str | None = None,
    model: str | None = None,
    of: str | None = None,
    on: str = "cpu",
) -> Subject:
    """The network of a run folder or weights file, and an image file (or "test:0", one of its data set).

    `spec` names the data set (default: the run's own), which says mean, deviation and classes. Published weights say
    these themselves; where nothing does, a network of colour images is taken for one trained on ImageNet. The class
    asked about is `of`, else the one that the image's label or folder says, else the likeliest.

    ValueError, one line, for whatever cannot be used.
    """
    path = Path(weights)
    if not path.exists():
        raise ValueError(f"{path}: no such run folder or file")
    own = evaluate.configuration(path)
    spec = spec or own.get("data")
    how = {"image_size": own.get("image_size"), "skip_corrupt": own.get("skip_corrupt", False)}
    splits = dict(zip(("train", "test"), data.load_pair(spec, **how), strict=True)) if spec else {}
    dataset = splits.get("test")
    network = evaluate.load(path, model, dataset)
    if dataset is not None and (dataset.num_classes, dataset.channels) != (network.num_classes, network.in_channels):
        raise ValueError(
            f"{path}: {network.name} was trained for {network.num_classes} classes and {network.in_channels} channels, "
            f"{dataset.name} has {dataset.num_classes} and {dataset.channels}; name its own data set with --data"
        )
    network.to(device=on)

    one, known = _image(image, network, splits, path)
    x, _ = next(iter(evaluate.batches(one, network.image_size)), (None, None))
    if x is None:  # one that its data set skips
        raise ValueError(f"{image}: cannot be decoded; take another one")
    others = x if dataset is None else _sample(dataset, network.image_size)
    pixels = np.clip(np.rint(255 * (x[0] * one.std + one.mean)), 0, 255).astype(np.uint8)
    picture = pixels if pixels.shape[2] == 3 else pixels.mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    x, others = device.to(x, on), device.to(others, on)
    if of is not None:
        label, why = class_number(of, one.classes), "asked for"
    elif known is not None:
        label, why = known, "the image's own"
    else:
        label, why = int(probabilities(network, x)[0].argmax()), "the likeliest, for the network"
    return Subject(network, x, others, picture, one.classes, label, why)


def _image(
    image: str, network: models.Model, splits: Mapping[str, Dataset], weights: Path
) -> tuple[Dataset, int | None]:
    """A data set of that one image, and its class where that is known."""
    of_set = re.fullmatch(r"(test|train):(\d+)", image)
    if of_set and not Path(image).exists():
        if not splits:
            raise ValueError(f"{image}: needs a data set; name one with --data, or an image file")
        images, number = splits[of_set[1]], int(of_set[2])
        if number >= len(images):
            raise ValueError(f"{image}: {images.name} has the {of_set[1]} images 0 to {len(images) - 1}")
        return images.subset(np.array([number])), int(images.labels[number])

    dataset = splits.get("test")
    pixels = folder.decode(image, dataset.image_size if dataset else network.image_size)  # (size, size, 3)
    if network.in_channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    elif network.in_channels != 3:
        raise ValueError(
            f"{image}: {network.name} takes images of {network.in_channels} channels, image files have 3; "
            "give one of its data set, such as test:0"
        )
    if dataset is not None:
        mean, std, classes = dataset.mean, dataset.std, dataset.classes
    else:
        mean, std, classes = _published(weights, network)
    one = Dataset(Path(image).name, pixels[None], np.zeros(1, np.int64), classes, mean, std)
    return one, _class_of_folder(Path(image).resolve().parent, splits, classes)


def _class_of_folder(folder: Path, splits: Mapping[str, Dataset], classes: tuple[str, ...]) -> int | None:
    """The class of the images in a folder: one of the data set's folders, or one with a class's name."""
    for dataset in splits.values():
        if isinstance(dataset.images, ImageFiles):
            label_of = {
                os.path.dirname(file): int(y) for file, y in zip(dataset.images.files, dataset.labels, strict=True)
            }
            for of_class, label in label_of.items():
                if Path(of_class).resolve() == folder:
                    return label
    return classes.index(folder.name) if folder.name in classes else None


def _published(weights: Path, network: models.Model) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(mean, std, classes) of a network without a data set: what its file says of them, or else ImageNet's."""
    facts = evaluate.metadata(weights)
    if {"mean", "std", "classes"} <= set(facts):
        mean, std, classes = (json.loads(facts[key]) for key in ("mean", "std", "classes"))
    elif network.in_channels == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        classes = imagenet_classes() if network.num_classes == 1000 else tuple(map(str, range(network.num_classes)))
    else:
        raise ValueError(f"{weights}: nothing says how its images were normalised; name its data set with --data")
    return np.array(mean, np.float32), np.array(std, np.float32), tuple(classes)


def _sample(dataset: Dataset, size: int) -> np.ndarray:
    """Some images, evenly spaced over the data set, as the network is tested on them: (N, H, W, C)."""
    some = np.unique(np.linspace(0, len(dataset) - 1, BATCH).astype(np.int64))
    return np.concatenate([images for images, _ in evaluate.batches(dataset.subset(some), size)])


def class_number(text: str, classes: tuple[str, ...]) -> int:
    """The number of a class, given by its name or number; ValueError with the nearest names for another."""
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    inside = [name for name in classes if text.lower() in name.lower()]
    if len(inside) == 1:
        return classes.index(inside[0])
    near = inside or difflib.get_close_matches(text, classes, n=3, cutoff=0.4)
    raise ValueError(f"unknown class {text!r}: " + (f"did you mean {' or '.join(near[:3])}?" if near else
                     f"choose from {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}"))  # fmt: skip
