"""Claims 5, 6 and 7: what convolutions cost, counted where it can be counted and measured where it cannot."""

from __future__ import annotations

import math
from dataclasses import replace

from minicnn.models import googlenet
from minicnn.study.claim import LEARNING, TABLES, TRAINED, Arm, Chart, Claim, Figures, Part, Scale
from minicnn.study.claims import vgg
from minicnn.study.claims.scales import BUNDLED_SMALL, IMAGENET
from minicnn.study.engine import Bench
from minicnn.study.measuring import Measuring
from minicnn.study.timing import convolution_speed
from minicnn.study.training import Training
from minicnn.summary import Cost, cost

# --- 5: stacked 3x3 --------------------------------------------------------------------------------------------------

# (what, one large convolution, the stack that sees as much, the map's side before it)
STACKS = {
    "5×5, 256 channels": ("conv 5x5 256->256", "conv 3x3 256->256 x2", 56),
    "7×7, 256 channels": ("conv 7x7 256->256", "conv 3x3 256->256 x3", 56),
    "5×5, 128 to 256": ("conv 5x5 128->256", "conv 3x3 128->256 x2", 56),
    "5×5, 128 to 227": ("conv 5x5 128->227", "conv 3x3 128->227 x2", 56),
    "7×7, 128 to 256": ("conv 7x7 128->256", "conv 3x3 128->256 x3", 56),
    "stem 5×5/2, 3 to 64": ("conv 5x5/2 3->64", "conv 3x3/2 3->64, conv 3x3 64->64", 224),
    "stem 7×7/2, 3 to 64": ("conv 7x7/2 3->64", "conv 3x3/2 3->64, conv 3x3 64->64 x2", 224),
    "stem 7×7/2, as Inception-v3": ("conv 7x7/2 3->64", "conv 3x3/2 3->32, conv 3x3 32->32, conv 3x3 32->64", 224),
}


def stacked_costs(bench: Bench, seed: int) -> Figures:
    """Each stack's weights, multiply-adds and activations as a multiple of those of the large convolution."""
    figures: Figures = {}
    rows = []
    for name, (large, stack, side) in STACKS.items():
        one, several = cost(large, side), cost(stack, side)
        for field in ("weights", "multiply_adds", "activations"):
            figures[f"{field}, {name}"] = getattr(several, field) / getattr(one, field)
        rows += [_row(f"{name}: {layers}", found) for layers, found in ((large, one), (stack, several))]
    head = ["layers", "weights", "multiply-adds", "activations", "im2col buffer", "sees, pixels"]
    return {**figures, TABLES: [{"title": "Counted, for one image", "head": head, "rows": rows}]}


def _row(name: str, found: Cost) -> list[str]:
    numbers = (found.weights, found.multiply_adds, found.activations, found.columns, found.receptive_field)
    return [name, *(f"{number:,}" for number in numbers)]


def counted(
    says: str, figure: str, above: float = -math.inf, below: float = math.inf, unit: str = "times as many"
) -> Part:
    return Part(says, figure, {"counted": 1}, above, below, unit, exact=True)


def timed(name: str, size: int, count: int, **sizes: int) -> Arm:
    return Arm(name, Measuring(convolution_speed, {"size": size, "count": count, **sizes}))


def timed_stacks(**sizes: int) -> tuple[Arm, ...]:
    return (
        timed("one 5×5", 5, 1, **sizes),
        timed("two 3×3", 3, 2, **sizes),
        timed("one 7×7", 7, 1, **sizes),
        timed("three 3×3", 3, 3, **sizes),
    )


COUNTED = Arm("counted", Measuring(stacked_costs))
VGG_B = (Arm("VGG-B", Training("vgg-b")), Arm("VGG-B with 5×5", Training("vgg-b-5x5")))
PAPER_SIZES = {"channels": 256, "side": 56, "batch": 32, "repeats": 20}

