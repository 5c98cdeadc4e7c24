"""Claim 16: what ZFNet's authors saw in AlexNet's first layer, and what they changed."""

from __future__ import annotations

from typing import Any

from minicnn.study.claim import TRAINED, Arm, Claim, Data, Part, Scale
from minicnn.study.claims.scales import IMAGENET
from minicnn.study.looking import first_layer
from minicnn.study.training import Training

SIDE = 96  # pixels: the smallest round size at which both stems are the published ones


def stems(**variant: Any) -> tuple[Arm, ...]:
    """AlexNet in one piece, as ZFNet's authors replicated it, and ZFNet."""
    return (
        Arm("AlexNet, 11×11/4", Training("alexnet", {"groups": 1, **variant}, probes=(first_layer,))),
        Arm("ZFNet, 7×7/2", Training("zfnet", dict(variant), probes=(first_layer,))),
    )


ADAM = {"batch_size": 32, "augment": "flip", "label_smoothing": 0.0, "validation": 0.0, "lr": 3e-4}

FIRST_LAYER = Claim(
    number=16,
    slug="first-layer",
    title="Looking at the first layer told ZFNet to go from 11×11/4 to 7×7/2",
    statement=(
        "Deconvolutional projections and the filters themselves showed dead and coarse filters in AlexNet's first "
        "layer, and aliasing in its second; smaller filters at a smaller stride were better."
    ),
    published=(
        ("AlexNet, replicated; ZFNet: top-1 error, one network", "40.5, 38.4 %"),
        ("likewise, top-5", "18.1, 16.5 %"),
    ),
    sources=(
        "Zeiler & Fergus (arXiv 1311.2901, §4.1): the first layer's filters are “a mix of extremely high and low "
        "frequency information, with little coverage of the mid frequencies”, and the second layer's maps show "
        "aliasing “caused by the large stride 4”. They made the filters 7×7 and the stride 2.",
        "ZFNet differs from AlexNet in more than its stem: the second convolution has stride 2, normalisation stands "
        "behind the pools, and no layer is split over two GPUs. Pictures told them where to look; the comparison is "
        "one of networks.",
    ),
    method=(
        "AlexNet with groups = 1, as the authors replicated it, and ZFNet, on images enlarged to 96 pixels so that "
        "both have their published stems; He's initialisation, Adam. Pictures: the first layer's filters, what "
        "excited the strongest units of the second convolution, projected back to pixels, and where the answer "
        "depends on the image. Figured besides: the share of filters that are nearly flat, and of their energy that "
        "lies in the middle frequencies."
    ),
    settle="ImageNet: enlarged images of 28 pixels have no fine structure for a finer stem to see. `--scale paper`.",
    arms=stems(init="he"),
    parts=(
        Part("AlexNet − ZFNet, test error", "test_error", {"AlexNet, 11×11/4": 1, "ZFNet, 7×7/2": -1}, above=0),
        Part("flat filters: AlexNet − ZFNet", "flat_filters", {"AlexNet, 11×11/4": 1, "ZFNet, 7×7/2": -1}, above=0,
             unit="% of the filters", decides=False),
        Part("middle frequencies: ZFNet − AlexNet", "middle_frequencies", {"ZFNet, 7×7/2": 1, "AlexNet, 11×11/4": -1},
             above=0, unit="% of the energy", decides=False),
    ),
    scales={
        "tiny": Scale(Data("bundled", train=40, test=40, image_size=SIDE), hours=0.01, seeds=2,
                      settings={**ADAM, "epochs": 1}),
        "small": Scale(Data("bundled", train=2000, test=500, image_size=SIDE), hours=0.6, seeds=3,
                       settings={**ADAM, "epochs": 6}),
        "paper": Scale(IMAGENET, hours=150.0, seeds=3, recipe="paper", arms=stems()),
    },
    columns={
        **TRAINED, "flat_filters": "flat filters, %|.1f", "middle_frequencies": "energy in middle frequencies, %|.1f",
    },
)  # fmt: skip

CLAIMS = (FIRST_LAYER,)
