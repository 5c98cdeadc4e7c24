"""Claims 8, 9, 15 and 19: GoogLeNet with one thing about its modules exchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minicnn.models import googlenet
from minicnn.study.branches import branch_masses, branch_usefulness
from minicnn.study.claim import LEARNING, TABLES, TRAINED, Arm, Chart, Claim, Data, Figures, Part, Scale
from minicnn.study.claims.costs import INPUTS
from minicnn.study.claims.scales import BUNDLED_SMALL, FASHION, IMAGENET
from minicnn.study.engine import Bench
from minicnn.study.measuring import Measuring
from minicnn.study.training import Training
from minicnn.summary import cost

MARGIN = 1.0  # points: what is cheaper may be so much worse and still keep its accuracy

ADAM = {"batch_size": 32, "augment": "shift:1,flip", "label_smoothing": 0.0, "validation": 0.0}
TINY = Scale(Data("bundled", train=50, test=80), hours=0.01, seeds=2, settings={**ADAM, "epochs": 1})
SMALL = Scale(BUNDLED_SMALL, hours=0.8, seeds=3, settings={**ADAM, "epochs": 6})
PAPER = Scale(IMAGENET, hours=1000.0, seeds=3, recipe="paper")
METHOD = (
    "GoogLeNet as published, without BatchNorm, with LRN and its auxiliary heads, but for what is compared. On small "
    "images its stem keeps the resolution, and it starts from He's initialisation, with which it trains sooner; Adam."
)
SETTLE = "Whether it is so on ImageNet, where these modules were made for: `--scale paper --data imagenet=FOLDER`."


def arms(**variants: dict[str, Any]) -> dict[str, tuple[Arm, ...]]:
    """The arms by scale: at `paper` the published initialisation, else He's."""

    def of(init: dict[str, str]) -> tuple[Arm, ...]:
        return tuple(Arm(name, Training("googlenet", {**init, **variant})) for name, variant in variants.items())

    return {"tiny": of({"init": "he"}), "small": of({"init": "he"}), "paper": of({})}


def scales(by_scale: dict[str, tuple[Arm, ...]], *also: Arm, small: Scale = SMALL) -> dict[str, Scale]:
    declared = {"tiny": TINY, "small": small, "paper": PAPER}
    return {name: replace(scale, arms=(*also, *by_scale[name])) for name, scale in declared.items()}


# --- 8: where the pooling branch pools -------------------------------------------------------------------------------

POOL_ORDER = Claim(
    number=8,
    slug="pool-order",
    title="In the pooling branch the pool comes before the 1×1 convolution, not behind it",
    statement=(
        "The fourth branch of an Inception module pools all channels of its input and then projects them; to project "
        "first, and pool the few channels that are left, would be cheaper to pool, but worse."
    ),
    published=(("none", "the papers draw one order, and do not compare"),),
    sources=(
        "Szegedy et al. (arXiv 1409.4842, Figure 2b) put the pool first, and give no reason for the order. With a "
        "convolution alone the two would differ little: max-pooling and a non-negative combination of channels nearly "
        "commute. ReLU and negative weights make the difference.",
        "Both orders have the same weights and, at stride 1, the same multiply-adds; pooling first compares all "
        "channels of the input, pooling last only those that are left.",
    ),
    method=METHOD,
    settle=SETTLE,
    parts=(
        Part("1×1 first − pool first, test error", "test_error", {"1×1 first": 1, "pool first": -1}, above=0),
        Part("likewise, training error", "train_error", {"1×1 first": 1, "pool first": -1}, above=0, decides=False),
        Part("likewise, seconds of training", "seconds", {"1×1 first": 1, "pool first": -1}, unit="s", decides=False),
    ),
    scales=scales(
        arms(**{"pool first": {}, "1×1 first": {"pool_order": "1x1-first"}}),
        small=Scale(FASHION, hours=2.8, seeds=3, settings={**ADAM, "epochs": 10, "batch_size": 64}),
    ),
    published_verdict="not measured",
)

