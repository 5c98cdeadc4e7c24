"""Claims 1 to 4: VGG's columns A to E, of which neighbours differ in one thing each."""

from __future__ import annotations

from minicnn.study.claim import Arm, Claim, Data, Part, Scale
from minicnn.study.claims.scales import BUNDLED_SMALL, FASHION, IMAGENET
from minicnn.study.training import Training

A = Arm("A", Training("vgg-a"))
A_LRN = Arm("A-LRN", Training("vgg-a-lrn"))
B = Arm("B", Training("vgg-b"))
C = Arm("C", Training("vgg-c"))
C_LINEAR = Arm("C, linear 1×1", Training("vgg-c", {"linear_1x1": True}))
D = Arm("D", Training("vgg-d"))
E = Arm("E", Training("vgg-e"))

MARGIN = 0.5  # points: less is no help worth its memory and time

ADAM = {"batch_size": 32, "augment": "shift:1,flip", "label_smoothing": 0.0, "validation": 0.0}
TINY_IMAGES = Data("bundled", train=60, test=100)  # these networks are a hundred times as dear as a small ResNet
TINY = Scale(TINY_IMAGES, hours=0.01, seeds=2, settings={**ADAM, "epochs": 2})
# Table 3's column of training images at S = 256, seen once: the middle 224 pixels.
PAPER_SETTINGS = {"augment": "scale-jitter:256:256:224,flip,colour"}


def scales(arms: int, *, small: Scale | None = None) -> dict[str, Scale]:
    """The three scales of a claim with so many arms: each takes about the same time, VGG-E twice VGG-A's."""
    shared = Scale(BUNDLED_SMALL, hours=0.14 * arms, seeds=3, settings={**ADAM, "epochs": 8})
    paper = Scale(IMAGENET, hours=500.0 * arms, seeds=3, recipe="paper", settings=PAPER_SETTINGS)
    return {"tiny": TINY, "small": small or shared, "paper": paper}


def error(name: str, of: dict[str, float], **claimed: float | bool) -> Part:
    return Part(name, "test_error", of, **claimed)  # type: ignore[arg-type]


TABLE_3 = "top-1 error on ImageNet's validation images, single scale (S = Q = 256)"
METHOD = (
    "Columns of VGG's Table 1, trained alike. At 28 pixels, which the small scales use, the hidden fully connected "
    "layers have 512 units and the fifth pool is left out. Networks without BatchNorm: He's initialisation, Adam."
)
SETTLE = (
    "The published differences are about a point, and come from 1.3 million images in a thousand classes; an "
    "experiment of a few thousand small images can miss them. `--scale paper --data imagenet=FOLDER` is the published "
    "recipe."
)

LRN_CLAIM = Claim(
    number=1,
    slug="lrn",
    title="LRN does not help",
    statement="Local response normalisation, which AlexNet had, does nothing for VGG but cost memory and time.",
    published=((f"A, A-LRN: {TABLE_3}", "29.6, 29.7 %"),),
    sources=(
        "Simonyan & Zisserman (arXiv 1409.1556, §2.1, §4.1): LRN “does not improve the performance on the ILSVRC "
        "dataset, but leads to increased memory consumption and computation time”, so B to E have none. One LRN "
        "layer, behind the first convolution, was tried.",
        "Krizhevsky et al. (2012, §3.3) had found 1.4 points of top-1 error in AlexNet, where ReLU’s responses are not "
        "bounded and inputs are not normalised otherwise.",
        "VGG’s only normalisation is that one LRN. Networks called `vgg16_bn` are torchvision’s, of later years.",
    ),
    method=METHOD + " A-LRN has AlexNet's constants (n = 5, k = 2, α = 1e-4, β = 0.75).",
    settle=SETTLE,
    arms=(A, A_LRN),
    parts=(
        error("what LRN gains: A − A-LRN, test error", {"A": 1, "A-LRN": -1}, below=MARGIN),
        Part("what LRN costs: A-LRN − A", "seconds", {"A-LRN": 1, "A": -1}, above=0, unit="seconds", decides=False),
    ),
    scales=scales(2, small=Scale(FASHION, hours=1.2, seeds=3, settings={**ADAM, "epochs": 15, "batch_size": 64})),
)

