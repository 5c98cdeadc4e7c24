"""What can be said to `python -m minicnn.train`, and the recipes that fill in what is left unsaid."""

from __future__ import annotations

import argparse
import re
from typing import Any

from minicnn import _cli, models

Settings = dict[str, Any]

# All that a recipe sets, with the default recipe's values.
BASE: Settings = {
    "epochs": 15,
    "batch_size": 64,
    "lr": 0.1,
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "rms_eps": 1e-8,
    "weight_decay": 5e-4,
    "decay_all": True,
    "schedule": "one-cycle",
    "augment": "shift:1,flip",
    "label_smoothing": 0.1,
    "clip": 0.0,
    "max_filter_rms": 0.0,
    "ema": 0.0,
    "polyak": False,
    "validation": 0.02,
}

# Networks without BatchNorm do not survive a rate of 0.1.
UNNORMALISED: Settings = {"optimizer": "adam", "lr": 1e-3, "nesterov": False, "weight_decay": 0.0, "clip": 5.0}

# What the papers say. A number of steps is given in epochs of the data that the paper trained on.
PLAIN: Settings = {"nesterov": False, "label_smoothing": 0.0}
# Krizhevsky et al. 2012, 4.1 and 5: 90 epochs; the rate is divided by 10 three times, when the validation error stalls.
ALEXNET: Settings = {
    **PLAIN, "epochs": 90, "batch_size": 128, "lr": 0.01, "weight_decay": 5e-4, "schedule": "plateau:3:0.1",
    "augment": "scale-jitter:256:256:227,flip,colour",
}  # fmt: skip
# arXiv:1311.2901, 3: 70 epochs, the rate lowered by hand when the validation error stalls; no decay is spoken of. Each
# image is seen as ten crops; here the crop is drawn. The bound on filters is for pixels in ±128; ours have
# deviation 1, so that it holds the first layer tighter.
ZFNET: Settings = {
    **PLAIN, "epochs": 70, "batch_size": 128, "lr": 0.01, "weight_decay": 0.0, "schedule": "plateau:3:0.1",
    "augment": "scale-jitter:256:256:224,flip", "max_filter_rms": 0.1,
}  # fmt: skip
# arXiv:1312.4400, by the authors' configuration for ImageNet: 450 thousand steps of 64; the rate falls at 200 and 400.
NIN: Settings = {
    **PLAIN, "epochs": 22, "batch_size": 64, "lr": 0.01, "weight_decay": 5e-4, "decay_all": False,
    "schedule": "step:10:0.1", "augment": "scale-jitter:256:256:224,flip",
}  # fmt: skip
# arXiv:1409.1556, 3.1: 370 thousand steps of 256; the rate falls when the validation error stops improving.
VGG: Settings = {
    **PLAIN, "epochs": 74, "batch_size": 256, "lr": 0.01, "weight_decay": 5e-4, "schedule": "plateau:3:0.1",
    "augment": "scale-jitter:256:512:224,flip,colour",
}  # fmt: skip
# arXiv:1409.4842, 6. The paper gives no base rate, batch, decay and length; these are those of Caffe's replica.
GOOGLENET: Settings = {
    **PLAIN, "epochs": 250, "batch_size": 32, "lr": 0.01, "weight_decay": 2e-4, "schedule": "exponential:0.96:8",
    "augment": "resized-crop:224,flip,colour", "polyak": True,
}  # fmt: skip
# arXiv:1502.03167, 4.2.1, "BN-x5": the above with a fifth of the decay, a rate five times as high that falls six times
# as fast, and less distortion; it was there after 2.1 of 31 million steps.
BN_INCEPTION: Settings = {
    **GOOGLENET, "epochs": 18, "lr": 0.05, "weight_decay": 4e-5, "schedule": "exponential:0.96:1.33",
    "augment": "resized-crop:224,flip",
}  # fmt: skip
# arXiv:1512.00567, 8: each of 50 replicas took batches of 32. The decay is that of the authors' code.
INCEPTION_V3: Settings = {
    **PLAIN, "epochs": 100, "batch_size": 32, "lr": 0.045, "optimizer": "rmsprop", "momentum": 0.0, "rms_eps": 1.0,
    "weight_decay": 4e-5, "schedule": "exponential:0.94:2", "augment": "resized-crop:299,flip,colour",
    "label_smoothing": 0.1, "clip": 2.0, "ema": 0.9999,
}  # fmt: skip
# arXiv:1512.03385, 3.4: 600 thousand steps of 256.
RESNET: Settings = {
    **PLAIN, "epochs": 120, "batch_size": 256, "lr": 0.1, "weight_decay": 1e-4, "schedule": "plateau:3:0.1",
    "augment": "scale-jitter:256:480:224,flip,colour",
}  # fmt: skip
# arXiv:1512.03385, 4.2: 64 thousand steps of 128 on 45 of CIFAR's 50 thousand images; the rate falls at 32 and 48.
CIFAR: Settings = {
    **PLAIN, "epochs": 182, "batch_size": 128, "lr": 0.1, "weight_decay": 1e-4, "schedule": "multistep:91,136.5:0.1",
    "augment": "crop:4,flip", "validation": 0.1,
}  # fmt: skip
# As above, with smaller steps until the deepest networks have begun to learn (also arXiv:1603.05027, appendix).
DEEP_CIFAR: Settings = {**CIFAR, "schedule": f"warmup:1+{CIFAR['schedule']}"}