STACKED = Claim(
    number=5,
    slug="stacked-filters",
    title="Stacked 3×3 replace 5×5 and 7×7 with fewer parameters and more activations, but are not always cheaper",
    statement=(
        "Two 3×3 convolutions see what one 5×5 sees, three what one 7×7 sees, with fewer weights and more "
        "activations; but they take more memory, and are dearer where channels grow and at the stem."
    ),
    published=(
        ("weights of two 3×3 against one 5×5, of three against one 7×7, at equal width", "18/25, 27/49"),
        ("VGG-B with each pair of 3×3 as one 5×5: top-1 error, centre crop", "7 % higher than B"),
    ),
    sources=(
        "Where a story says that *two* 3×3 replace a 7×7: two see 5×5, **three** see 7×7 (Simonyan & Zisserman, arXiv "
        "1409.1556, §2.3).",
        "That 3×3 need more operations is true only where channels grow: two of them, from c to o to o channels, cost "
        "less than one 5×5 if and only if o < 16/9·c; three cost less than a 7×7 if and only if o < 20/9·c. At a "
        "stage that doubles the channels two 3×3 are dearer than a 5×5 (27 against 25), three are still cheaper than "
        "a 7×7; at the stem, where 3 channels become 64, stacks are eight times as dear.",
        "VGG-B with 5×5 has more weights, but *fewer* multiply-adds than B (9.356 against 11.308 billion), for its "
        "pairs stand where channels grow.",
    ),
    method=(
        "Counted: exactly, from the sizes. Measured: a step forward and backward, with ReLU, at equal width, the "
        "median of several; megabytes are those of the maps that it keeps. Trained: VGG-B against VGG-B "
        "with 5×5."
    ),
    settle=vgg.SETTLE,
    arms=(COUNTED, *timed_stacks(channels=64, side=28, batch=8, repeats=5), *VGG_B),
    parts=(
        counted("weights, two 3×3 against 5×5", "weights, 5×5, 256 channels", below=1),
        counted("weights, three 3×3 against 7×7", "weights, 7×7, 256 channels", below=1),
        counted("activations, two 3×3 against 5×5", "activations, 5×5, 256 channels", above=1),
        counted("activations, three 3×3 against 7×7", "activations, 7×7, 256 channels", above=1),
        counted("multiply-adds where channels double, against 5×5", "multiply_adds, 5×5, 128 to 256", above=1),
        counted("multiply-adds at the stem, against 7×7/2", "multiply_adds, stem 7×7/2, 3 to 64", above=1),
        Part("memory: two 3×3 − one 5×5", "megabytes", {"two 3×3": 1, "one 5×5": -1}, unit="MB", decides=False),
        Part("memory: three 3×3 − one 7×7", "megabytes", {"three 3×3": 1, "one 7×7": -1}, unit="MB", decides=False),
        Part("time: one 5×5 − two 3×3", "milliseconds", {"one 5×5": 1, "two 3×3": -1}, unit="ms", decides=False),
        Part("time: one 7×7 − three 3×3", "milliseconds", {"one 7×7": 1, "three 3×3": -1}, unit="ms", decides=False),
        Part("trained: B with 5×5 − B, test error", "test_error", {"VGG-B with 5×5": 1, "VGG-B": -1}, above=0),
    ),
    scales={
        "tiny": replace(
            vgg.TINY, arms=(COUNTED, *timed_stacks(channels=32, side=14, batch=4, repeats=3), *VGG_B)
        ),
        "small": Scale(BUNDLED_SMALL, hours=0.5, seeds=3, settings={**vgg.ADAM, "epochs": 8}),
        "paper": Scale(IMAGENET, hours=1000.0, seeds=3, recipe="paper", settings=vgg.PAPER_SETTINGS,
                       arms=(COUNTED, *timed_stacks(**PAPER_SIZES), *VGG_B)),
    },
    columns={
        "milliseconds": "ms|.2f", "megabytes": "MB|.1f", "torch_milliseconds": "PyTorch, ms|.2f", **TRAINED,
    },
    charts=tuple(chart._replace(arms=tuple(arm.name for arm in VGG_B)) for chart in LEARNING),
)  # fmt: skip

# --- 6: widths -------------------------------------------------------------------------------------------------------

WIDTHS = (*range(60, 69), 96, 112, *range(126, 131), 256)


def widths(**sizes: int) -> tuple[Arm, ...]:
    return tuple(
        Arm(str(width), Measuring(convolution_speed, {"size": 3, "count": 1, "channels": width, **sizes}))
        for width in WIDTHS
    )


