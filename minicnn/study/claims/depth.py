"""Claims 10 and 17: plain and residual networks of growing depth, whose trainings they share."""

from __future__ import annotations

from minicnn.study.claim import LEARNING, TRAINED, Arm, Chart, Claim, Part, Scale
from minicnn.study.claims.scales import BUNDLED_TINY, CIFAR10, FASHION_DEEP
from minicnn.study.probes import responses
from minicnn.study.training import Training

MARGIN = 0.5  # points: a deeper residual net may be so much worse and still not count as one that underfits


def arm(name: str, wave: int = 1) -> Arm:
    return Arm(name, Training(name, probes=(responses,)), wave)


ARMS = tuple(arm(f"{kind}{depth}") for depth in (20, 56) for kind in ("plain", "resnet"))
BETWEEN = tuple(arm(f"{kind}{depth}", wave=2) for depth in (32, 44) for kind in ("plain", "resnet"))

# The paper's recipe for CIFAR-10 has its rate drop at a half and at three quarters of the training; so has ours.
SMALL = {
    "epochs": 40, "batch_size": 64, "lr": 0.1, "nesterov": False, "weight_decay": 1e-4, "label_smoothing": 0.0,
    "schedule": "warmup:1+multistep:20,30:0.1", "augment": "crop:2,flip", "validation": 0.0,
}  # fmt: skip
TINY = SMALL | {"epochs": 3, "batch_size": 32, "schedule": "warmup:1+multistep:2:0.1"}

SCALES = {
    "tiny": Scale(BUNDLED_TINY, hours=0.02, seeds=2, settings=TINY, arms=ARMS),
    "small": Scale(FASHION_DEEP, hours=6.0, seeds=3, settings=SMALL),
    "paper": Scale(CIFAR10, hours=30.0, seeds=5, recipe="paper"),
}

DEGRADATION = Claim(
    number=10,
    slug="depth-degradation",
    title="Deeper plain networks underfit; residual networks do not",
    statement=(
        "Layers added to a plain network raise its *training* error, so it is not overfitting that makes deep plain "
        "networks bad; with shortcuts the deeper network is the better one."
    ),
    published=(
        ("plain-18, plain-34: ImageNet top-1 error, 10-crop", "27.94, 28.54 %"),
        ("ResNet-18, ResNet-34 (option A), likewise", "27.88, 25.03 %"),
        ("ResNet-20, 32, 44, 56, 110: CIFAR-10 test error", "8.75, 7.51, 7.17, 6.97, 6.43 %"),
        ("plain-20 to 56: CIFAR-10", "curves only (Fig. 6): deeper is worse in training and in test"),
        ("plain-110: CIFAR-10", "an error above 60 %, not shown"),
    ),
    sources=(
        "He et al. (arXiv 1512.03385, §4.1) write that the degradation is *unlikely* to be caused by vanishing "
        "gradients: BatchNorm keeps the signals forward and the gradients backward at healthy norms, as they "
        "verified. They leave open why plain nets get worse, and conjecture exponentially low convergence rates. That "
        "residual networks “cure the vanishing gradient” is a story told later.",
        "The paper has no table of plain networks on CIFAR-10, only curves, so what can be compared is their order.",
    ),
    method=(
        "The networks of §4.2, 6n + 2 layers with 16, 32 and 64 channels, with and without shortcuts (option A, "
        "without parameters), so that a plain network and its residual twin have the same weights. The training error "
        "is that of the last weights on all training images, without augmentation, with BatchNorm's averaged "
        "statistics."
    ),
    settle=(
        "More seeds narrow the interval: repeat the command with a larger --seeds, which keeps what is finished. A "
        "plain network of 56 layers shows the degradation more clearly the longer both are trained: --scale paper "
        "trains for 64 thousand steps on CIFAR-10, as the authors did."
    ),
    arms=ARMS + BETWEEN,
    parts=(
        Part("plain-56 − plain-20, training error", "train_error", {"plain56": 1, "plain20": -1}, above=0),
        Part("ResNet-56 − ResNet-20, training error", "train_error", {"resnet56": 1, "resnet20": -1}, below=MARGIN),
        Part(
            "what depth costs a plain net beyond what it costs a residual one",
            "train_error",
            {"plain56": 1, "plain20": -1, "resnet56": -1, "resnet20": 1},
            above=0,
        ),
        Part("plain-56 − plain-20, test error", "test_error", {"plain56": 1, "plain20": -1}, above=0, decides=False),
        Part(
            "ResNet-56 − ResNet-20, test error", "test_error", {"resnet56": 1, "resnet20": -1}, below=0, decides=False
        ),
    ),
    scales=SCALES,
)

RESPONSES = Claim(
    number=17,
    slug="residual-responses",
    title="Residual responses are smaller, and smaller still in deeper networks",
    statement=(
        "The layers of a residual network change their input only a little: the standard deviation of their responses "
        "is smaller than in a plain network, and smaller still in deeper residual networks."
    ),
    published=(("standard deviation of the layers' responses, CIFAR-10", "curves only (Fig. 7)"),),
    sources=(
        "He et al. (arXiv 1512.03385, §4.2, “Analysis of Layer Responses”) measure the output of each 3×3 layer after "
        "BatchNorm, before ReLU and addition. They read from it that residual functions are in general closer to zero "
        "than others, and that with more layers each one modifies the signal less.",
        "BatchNorm's output has the standard deviation |γ| on the images that it normalises: what is measured is how "
        "small the network has made its γ, weight decay included.",
    ),
    method=(
        "The trained networks of claim 10. For each layer the standard deviation of BatchNorm's output over test "
        "images, in evaluation mode; the verdict is on the mean over the layers of a network."
    ),
    settle="Longer training at --scale paper, where weight decay has time to make the γ of idle layers small.",
    arms=ARMS + BETWEEN,
    parts=(
        Part("plain-20 − ResNet-20", "response_std", {"plain20": 1, "resnet20": -1}, above=0, unit="std"),
        Part("plain-56 − ResNet-56", "response_std", {"plain56": 1, "resnet56": -1}, above=0, unit="std"),
        Part("ResNet-20 − ResNet-56", "response_std", {"resnet20": 1, "resnet56": -1}, above=0, unit="std"),
    ),
    scales=SCALES,
    columns={"response_std": "mean std of the responses|.3f", **TRAINED},
    charts=(
        Chart("Responses after BatchNorm", "layer", "standard deviation", series="response std by layer"),
        *LEARNING,
    ),
)

CLAIMS = (DEGRADATION, RESPONSES)
