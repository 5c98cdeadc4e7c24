"""Claims 11 and 12: which shortcut, and where the activations stand."""

from __future__ import annotations

from typing import Any

from minicnn.study.claim import Arm, Claim, Data, Part, Scale
from minicnn.study.claims import depth
from minicnn.study.claims.scales import BUNDLED_SMALL, BUNDLED_TINY, CIFAR10, FASHION_DEEP, IMAGENET
from minicnn.study.training import Training

# --- 11: A, B, C -----------------------------------------------------------------------------------------------------


def options(model: str) -> tuple[Arm, ...]:
    return tuple(Arm(option, Training(model, {"shortcut": option})) for option in "ABC")


TINY_IMAGES = Data("bundled", train=60, test=100)
TINY = depth.SMALL | {"epochs": 2, "batch_size": 32, "schedule": "warmup:1+cosine"}

PROJECTIONS = Claim(
    number=11,
    slug="projections",
    title="Projection shortcuts help a little",
    statement=(
        "Option B, which projects where the shape changes, is a little better than A, which pads with zeros; option "
        "C, which projects everywhere, a little better again."
    ),
    published=(
        ("ResNet-34 A, B, C: top-1 error, 10-crop", "25.03, 24.52, 24.19 %"),
        ("likewise, top-5", "7.76, 7.46, 7.40 %"),
    ),
    sources=(
        "He et al. (arXiv 1512.03385, §4.1) attribute B’s gain to A’s padded channels, which have no residual "
        "learning, and C’s to the parameters of its thirteen further projections; the differences are small, so "
        "projections “are not essential for addressing the degradation problem”.",
        "Identity Mappings (arXiv 1603.05027, Table 1) finds the opposite at depth 110: with 1×1 convolutions on all "
        "shortcuts the error on CIFAR-10 rises from 6.61 to 12.22 %.",
    ),
    method="ResNet-20 for small images, at `paper` ResNet-34, with each of the options; projections have a BatchNorm.",
    settle="`--scale paper --data imagenet=FOLDER`, with ResNet-34.",
    arms=options("resnet20"),
    parts=(
        Part("what projecting changed shapes gains: A − B, test error", "test_error", {"A": 1, "B": -1}, above=0),
        Part("what projecting everywhere gains: A − C", "test_error", {"A": 1, "C": -1}, above=0, below=2),
        Part("C over B: B − C", "test_error", {"B": 1, "C": -1}, above=0, decides=False),
    ),
    scales={
        "tiny": Scale(BUNDLED_TINY, hours=0.005, seeds=2, settings=TINY),
        "small": Scale(
            BUNDLED_SMALL, hours=0.4, seeds=3, settings=depth.SMALL | {"epochs": 20, "schedule": "warmup:1+cosine"}
        ),
        "paper": Scale(
            IMAGENET,
            hours=500.0,
            seeds=3,
            recipe="paper",
            settings={"augment": "scale-jitter:256:480:224,flip,colour"},
            arms=options("resnet34"),
        ),
    },
)

# --- 12: identity mappings -------------------------------------------------------------------------------------------

PLACEMENTS = {
    "BN after addition": "bn-after-add",
    "ReLU before addition": "relu-before-add",
    "ReLU-only pre-activation": "relu-only-preact",
    "full pre-activation": "full-preact",
}
SKIPS: dict[str, dict[str, Any]] = {
    "scaled by 0.5": {"skip": "scale", "skip_scale": 0.5},
    "scaled by 0.5, F too": {"skip": "scale", "skip_scale": 0.5, "residual_scale": 0.5},
    "exclusive gate, bias −6": {"skip": "exclusive-gate", "gate_bias": -6.0},
    "shortcut gate, bias 0": {"skip": "shortcut-gate", "gate_bias": 0.0},
    "1×1 convolution": {"skip": "conv1x1"},
    "dropout of 0.5": {"skip": "dropout", "skip_dropout": 0.5},
}
SPANS = (1, 3)  # layers that a shortcut spans; the original spans 2


# Without BatchNorm the rate of the others does not train.
WITHOUT_BN = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "clip": 5.0, "schedule": "one-cycle"}


def units(model: str) -> tuple[Arm, ...]:
    variants: dict[str, dict[str, Any]] = {"original": {}}
    variants |= {name: {"unit": unit} for name, unit in PLACEMENTS.items()}
    variants |= {f"shortcut: {name}": skip for name, skip in SKIPS.items()}
    variants |= {f"shortcut over {span} layer{'s' * (span > 1)}": {"span": span} for span in SPANS}
    return tuple(Arm(name, Training(model, variant)) for name, variant in variants.items())