def faster(says: str, width: int, *others: int, decides: bool = True) -> Part:
    """That a width is processed at a higher rate than others on the mean."""
    of = {str(width): 1.0} | {str(other): -1 / len(others) for other in others}
    return Part(says, "rate", of, above=0, unit="10⁹ multiply-adds a second", decides=decides)


WIDTHS_CLAIM = Claim(
    number=6,
    slug="widths",
    title="Filter counts in multiples (powers) of two run fastest on parallel hardware",
    statement=(
        "Layers of 64, 128 or 256 filters are computed at a higher rate than layers of 63 or 65: their channels fill "
        "vectors, cache lines and tiles without a rest."
    ),
    published=(("none", "the papers choose such widths, and do not measure others"),),
    sources=(
        "Nothing in the networks’ mathematics prefers a power of two. What hardware prefers are multiples of a "
        "vector's length (8 or 16 floats on a CPU), of the panels of a matrix product (of a library's own choice), of "
        "32 threads on a GPU. A kernel that is written for panels of 8 channels is at its best at multiples of 8 by "
        "construction, ours too: so the rates of PyTorch, which makes other choices, stand beside ours where it is "
        "installed.",
    ),
    method=(
        "One 3×3 convolution with ReLU, as many filters as channels, a step forward and backward; the rate counts "
        "useful multiply-adds only. Each “seed” is a round over all widths with other numbers, so that a machine that "
        "slows down slows down all of them."
    ),
    settle="Another processor, or `--device cuda`: it is a statement about hardware and kernels, not about networks.",
    arms=widths(side=28, batch=8, repeats=5),
    parts=(
        faster("64 against 63 and 65", 64, 63, 65),
        faster("128 against 127 and 129", 128, 127, 129),
        faster("64 against 62 and 66, which are even", 64, 62, 66),
        faster("64 against 60 and 68, multiples of 4", 64, 60, 68, decides=False),
        faster("128, a power of two, against 96 and 112, multiples of 16", 128, 96, 112, decides=False),
        faster("256 against 128", 256, 128, decides=False),
    ),
    scales={
        "tiny": Scale(None, hours=0.01, seeds=3, arms=widths(side=14, batch=2, repeats=3)),
        "small": Scale(None, hours=0.05, seeds=10),
        "paper": Scale(None, hours=0.05, seeds=20, arms=widths(side=56, batch=64, repeats=20)),
    },
    columns={
        "milliseconds": "ms|.2f", "rate": "10⁹ multiply-adds/s|.1f", "torch_rate": "PyTorch, 10⁹ multiply-adds/s|.1f",
    },
    charts=(
        Chart("Rate over the filters", "filters", "10⁹ multiply-adds a second", across=("rate", "torch_rate")),
        Chart("Around 64", "filters", "10⁹ multiply-adds a second", across=("rate", "torch_rate"),
              arms=tuple(map(str, range(60, 69)))),
    ),
    published_verdict="not measured",
)  # fmt: skip

# --- 7: reductions ---------------------------------------------------------------------------------------------------

# Each module's input: its channels, and the side of its map (GoogLeNet's Table 1).
INPUTS = {
    "3a": (192, 28), "3b": (256, 28), "4a": (480, 14), "4b": (512, 14), "4c": (512, 14), "4d": (512, 14),
    "4e": (528, 14), "5a": (832, 7), "5b": (832, 7),
}  # fmt: skip


def module(name: str, channels: int, kind: str) -> str:
    """An Inception module, written down: `reduced` (Figure 2b), `direct` without reductions, or `naive` (Figure 2a)."""
    n1, reduce3, n3, reduce5, n5, projection = googlenet.TABLE[name]
    large = {3: (reduce3, n3), 5: (reduce5, n5)}
    branches = [f"conv 1x1 {channels}->{n1}"]
    for size, (reduce, width) in large.items():
        first = f"conv 1x1 {channels}->{reduce}, conv {size}x{size} {reduce}" if kind == "reduced" else None
        branches.append(f"{first or f'conv {size}x{size} {channels}'}->{width}")
    branches.append("pool 3x3" if kind == "naive" else f"pool 3x3, conv 1x1 {channels}->{projection}")
    return " | ".join(branches)