# --- 9: the most useful branch ---------------------------------------------------------------------------------------

BRANCHES = tuple(f"branch{i}" for i in range(1, 5))  # series of branch_masses


def rank(says: str, figure: str, decides: bool = False) -> Part:
    return Part(says, f"rank_{figure}", {"GoogLeNet": 1}, above=0, unit="rank correlation", decides=decides)


def looked_at(**variant: Any) -> Arm:
    return Arm("GoogLeNet", Training("googlenet", variant, probes=(branch_usefulness,), watched=(branch_masses,)))


HEBB = Claim(
    number=9,
    slug="branch-weights",
    title="The most useful branch gets the largest weights",
    statement=(
        "An Inception module offers 1×1, 3×3, 5×5 and pooling side by side, and training is to strengthen what is "
        "useful: “neurons that fire together, wire together”."
    ),
    published=(("none", "the paper names Hebb's principle as its motivation, and measures nothing of it"),),
    sources=(
        "Szegedy et al. (arXiv 1409.4842, §3) say that the architecture is inspired by the Hebbian principle. Nothing "
        "in the loss or in the updates implements it: weights follow the gradient, as everywhere.",
        "What is measured here is a measurement of ours, not a formula of the paper.",
    ),
    method=(
        f"{METHOD} Usefulness of a branch: how the loss on test images rises when the branch sends the mean of each "
        "of its channels, whatever it sees. Weights: the share of Σ|w| with which the next layers look at the "
        "branch; likewise the branch's own weights, its share of the activation, and of the gradient of the images' "
        "classes. For each module the rank correlation over its four branches, the mean over the nine modules. A "
        "branch of more channels has more of everything, so the same is shown per channel."
    ),
    settle="A network that is trained to the end, and more than four branches a module: the ranks of four are coarse.",
    arms=(looked_at(init="he"),),
    parts=(
        rank("weights behind the branch and its usefulness", "weights_behind", decides=True),
        rank("the same per channel", "weights_behind_per_channel", decides=True),
        rank("its own weights", "own_weights"),
        rank("its own weights, per channel", "own_weights_per_channel"),
        rank("activation", "activation"),
        rank("activation, per channel", "activation_per_channel"),
        rank("gradient", "gradient"),
        rank("gradient, per channel", "gradient_per_channel"),
    ),
    scales={
        "tiny": TINY,
        "small": replace(SMALL, hours=0.3),
        "paper": replace(PAPER, arms=(looked_at(),)),
    },
    charts=(
        Chart("Share of the weights behind each branch, mean of the modules", "epoch", "share", series=BRANCHES),
        *LEARNING,
    ),
    published_verdict="not measured",
)  # fmt: skip

# --- 15: factorised convolutions -------------------------------------------------------------------------------------


def cheaper(says: str, arm: str) -> Part:
    return Part(says, "multiply_adds", {"5×5": 1, arm: -1}, above=0, unit="multiply-adds an image", exact=True)


FACTORISED = Claim(
    number=15,
    slug="factorised",
    title="Factorised convolutions keep accuracy for less",
    statement=(
        "Two 3×3 convolutions in place of each 5×5, or a 1×n and an n×1 in place of each n×n, cost less and are no "
        "less accurate."
    ),
    published=(
        ("5×5 as two 3×3: cost", "28 % less (18/25), in multiply-adds and parameters"),
        ("3×3 as 3×1 and 1×3: cost", "33 % less"),
        ("the two 3×3 with ReLU in both, against linear and ReLU: top-1 accuracy", "77.2 against 76.2 % (Fig. 2)"),
        ("Inception-v2 with factorised 7×7: top-1 error", "22.8 → 21.6 %"),
    ),
    sources=(
        "Szegedy et al. (arXiv 1512.00567, §3). Asymmetric factors, they found, do “not work well on early layers”, "
        "but on maps of 12 to 20 pixels; here they stand in all modules.",
        "What their table compares are whole networks that differ in more than the factors.",
    ),
    method=f"{METHOD} Both of the two convolutions widen the map by the same factor, as §3.1 of the paper has it.",
    settle=SETTLE,
    parts=(
        Part("two 3×3 − 5×5, test error", "test_error", {"two 3×3": 1, "5×5": -1}, below=MARGIN),
        Part("1×n and n×1 − n×n, test error", "test_error", {"1×n, n×1": 1, "5×5": -1}, below=MARGIN),
        cheaper("what two 3×3 save", "two 3×3"),
        cheaper("what 1×n and n×1 save", "1×n, n×1"),
    ),
    scales=scales(arms(**{"5×5": {}, "two 3×3": {"factorised": "3x3"}, "1×n, n×1": {"factorised": "nx1"}})),
)

