"""Claims 13 and 14: what BatchNorm does, and what the normalisations before it did."""

from __future__ import annotations

from dataclasses import replace

from minicnn.study.claim import LEARNING, TRAINED, Arm, Chart, Claim, Data, Part, Scale
from minicnn.study.claims.scales import BUNDLED_SMALL, BUNDLED_TINY, FASHION, IMAGENET
from minicnn.study.probes import pre_activations
from minicnn.study.training import Training

DROPPED = 0.2  # of the values behind each pair of convolutions
MARGIN = 0.5  # points

# Adam trains networks with and without a normalisation alike; no other regularisation hides what is compared.
ADAM = {
    "optimizer": "adam", "nesterov": False, "lr": 2e-3, "clip": 5.0, "weight_decay": 0.0, "label_smoothing": 0.0,
    "validation": 0.0,
}  # fmt: skip


def chain(name: str, depth: int, **variant: object) -> Arm:
    return Arm(name, Training("chain", {"depth": depth, **variant}, probes=(pre_activations,)))


def batch_norm_arms(depth: int) -> tuple[Arm, ...]:
    return (
        chain("none", depth, norm="none"),
        chain("dropout", depth, norm="none", dropout=DROPPED),
        chain("BN before", depth, norm="bn"),
        chain("BN after", depth, norm="bn-after"),
        chain("both, BN before", depth, norm="bn", dropout=DROPPED),
        chain("both, BN after", depth, norm="bn-after", dropout=DROPPED),
    )


def normalised_arms(depth: int) -> tuple[Arm, ...]:
    return (
        chain("none", depth, norm="none"),
        chain("LRN 2012", depth, norm="lrn-2012"),
        chain("LCN 2013", depth, norm="lcn"),
        chain("LRN 2014", depth, norm="lrn-2014"),
        chain("BN 2015", depth, norm="bn"),
    )


# The paper's networks were Inceptions; ours at paper scale has 18 layers and ResNet's recipe without its shortcuts.
PAPER = Scale(
    IMAGENET,
    hours=400.0,
    seeds=3,
    recipe="default",
    settings={
        **ADAM, "epochs": 60, "batch_size": 256, "lr": 1e-3, "schedule": "cosine",
        "augment": "scale-jitter:256:480:224,flip,colour",
    },
)  # fmt: skip
TINY = Scale(BUNDLED_TINY, hours=0.01, seeds=2, settings={**ADAM, "epochs": 2, "batch_size": 32})

BN_PAPER = "Ioffe & Szegedy (arXiv 1502.03167"

BATCH_NORM = Claim(
    number=13,
    slug="batch-norm",
    title=(
        "BatchNorm makes dropout unnecessary, prevents underfitting, keeps values in range, and belongs before the "
        "activation"
    ),
    statement=(
        "With BatchNorm a network needs no dropout; it fits its training images better; the values that its "
        "activations are given stay in one range from layer to layer; and it is to be put in front of the activation, "
        "not behind it."
    ),
    published=(
        ("steps of an Inception to 72.2 % on ImageNet; with BN; with BN and larger steps", "31.0, 13.3, 2.1 million"),
        ("the best of it with BN (x30), top-1 accuracy", "74.8 %"),
        ("removing dropout from the BN network", "“without increasing overfitting” (§4.2.1)"),
    ),
    sources=(
        f"The story has it that BatchNorm prevents *under*fitting so that dropout is not needed. {BN_PAPER}, §4.2.1) "
        "say something else: dropout can go because BatchNorm *regularises*: what a network makes of an image "
        "depends on the others in its batch. That it trains faster, and to a lower error, is their other and main "
        "result.",
        "He et al. (arXiv 1512.03385, §3.4) use no dropout either, “following the practice” of that paper.",
        f"Where it belongs: {BN_PAPER}, §3.2) put it in front of the non-linearity, since Wx + b is “more likely to "
        "have a symmetric, non-sparse distribution”. It is an argument; the paper does not compare the two.",
    ),
    method=(
        "A row of 3×3 convolutions as plain-20 has them. Of {none, dropout, BN, both} × {before, after the "
        "activation} six networks differ: without BN there is nothing to place, and dropout commutes with ReLU. "
        "Dropout of 0.2 behind each pair of convolutions. Values in range: for each layer the spread of what its "
        "activation is given, on test images; figured is between the widest and the narrowest layer, in powers of ten."
    ),
    settle="Larger data, where dropout and BatchNorm have something to regularise: `--scale paper`.",
    arms=batch_norm_arms(20),
    parts=(
        Part(
            "unnecessary: what dropout gains on top of BN, test error",
            "test_error",
            {"BN before": 1, "both, BN before": -1},
            below=MARGIN,
        ),
        Part("no underfitting: none − BN, training error", "train_error", {"none": 1, "BN before": -1}, above=0),
        Part(
            "in range: none − BN, spread between layers",
            "spread_decades",
            {"none": 1, "BN before": -1},
            above=0,
            unit="powers of ten",
        ),
        Part("before: BN after − BN before, test error", "test_error", {"BN after": 1, "BN before": -1}, above=0),
        Part("with dropout", "test_error", {"both, BN after": 1, "both, BN before": -1}, above=0, decides=False),
    ),
    scales={
        "tiny": replace(TINY, arms=batch_norm_arms(8)),
        "small": Scale(FASHION, hours=2.3, seeds=3, settings={**ADAM, "epochs": 20, "batch_size": 64}),
        "paper": replace(PAPER, arms=batch_norm_arms(18)),
    },
    columns={**TRAINED, "spread_decades": "spread of layers, powers of ten|.2f", "dead_share": "dead channels, %|.1f"},
    charts=(
        *LEARNING,
        Chart(
            "Spread of what the activations are given",
            "layer",
            "standard deviation",
            series="pre-activation std by layer",
            log=True,
        ),
        Chart("Its 5 % quantile", "layer", "value", series="pre-activation 5 % quantile by layer"),
        Chart("Its 95 % quantile", "layer", "value", series="pre-activation 95 % quantile by layer"),
    ),
)