def reductions(bench: Bench, seed: int) -> Figures:
    """Each module with and without its reductions, and the whole network."""
    rows, ratios = [], []
    sums = dict.fromkeys(("reduced", "direct", "naive"), 0)
    weights = dict.fromkeys(sums, 0)
    grown = INPUTS["3a"][0]  # channels where nothing projects the pool's branch: each module adds its own to them
    for name, (channels, side) in INPUTS.items():
        costs = {kind: cost(module(name, grown if kind == "naive" else channels, kind), side) for kind in sums}
        for kind, found in costs.items():
            sums[kind] += found.multiply_adds
            weights[kind] += found.weights
        ratios.append(costs["direct"].multiply_adds / costs["reduced"].multiply_adds)
        n1, _, n3, _, n5, _ = googlenet.TABLE[name]
        grown += n1 + n3 + n5
        cells = [f"{costs[kind].weights:,} / {costs[kind].multiply_adds / 1e6:,.1f}" for kind in sums]
        rows.append([name, *cells, f"{ratios[-1]:.2f}"])
    rest = [
        cost("conv 7x7/2 3->64", 224),
        cost("conv 1x1 64->64, conv 3x3 64->192", 56),
        cost("conv 1x1 1024->1000", 1),
    ]
    stem = sum(found.multiply_adds for found in rest)
    total = {kind: (stem + sums[kind]) / 1e9 for kind in sums}
    cells = [f"{sum(r.weights for r in rest) + weights[kind]:,} / {1000 * total[kind]:,.1f}" for kind in sums]
    rows.append(["whole network", *cells, f"{total['direct'] / total['reduced']:.2f}"])
    head = ["module: weights / 10⁶ multiply-adds", "with reductions", "without", "without, pool not projected", "ratio"]
    return {
        "smallest_ratio": min(ratios),
        "network_ratio": total["direct"] / total["reduced"],
        "naive_ratio": total["naive"] / total["reduced"],
        "billions": total["reduced"],
        "last_channels": grown,
        TABLES: [{"title": "Counted, for one image of 224 pixels", "head": head, "rows": rows}],
    }


COUNTED_ONLY = Scale(None, hours=0.0, seeds=1)
REDUCTIONS = Claim(
    number=7,
    slug="reductions",
    title="1×1 reductions make GoogLeNet affordable",
    statement=(
        "Before each 3×3 and 5×5 of an Inception module a 1×1 convolution reduces the channels that they look at; "
        "without these the network would cost several times as much."
    ),
    published=(
        ("modules 3a to 5b, parameters", "159, 380, 364, 437, 463, 580, 840, 1072, 1388 K"),
        ("likewise, multiply-adds", "128, 304, 73, 88, 100, 119, 170, 54, 71 M"),
        ("the budget", "1.5 billion multiply-adds at inference"),
    ),
    sources=(
        "Szegedy et al. (arXiv 1409.4842, §3): without reductions even a modest number of 5×5 convolutions is "
        "“prohibitively expensive”, and more so once the pool's branch, which keeps all its channels, is added.",
        "Their Table 1 is not exact: its K is 1024; 4c's 463K does not fit its own 100M, and 4a, 4d, 4e, 5a and 5b "
        "are off by up to 5 %. Its 2.7K and 34M for the first layer are those of a *separable* 7×7; with the plain "
        "one the network has 1.583 billion multiply-adds, a little above the budget of 1.5.",
    ),
    method=(
        "Counted exactly from Table 1. “Without”: the 3×3 and 5×5 look at all channels, the pool's projection stays. "
        "“Pool not projected”: Figure 2(a), whose channels grow from module to module, for the pool passes all of "
        "them on."
    ),
    arms=(Arm("counted", Measuring(reductions)),),
    parts=(
        counted(
            "whole network without reductions, in multiply-adds of that with", "network_ratio", above=2, unit="times"
        ),
        counted("likewise, the module that gains least", "smallest_ratio", above=1, unit="times"),
        counted("whole network where the pool is not projected either", "naive_ratio", above=2, unit="times"),
    ),
    scales=dict.fromkeys(("tiny", "small", "paper"), COUNTED_ONLY),
    columns={"billions": "10⁹ multiply-adds|.3f", "last_channels": "channels at the end, pool not projected|,.0f"},
    charts=(),
)

CLAIMS = (STACKED, WIDTHS_CLAIM, REDUCTIONS)