PAPER = {
    r"alexnet": ALEXNET,
    r"zfnet": ZFNET,
    r"nin": NIN,
    r"vgg.*": VGG,
    r"googlenet": GOOGLENET,
    r"bn-inception": BN_INCEPTION,
    r"inception-v3": INCEPTION_V3,
    r"(resnet|plain)(18|34|50|101|152|200)": RESNET,
    r"(resnet|plain)(20|32|44|56)": CIFAR,
    r"(resnet|plain)(110|164|1001|1202)": DEEP_CIFAR,
}


def recipe(name: str, model: str) -> Settings:
    """All settings of a recipe, "default" or "paper", for a model; ValueError where no paper says how to train it."""
    if name == "default":
        return {**BASE, **(UNNORMALISED if re.match("alexnet|zfnet|nin|vgg|googlenet", model) else {})}
    for pattern, settings in PAPER.items():
        if re.fullmatch(pattern, model):
            return {**BASE, **settings}
    raise ValueError(f"--recipe paper: no paper says how {model} is trained; use --recipe default")


def parser() -> argparse.ArgumentParser:
    p = _cli.Parser(
        prog="python -m minicnn.train",
        description="Train a network. Without arguments: a small residual network on the images that minicnn brings.",
    )
    count, rate, fraction = _cli.positive(int), _cli.positive(float), _cli.fraction
    add = p.add_argument
    add("model", nargs="?", default="resnet-mini", help="a network's name; python -m minicnn.summary lists them")
    add("--variant", type=_cli.variant, default={}, metavar="JSON", help="of the network, such as '{\"bn\": true}'")
    add("--data", default="bundled", metavar="SPEC", help="a data set's name, NAME:PATH, a folder or an .npz file")
    add("--image-size", type=count, metavar="N", help="resample images to this side (default: folders to 224)")
    add("--skip-corrupt", action="store_true", help="leave out image files that cannot be decoded, and count them")
    add("--recipe", choices=["default", "paper"], default="default", help="what fills in the settings below")
    add("--init-from", metavar="WEIGHTS", help="start from what fits of a run folder, a .safetensors or a .pth file")
    add("--freeze", metavar="NAMES", help="do not train these layers or parameters, such as 'conv1,layer1,*.bn2.*'")
    add("--seed", type=_cli.not_negative(int), default=0, metavar="N", help="of weights, order, changes and dropout")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where arrays live")
    add("--threads", type=_cli.threads, metavar="N", help="of the CPU kernels (default: the usable cores)")
    add("--loader-threads", type=count, default=1, metavar="N", help="threads that prepare batches")
    add("--precision", choices=["fp32", "tf32", "fp16"], default="fp32", help="of the arithmetic; the others need CUDA")
    add("--out", metavar="FOLDER", help="the run's folder (default: a new one under runs/)")
    add = p.add_mutually_exclusive_group().add_argument
    add("--resume", action="store_true", help="go on with the run in --out; start it if there is none")
    add("--overwrite", action="store_true", help="start anew in --out, whatever is there")

    group = p.add_argument_group(
        "settings of the recipe", "given here, they win; the defaults are the default recipe's"
    )

    def setting(option: str, says: str, **kind: Any) -> None:
        value = BASE[option.strip("-").replace("-", "_")]
        group.add_argument(option, help=f"{says} (default: {value})", **kind)

    yes_or_no = argparse.BooleanOptionalAction
    setting("--epochs", "passes over the training images", type=count, metavar="N")
    setting("--batch-size", "images in a step", type=int, metavar="N")
    setting("--lr", "base learning rate, which the schedule scales", type=rate, metavar="RATE")
    setting("--schedule", "of the rate, such as cosine or warmup:1+step:30:0.1", metavar="TEXT")
    setting("--optimizer", "how a gradient becomes a step", choices=["sgd", "rmsprop", "adam", "adamw"])
    setting("--momentum", "of SGD and RMSProp", type=fraction, metavar="M")
    setting("--nesterov", "Nesterov's form of the momentum", action=yes_or_no)
    setting("--rms-eps", "what RMSProp adds to the mean square", type=rate, metavar="EPS")
    setting("--weight-decay", "how much weights are drawn to 0", type=_cli.not_negative(float), metavar="W")
    setting("--decay-all", "let BatchNorm and biases decay too", action=yes_or_no)
    setting("--augment", "changes to the training images, 'none' for none", metavar="TEXT")
    setting("--label-smoothing", "share of the target that all classes get alike", type=fraction, metavar="S")
    setting("--clip", "largest norm of the gradient, 0 for any", type=_cli.not_negative(float), metavar="NORM")
    rms = _cli.not_negative(float)
    setting("--max-filter-rms", "largest RMS of a convolution's filter, 0 for any", type=rms, metavar="RMS")
    setting("--ema", "decay of an average of the weights, which is evaluated", type=fraction, metavar="D")
    setting("--polyak", "evaluate the mean of all steps' weights", action=yes_or_no)
    setting("--validation", "share of the training images that chooses `best`", type=fraction, metavar="S")
    return p


def configuration(options: argparse.Namespace) -> Settings:
    """All that the results of a run depend on, with the recipe's settings filled in."""
    models.defaults(options.model)  # an unknown name is said before anything else
    settings = recipe(options.recipe, options.model)
    settings |= {key: getattr(options, key) for key in settings if getattr(options, key) is not None}
    if settings["optimizer"] != "sgd" and options.nesterov is None:
        settings["nesterov"] = False
    always = ("model", "variant", "data", "image_size", "skip_corrupt", "init_from", "freeze", "seed", "precision")
    return {**{key: getattr(options, key) for key in always}, **settings}
