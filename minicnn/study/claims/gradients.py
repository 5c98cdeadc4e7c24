"""Claim 18: the gradient on its way to the first layers, by activation, depth, BatchNorm and shortcuts."""

from __future__ import annotations

from minicnn.study.claim import LEARNING, TRAINED, Arm, Chart, Claim, Part, Scale
from minicnn.study.claims.normalisation import ADAM
from minicnn.study.claims.scales import BUNDLED_TINY, FASHION, IMAGENET
from minicnn.study.measuring import Measuring
from minicnn.study.probes import start_gradients
from minicnn.study.training import Training

ACTIVATIONS = ("sigmoid", "tanh", "relu")
DECADE = 1.0  # a gradient that reaches the first layer at a tenth of its size vanishes more than one that does not


def name_of(activation: str, depth: int, norm: str, shortcut: bool) -> str:
    return f"{activation} {depth}{', BN' if norm == 'bn' else ''}{', shortcuts' if shortcut else ''}"


def starts(depths: tuple[int, ...], images: int, draws: int) -> tuple[Arm, ...]:
    """Networks that have learned nothing yet: every activation, depth, with and without BatchNorm and shortcuts."""
    return tuple(
        Arm(
            f"start: {name_of(activation, depth, norm, shortcut)}",
            Measuring(
                start_gradients,
                {
                    "model": "chain",
                    "variant": {"activation": activation, "depth": depth, "norm": norm, "shortcut": shortcut},
                    "images": images,
                    "draws": draws,
                },
                images=True,
                seconds=images * draws * depth / 5000,
            ),
        )
        for depth in depths
        for activation in ACTIVATIONS
        for norm in ("none", "bn")
        for shortcut in (False, True)
    )


def trained(depth: int) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            name_of(activation, depth, norm, False),
            Training("chain", {"activation": activation, "depth": depth, "norm": norm}),
        )
        for activation in ACTIVATIONS
        for norm in ("none", "bn")
    )


def parts(depth: int) -> tuple[Part, ...]:
    """Parts for networks of one depth, the one that is trained."""

    def start(activation: str, norm: str = "none", shortcut: bool = False) -> str:
        return f"start: {name_of(activation, depth, norm, shortcut)}"

    def decades(says: str, of: dict[str, float], above: float, decides: bool = True) -> Part:
        return Part(says, "decades", of, above=above, unit="powers of ten", decides=decides)

    def learned(says: str, one: str, other: str, decides: bool = True) -> Part:
        return Part(says, "train_error", {one: 1, other: -1}, above=0, decides=decides)

    sigmoid, tanh, relu = (name_of(activation, depth, "none", False) for activation in ACTIVATIONS)
    return (
        decades("the gradient shrinks more: sigmoid − ReLU", {start("sigmoid"): 1, start("relu"): -1}, DECADE),
        decades("the gradient shrinks more: tanh − ReLU", {start("tanh"): 1, start("relu"): -1}, DECADE),
        learned("training error: sigmoid − ReLU", sigmoid, relu),
        learned("training error: tanh − ReLU", tanh, relu),
        decades("sigmoid without − with BN", {start("sigmoid"): 1, start("sigmoid", "bn"): -1}, 0, decides=False),
        decades(
            "sigmoid without − with shortcuts", {start("sigmoid"): 1, start("sigmoid", "none", True): -1}, 0, False
        ),
        decades("ReLU with BN: how much the gradient shrinks", {start("relu", "bn"): 1}, 0, decides=False),
        learned("training error: sigmoid with BN − ReLU with BN", f"{sigmoid}, BN", f"{relu}, BN", decides=False),
    )


def charts(depth: int) -> tuple[Chart, ...]:
    names = tuple(arm.name for arm in trained(depth))
    plain = tuple(f"start: {name}" for name in names)
    around = tuple(f"{name}, shortcuts" for name in plain)
    series, x, y = "gradient at the start by layer", "activation, the first layer first", "norm of the gradient"
    return (
        Chart(f"The gradient at the start, depth {depth}, plain", x, y, series=series, arms=plain, log=True),
        Chart(f"The gradient at the start, depth {depth}, with shortcuts", x, y, series=series, arms=around, log=True),
        *(chart._replace(arms=names) for chart in LEARNING),
    )


VANISHING = Claim(
    number=18,
    slug="vanishing-gradients",
    title="ReLU made depth trainable: with sigmoid or tanh the gradient vanishes on its way to the first layers",
    statement=(
        "A sigmoid's slope is at most 1/4, and a saturated tanh's nearly 0: multiplied layer by layer, the gradient "
        "that reaches the first layers of a deep network is next to nothing, and they do not learn. ReLU's slope is 1."
    ),
    published=(
        ("Inception with sigmoid in place of ReLU, and BN (x5): top-1 accuracy", "69.8 %"),
        ("the same without BN", "no better than chance"),
    ),
    sources=(
        "Ioffe & Szegedy (arXiv 1502.03167, §4.2.2): with BatchNorm even a deep *sigmoid* network trains: it is the "
        "distribution of what the activation is given that decides, not its formula alone.",
        "Glorot & Bengio (2010) showed the same without BatchNorm: tanh with an initialisation that keeps the "
        "gradient's size trains five layers well.",
        "What vanishing gradients do *not* explain is the degradation of plain networks with BatchNorm and ReLU "
        "(claim 10): He et al. (arXiv 1512.03385, §4.1) verified that their gradients have healthy norms.",
    ),
    method=(
        "{sigmoid, tanh, ReLU} × depth × {no BN, BN} × {plain, shortcuts}, a row of 3×3 convolutions, each with the "
        "initialisation that suits its activation (Glorot's for sigmoid and tanh, He's for ReLU). At the start: the "
        "norm of the loss's gradient with respect to each activation's output, on training images, the mean over "
        "several draws of the weights for each seed; figured is by how many powers of ten it shrinks from the last "
        "layer to the first. Six of them, the plain ones of one depth, are trained."
    ),
    settle="Deeper networks, and longer training; where an activation's part is undecided, more seeds.",
    arms=(*starts((8, 14, 20, 32), images=32, draws=20), *trained(20)),
    parts=parts(20),
    scales={
        "tiny": Scale(BUNDLED_TINY, hours=0.02, seeds=2, settings={**ADAM, "epochs": 2, "batch_size": 32},
                      arms=(*starts((8,), images=16, draws=2), *trained(8)), parts=parts(8)),
        "small": Scale(FASHION, hours=2.2, seeds=3, settings={**ADAM, "epochs": 20, "batch_size": 64}),
        "paper": Scale(IMAGENET, hours=400.0, seeds=3, settings={
            **ADAM, "epochs": 60, "batch_size": 256, "schedule": "cosine",
            "augment": "scale-jitter:256:480:224,flip,colour",
        }, arms=(*starts((10, 18, 34), images=32, draws=20), *trained(18)), parts=parts(18)),
    },
    columns={**TRAINED, "decades": "gradient shrinks by, powers of ten|.2f"},
    charts=(*charts(20), *charts(8), *charts(18)),  # of these a scale has one depth
)  # fmt: skip

CLAIMS = (VANISHING,)