def outside(layers: int) -> tuple[Arm, ...]:
    """A network in VGG's manner, without BatchNorm, and the same with shortcuts."""
    shared: dict[str, Any] = {"depth": layers, "norm": "none"}
    return (
        Arm("VGG-like", Training("chain", shared, WITHOUT_BN)),
        Arm("VGG-like with shortcuts", Training("chain", {**shared, "shortcut": True}, WITHOUT_BN)),
    )


def inceptions(epochs: int) -> tuple[Arm, ...]:
    """GoogLeNet, ten times as dear as the others, for fewer epochs, and the same with shortcuts."""
    variant, settings = {"init": "he"}, WITHOUT_BN | {"epochs": epochs}
    return (
        Arm("Inception", Training("googlenet", variant, settings)),
        Arm("Inception with shortcuts", Training("googlenet-shortcuts", variant, settings)),
    )


def worse(arm: str, than: str, decides: bool = True) -> Part:
    return Part(f"{arm} − {than}", "test_error", {arm: 1, than: -1}, above=0, decides=decides)


IDENTITY = Claim(
    number=12,
    slug="identity-mappings",
    title="Full pre-activation is the best unit; it needs the identity path; shortcuts can hurt outside ResNet",
    statement=(
        "Of five places for BatchNorm and ReLU the best is in front of each convolution, which leaves a clean path "
        "from the first unit to the last. Whatever stands in that path, as scaling, a gate, a convolution or dropout, "
        "makes the network worse. And shortcuts are no remedy for every network."
    ),
    published=(
        ("ResNet-110, CIFAR-10, median of 5: original", "6.61 %"),
        ("BN after addition, ReLU before addition, ReLU-only, full pre-activation", "8.17, 7.84, 6.71, 6.37 %"),
        ("shortcut scaled by 0.5; with F scaled too", "fails (above 20 %); 12.35 %"),
        ("exclusive gate, bias −6; 0 to −5", "8.70 %; fails"),
        ("shortcut-only gate, bias 0; −6", "12.86; 6.91 %"),
        ("1×1 convolution; dropout of 0.5", "12.22 %; fails"),
        ("a shortcut over one layer: original, pre-activation", "9.90, 8.91 %"),
        ("ResNet-1001: original, pre-activation", "7.61, 4.92 %"),
    ),
    sources=(
        "He et al. (arXiv 1603.05027). The gain of pre-activation grows with depth: 6.61 to 6.37 % at 110 layers, "
        "7.61 to 4.92 % at 1001. At 20 layers, where our smaller scales are, the paper claims nothing.",
        "The gates are those of highway networks (Srivastava et al. 2015), which took them from the LSTM: σ(W·x + b), "
        "a 1×1 convolution. A gate with a very negative bias is next to the identity, which is why its bias decides.",
        "Variants stand in *all* units. All runs of the paper begin with a lower rate, which full pre-activation does "
        "not need.",
        "That shortcuts can hurt outside ResNet is the story's; no table of these papers shows it.",
    ),
    method=(
        "ResNet-20 (at `paper` ResNet-110 on CIFAR-10) with one thing changed in every unit: the place of the "
        "activations, what stands in the shortcut, or how many layers it spans. The last arms are a row of 3×3 "
        "convolutions without BatchNorm, in VGG's manner, and GoogLeNet, each with and without shortcuts; without "
        "BatchNorm they train with Adam, and GoogLeNet for fewer epochs."
    ),
    settle="Depth: the effects are measured at 110 layers and more, `--scale paper`.",
    arms=(*units("resnet20"), *outside(14), *inceptions(4)),
    parts=(
        *(worse(name, "full pre-activation") for name in ("original", *PLACEMENTS) if name != "full pre-activation"),
        *(worse(f"shortcut: {name}", "original") for name in SKIPS),
        worse("shortcut over 1 layer", "original", decides=False),
        worse("shortcut over 3 layers", "original", decides=False),
        worse("VGG-like with shortcuts", "VGG-like"),
        worse("Inception with shortcuts", "Inception", decides=False),
    ),
    scales={
        "tiny": Scale(
            TINY_IMAGES, hours=0.02, seeds=2, settings={**TINY, "epochs": 1},
            arms=(*units("resnet20"), *outside(8), *inceptions(1)),
        ),
        "small": Scale(
            FASHION_DEEP,
            hours=2.8,
            seeds=3,
            settings=depth.SMALL | {"epochs": 12, "batch_size": 128, "schedule": "warmup:1+cosine"},
        ),
        "paper": Scale(CIFAR10, hours=150.0, seeds=5, recipe="default", settings={
            "epochs": 182, "batch_size": 128, "lr": 0.1, "nesterov": False, "weight_decay": 1e-4,
            "label_smoothing": 0.0, "schedule": "warmup:1+multistep:91,136.5:0.1", "augment": "crop:4,flip",
            "validation": 0.1,
        }, arms=(*units("resnet110"), *outside(20), *inceptions(182))),
    },
)  # fmt: skip

CLAIMS = (PROJECTIONS, IDENTITY)
