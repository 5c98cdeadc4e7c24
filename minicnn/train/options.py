"""What can be said to `python -m minicnn.train`, and the recipes that fill in what is left unsaid."""

from __future__ import annotations

import argparse
import json
from typing import Any

from minicnn import _cli, models

# What a recipe may set. The values are the defaults of every recipe.
BASE: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 64,
    "lr": 0.1,
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "decay_all": True,
    "schedule": "one-cycle",
    "augment": "shift:1,flip",
    "label_smoothing": 0.1,
    "clip": 0.0,
    "ema": 0.0,
    "polyak": False,
}

# VGG and GoogLeNet without BatchNorm do not survive a rate of 0.1.
UNNORMALISED = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "clip": 5.0}

PLAIN_SGD = {"nesterov": False, "label_smoothing": 0.0}
PAPER: dict[str, dict[str, Any]] = {
    # arXiv:1409.1556, 3.1: 74 epochs, the rate divided by 10 when the validation error stops improving.
    "vgg": {**PLAIN_SGD, "epochs": 74, "batch_size": 256, "lr": 0.01, "weight_decay": 5e-4, "schedule": "plateau:3",
            "augment": "scale-jitter,flip,colour"},
    # arXiv:1409.4842, 6, with the base rate, batch and decay of Caffe's replica, which the paper does not give.
    "googlenet": {**PLAIN_SGD, "epochs": 250, "batch_size": 32, "lr": 0.01, "weight_decay": 2e-4, "polyak": True,
                  "schedule": "exponential:0.96:8", "augment": "resized-crop,flip,colour"},
    # arXiv:1512.03385, 3.4: 60e4 iterations of 256.
    "resnet": {**PLAIN_SGD, "epochs": 120, "batch_size": 256, "lr": 0.1, "weight_decay": 1e-4, "schedule": "plateau:3",
               "augment": "scale-jitter,flip,colour"},
    # arXiv:1512.03385, 4.2: 64k iterations of 128 on 45k images are 182 epochs; the rate falls after 32k and 48k.
    "cifar-resnet": {**PLAIN_SGD, "epochs": 182, "batch_size": 128, "lr": 0.1, "weight_decay": 1e-4,
                     "schedule": "multistep:91,136.5", "augment": "crop:4,flip"},
}  # fmt: skip


def family(model: str) -> str:
    """The key of PAPER for a model's name; ValueError for a network that no paper trains."""
    if model == "resnet-mini":
        raise ValueError("resnet-mini is from no paper, so it has no paper's recipe; use --recipe default")
    if model.startswith(("vgg", "googlenet")):
        return model.partition("-")[0].rstrip("0123456789")
    depth = int(model.removeprefix("resnet").removeprefix("plain"))
    return "cifar-resnet" if depth in (20, 32, 44, 56, 110, 1202) else "resnet"


def recipe(name: str, model: str) -> dict[str, Any]:
    """All settings of a recipe, "default" or "paper", for a model."""
    if name == "paper":
        return {**BASE, **PAPER[family(model)]}
    return {**BASE, **(UNNORMALISED if model.startswith(("vgg", "googlenet")) else {})}


def parser() -> argparse.ArgumentParser:
    p = _cli.Parser(
        prog="python -m minicnn.train",
        description="Train a network. Without arguments: a small residual network on the images that come with minicnn.",
    )
    p.add_argument(
        "model", nargs="?", default="resnet-mini", help="a network's name; python -m minicnn.summary lists them"
    )
    p.add_argument(
        "--variant", type=json.loads, default={}, metavar="JSON", help="its variant, such as '{\"bn\": true}'"
    )
    p.add_argument("--data", default="bundled", help="a data set's name, NAME:PATH, or a folder or .npz file")
    p.add_argument("--image-size", type=_cli.positive(int), help="resample images to this size")
    p.add_argument(
        "--skip-corrupt", action="store_true", help="leave out image files that cannot be decoded, and count them"
    )
    p.add_argument(
        "--validation", type=_cli.fraction, default=0.02, help="share of the training images that chooses `best`"
    )
    p.add_argument(
        "--recipe", choices=["default", "paper"], default="default", help="what fills in the settings not given"
    )
    said = p.add_argument_group("settings of the recipe (given here, they win)")
    said.add_argument("--epochs", type=_cli.positive(int), help="passes over the training images")
    said.add_argument("--batch-size", type=int, help="images in a step")
    said.add_argument("--lr", type=_cli.positive(float), help="base learning rate, which the schedule scales")
    said.add_argument("--optimizer", choices=["sgd", "rmsprop", "adam", "adamw"], help="how a gradient becomes a step")
    said.add_argument("--momentum", type=_cli.fraction, help="of SGD and RMSProp")
    said.add_argument("--nesterov", action=argparse.BooleanOptionalAction, help="Nesterov's form of the momentum")
    said.add_argument("--weight-decay", type=float, help="how much weights are drawn towards 0")
    said.add_argument("--decay-all", action=argparse.BooleanOptionalAction, help="let BatchNorm and biases decay too")
    said.add_argument("--schedule", help="the learning rate's course, such as cosine or warmup:1+step:30:0.1")
    said.add_argument("--augment", help="changes to the training images, such as crop:4,flip; 'none' for none")
    said.add_argument(
        "--label-smoothing", type=_cli.fraction, help="share of the target that goes to all classes alike"
    )
    said.add_argument("--clip", type=float, help="largest norm of the gradient, 0 for any")
    said.add_argument(
        "--ema", type=_cli.fraction, help="decay of an average of the weights that is evaluated, 0 for none"
    )
    said.add_argument(
        "--polyak", action=argparse.BooleanOptionalAction, help="evaluate the mean of the weights of all steps"
    )
    p.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation and dropout")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where arrays live")
    p.add_argument("--threads", type=_cli.positive(int), help="threads of the CPU kernels (default: the usable cores)")
    p.add_argument("--loader-threads", type=_cli.positive(int), default=1, help="threads that prepare batches")
    p.add_argument("--precision", choices=["fp32", "tf32", "fp16"], default="fp32", help="of the arithmetic")
    p.add_argument("--out", help="the run's folder (default: a new one under runs/)")
    p.add_argument("--resume", action="store_true", help="go on with the run in --out, or start it if there is none")
    p.add_argument("--overwrite", action="store_true", help="start anew in --out, whatever is there")
    return p


def configuration(options: argparse.Namespace) -> dict[str, Any]:
    """All that the results of a run depend on, with the recipe's settings filled in."""
    if options.precision != "fp32":
        raise ValueError(f"--precision {options.precision}: only fp32 is available")
    models.variants(options.model)  # an unknown name is said before anything else
    settings = recipe(options.recipe, options.model)
    given = {key: getattr(options, key) for key in settings if getattr(options, key) is not None}
    settings |= given
    if settings["optimizer"] != "sgd" and not given.get("nesterov"):
        settings["nesterov"] = False
    always = ("model", "variant", "data", "image_size", "skip_corrupt", "validation", "seed", "precision")
    return {**{key: getattr(options, key) for key in always}, **settings}
