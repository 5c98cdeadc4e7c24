"""What is measured: networks, with the batch and the image size at which they are usually trained."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any


@dataclasses.dataclass(frozen=True)
class Network:
    """One row of a table: a model by its name in minicnn, and the shape of its input."""

    model: str
    batch: int
    side: int  # of the square images, in pixels
    variant: dict[str, Any] = dataclasses.field(default_factory=dict)  # keywords of the model, the same on both sides
    lrn: bool = True  # False takes local response normalisation out of GoogLeNet

    @property
    def classes(self) -> int:
        return 1000 if self.side == 224 else 10


NETWORKS = {
    "resnet18": Network("resnet18", 16, 224),
    "resnet34": Network("resnet34", 16, 224),
    "resnet50": Network("resnet50", 16, 224),
    "googlenet": Network("googlenet", 16, 224),
    "googlenet-without-lrn": Network("googlenet", 16, 224, lrn=False),
    "vgg-16": Network("vgg-d", 8, 224),
    "vgg-16-batch-32": Network("vgg-d", 32, 224),
    "resnet20": Network("resnet20", 128, 32),
    "resnet56": Network("resnet56", 128, 32),
    "resnet110": Network("resnet110", 128, 32),
    "vgg-16-bn": Network("vgg-d", 128, 32, {"bn": True}),
    "vgg-a": Network("vgg-a", 8, 224),
    "resnet152": Network("resnet152", 2, 224),
    "resnet1202": Network("resnet1202", 2, 32),
}
GATED = ("resnet18", "resnet50", "vgg-16", "googlenet", "resnet20", "vgg-16-bn")  # over which a mean is taken
COMPILED = ("googlenet", "resnet18", "resnet20")  # whose compilation by PyTorch is waited for


def named(names: str) -> dict[str, Network]:
    """The networks of a comma-separated list; a ValueError with the nearest names for one that is not there."""
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in NETWORKS:
            near = difflib.get_close_matches(name.lower(), NETWORKS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(NETWORKS)}"
            raise ValueError(f"unknown network {name!r}: {hint}")
    return {name: NETWORKS[name] for name in chosen}