# --- 19: concatenation or addition -----------------------------------------------------------------------------------


def projection_costs(bench: Bench, seed: int) -> Figures:
    """What it takes to add a module's branches: a projection of each to the width of the sum."""
    rows, shares = [], []
    for name, (channels, side) in INPUTS.items():
        n1, r3, n3, r5, n5, pool = googlenet.TABLE[name]
        width = n1 + n3 + n5 + pool
        module = cost(
            f"conv 1x1 {channels}->{n1} | conv 1x1 {channels}->{r3}, conv 3x3 {r3}->{n3} | "
            f"conv 1x1 {channels}->{r5}, conv 5x5 {r5}->{n5} | pool 3x3, conv 1x1 {channels}->{pool}",
            side,
        )
        projections = cost(" | ".join(f"conv 1x1 {n}->{width}" for n in (n1, n3, n5, pool)), side)
        shares.append(projections.weights / module.weights)
        rows.append([name, f"{n1}, {n3}, {n5}, {pool}", str(width), f"{module.weights:,}", f"{projections.weights:,}",
                     f"{100 * shares[-1]:.0f} %"])  # fmt: skip
    head = ["module", "channels of the branches", "of the result", "weights", "of projections to that width", "share"]
    return {"smallest_share": 100 * min(shares), TABLES: [{"title": "What adding takes", "head": head, "rows": rows}]}


CONCATENATION = Claim(
    number=19,
    slug="concatenation",
    title="Branches are concatenated, since adding needs matched dimensions",
    statement=(
        "Maps of 64, 128, 32 and 32 channels can be laid side by side as they are; to be added they must first be "
        "projected to one width, which costs what could be spent on filters."
    ),
    published=(("none", "the papers concatenate, and do not compare"),),
    sources=(
        "GoogLeNet (arXiv 1409.4842) took 1×1 convolutions from Network in Network (arXiv 1312.4400), where they mix "
        "channels; that a concatenation followed by a 1×1 *is* a sum of projections is arithmetic: the four "
        "projections together are one 1×1 convolution of the concatenated branches.",
        "Adding without projections is what ResNet does, where all maps of a stage have the same width; "
        "Inception-ResNet (arXiv 1602.07261) later concatenated, projected and added.",
    ),
    method=(
        f"{METHOD} Where branches are added, each is projected to the width of the sum, and all are narrower by the "
        "same factor, the largest with which a module has no more parameters than the one that concatenates."
    ),
    settle=SETTLE,
    parts=(
        Part("added − concatenated, test error", "test_error", {"added": 1, "concatenated": -1}, above=0),
        Part("projections to the full width, least", "smallest_share", {"counted": 1}, above=0,
             unit="% of the module", exact=True),
        Part("parameters, concatenated − added", "parameters", {"concatenated": 1, "added": -1}, unit="parameters",
             exact=True, decides=False),
    ),
    scales=scales(
        arms(concatenated={}, added={"join": "add"}), Arm("counted", Measuring(projection_costs))
    ),
    columns={**TRAINED, "smallest_share": "least share of projections, %|.0f"},
    published_verdict="not measured",
)  # fmt: skip

CLAIMS = (POOL_ORDER, HEBB, FACTORISED, CONCATENATION)