NORMALISATIONS = Claim(
    number=14,
    slug="normalisations",
    title="Of LRN (2012), LCN (2013), LRN (2014) and BatchNorm (2015), only BatchNorm earned its place",
    statement=(
        "AlexNet normalised across channels, ZFNet local contrast, GoogLeNet across channels again; BatchNorm "
        "replaced them all, for it alone makes a network better."
    ),
    published=(
        ("AlexNet: top-1 error with LRN against without", "1.4 points lower (2012, §3.3)"),
        ("VGG-A with LRN against without", "0.1 points higher"),
        ("Inception with BN in place of LRN", "the same accuracy in 13.3 in place of 31.0 million steps"),
        ("ZFNet's contrast normalisation", "not compared with anything"),
    ),
    sources=(
        "ZFNet (arXiv 1311.2901, §2) has a “local contrast operation that normalizes the responses across feature "
        "maps”, and cites both Krizhevsky (LRN) and Jarrett et al. (LCN), without constants: that it is LCN is one "
        "reading.",
        "GoogLeNet's paper gives no constants for its LRN; Caffe's replica has α = 1e-4 in its own convention, which "
        "divides by the window: a fifth of AlexNet's α, and k = 1.",
    ),
    method=(
        "One network, a row of 3×3 convolutions, five times: without a normalisation, with LRN, LCN or LRN behind "
        "each activation, with BatchNorm in front of each. Same weights at the start, same images, same steps. Which "
        "learning rate suits best differs between them; all get the one that suits the network without any."
    ),
    settle="A learning rate tuned for each arm, and ImageNet: `--scale paper`.",
    arms=normalised_arms(14),
    parts=(
        Part("what BN gains: none − BN, test error", "test_error", {"none": 1, "BN 2015": -1}, above=0),
        Part("what LRN of 2012 gains", "test_error", {"none": 1, "LRN 2012": -1}, below=MARGIN),
        Part("what LCN of 2013 gains", "test_error", {"none": 1, "LCN 2013": -1}, below=MARGIN),
        Part("what LRN of 2014 gains", "test_error", {"none": 1, "LRN 2014": -1}, below=MARGIN),
        Part("none − BN, training error", "train_error", {"none": 1, "BN 2015": -1}, above=0, decides=False),
    ),
    scales={
        "tiny": replace(TINY, arms=normalised_arms(8), data=Data("bundled", train=100, test=100)),
        "small": Scale(BUNDLED_SMALL, hours=0.4, seeds=3, settings={**ADAM, "epochs": 12, "batch_size": 32}),
        "paper": replace(PAPER, arms=normalised_arms(18)),
    },
    columns={**TRAINED, "spread_decades": "spread between layers, powers of ten|.2f"},
)

CLAIMS = (BATCH_NORM, NORMALISATIONS)