DEPTH = Claim(
    number=2,
    slug="two-more-layers",
    title="Two more layers help",
    statement="VGG-B, which is A with a second convolution in each of the first two stages, has a lower error than A.",
    published=((f"A, B: {TABLE_3}", "29.6, 28.7 %"),),
    sources=(
        "Simonyan & Zisserman (arXiv 1409.1556, §4.1): “the classification error decreases with the increased ConvNet "
        "depth”.",
    ),
    method=METHOD,
    settle=SETTLE,
    arms=(A, B),
    parts=(error("what two layers gain: A − B, test error", {"A": 1, "B": -1}, above=0),),
    scales=scales(2),
)

ONE_BY_ONE = Claim(
    number=3,
    slug="one-by-one",
    title="Added 1×1 convolutions help, for they add activations",
    statement=(
        "VGG-C, which is B with a 1×1 convolution at the end of the last three stages, has a lower error than B: more "
        "activations make the decision function more non-linear. The story appeals to the theorem of universal "
        "approximation."
    ),
    published=((f"B, C: {TABLE_3}", "28.7, 28.1 %"),),
    sources=(
        "Simonyan & Zisserman (arXiv 1409.1556, §4.1): C “performs better than” B, so “the additional non-linearity "
        "does help”. But C has more layers and 0.6 million more weights besides the activations; they did not "
        "separate these. The third arm does: C with *linear* 1×1 layers has the same weights and depth, and no "
        "activation more than B.",
        "What the theorem does not imply: that of universal approximation (Cybenko 1989; Hornik 1991) says that *one* "
        "hidden layer, if it is wide enough, comes as near to any continuous function on a bounded set as one likes. "
        "It says that weights exist, not that training finds them; nothing of how many units it takes, nor of how "
        "well the function does on images it has not been trained on. By its standard B is no less universal than C: "
        "it gives no reason to add an activation. What speaks for depth are results on how many units shallow "
        "networks need for what deep ones do with few (such as Telgarsky 2016), and experiments as this one.",
    ),
    method=METHOD,
    settle=SETTLE,
    arms=(B, C, C_LINEAR),
    parts=(
        error("what 1×1 layers gain: B − C, test error", {"B": 1, "C": -1}, above=0),
        error("of it by their activations: C linear − C", {"C, linear 1×1": 1, "C": -1}, above=0),
        error("of it by depth and weights: B − C linear", {"B": 1, "C, linear 1×1": -1}, above=0, decides=False),
    ),
    scales=scales(3),
)

THREE_BY_THREE = Claim(
    number=4,
    slug="three-by-three",
    title="3×3 in place of the added 1×1 helps more",
    statement="VGG-D has 3×3 convolutions where C has 1×1, and is better than C: what lies around a pixel matters too.",
    published=((f"B, C, D, E: {TABLE_3}", "28.7, 28.1, 27.0, 27.3 %"),),
    sources=(
        "Simonyan & Zisserman (arXiv 1409.1556, §4.1): “while the additional non-linearity does help (C is better "
        "than B), it is also important to capture spatial context by using conv. filters with non-trivial receptive "
        "fields (D is better than C)”.",
        "Depth alone is no longer it: at S = 256 E, with 19 layers, is a little *worse* than D (27.3 against 27.0 %); "
        "with scale jittering it is level (25.5 against 25.6 %).",
    ),
    method=METHOD,
    settle=SETTLE,
    arms=(B, C, D, E),
    parts=(
        error("what 3×3 gains over 1×1: C − D, test error", {"C": 1, "D": -1}, above=0),
        error("what 1×1 gains: B − C", {"B": 1, "C": -1}, above=0, decides=False),
        error("what three more layers gain: D − E", {"D": 1, "E": -1}, decides=False),
    ),
    scales=scales(4),
)

CLAIMS = (LRN_CLAIM, DEPTH, ONE_BY_ONE, THREE_BY_THREE)
