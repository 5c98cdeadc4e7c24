"""AlexNet: the network that won ImageNet 2012 (Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep
convolutional neural networks"), and its author's later version for one GPU (Krizhevsky, arXiv 1404.5997)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minicnn import init as initialise
from minicnn.autograd import Tensor
from minicnn.layers import LRN, Conv2d, Dropout, Linear, MaxPool, Module, ReLU, Sequential
from minicnn.models.googlenet import AdaptiveAvgPool
from minicnn.models.model import SMALL, Model, fully_connected, map_after

# The filters of the five convolutions; their sizes, and the pools of 3x3 pixels every 2, stand in the class.
WIDTHS = {
    "paper": (96, 256, 384, 384, 256),
    "torchvision": (64, 192, 384, 256, 256),
}

# What is drawn for convolutions and for hidden linear layers, and the bias where the paper has 1.
INITIALISATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], float]] = {
    "paper": (partial(initialise.normal, std=0.01), partial(initialise.normal, std=0.01), 1.0),
    "caffe": (partial(initialise.normal, std=0.01), partial(initialise.normal, std=0.005), 0.1),
    "he": (initialise.he_normal, initialise.he_normal, 0.0),
}


class AlexNet(Model):
    """Five convolutions and three fully connected layers; the first two maps are normalised after their ReLU.

    Convolutions 2, 4 and 5 see only half of the maps before them, `groups=2`, because the paper's network lay on two
    GPUs (Figure 2); `groups=1` joins the halves. The paper says 224 pixels, but its first map of 55 takes 227. Pools
    round up, so that both sizes end in 6x6. Up to 64 pixels the first convolution is 5x5 and keeps the map's size, as
    in the authors' nets for CIFAR-10, and the hidden layers have 512 units instead of 4096.

    `variant="torchvision"` is the network of torchvision's weights, and of the later paper: one group, other widths, no
    normalisation, dropout before the hidden layers, pools that round down, and after them a mean over 6x6 windows
    wherever the map has another size.

    Weights start as `init` says. "paper" (§5): from N(0, 0.01²), with biases of 1 in convolutions 2, 4, 5 and in the
    hidden layers, where ReLUs then have positive inputs from the start, and 0 elsewhere. "caffe" has 0.1 for the 1, and
    N(0, 0.005²) in the hidden layers. "he" keeps the signal's size, with biases of 0. The last layer starts from
    N(0, 0.01²) in any case.
    Parameters are named as torchvision's: `features.N`, `classifier.N`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 227,
        *,
        variant: str = "paper",
        groups: int | None = None,
        init: str = "paper",
    ):
        if variant not in WIDTHS:
            raise ValueError(f"variant must be 'paper' or 'torchvision', got {variant!r}")
        if init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
        published, small = variant == "paper", image_size <= SMALL
        halves = groups or (2 if published else 1)
        n1, n2, n3, n4, n5 = WIDTHS[variant]
        pool = partial(MaxPool, 3, stride=2, ceil=published)

        def normalised() -> list[Module]:
            return [LRN(size=5, alpha=1e-4, beta=0.75, k=2.0)] if published else []

        with initialise.skipped():  # drawn below
            if small:
                stem = Conv2d(in_channels, n1, 5, pad=2)
            else:
                stem = Conv2d(in_channels, n1, 11, stride=4, pad=0 if published else 2)
            self.features = Sequential(  # with the side of the map at 227 pixels
                stem, ReLU(), *normalised(), pool(),  # 55, 27
                Conv2d(n1, n2, 5, pad=2, groups=halves), ReLU(), *normalised(), pool(),  # 13
                Conv2d(n2, n3, 3, pad=1), ReLU(),
                Conv2d(n3, n4, 3, pad=1, groups=halves), ReLU(),
                Conv2d(n4, n5, 3, pad=1, groups=halves), ReLU(), pool(),  # 6
            )  # fmt: skip
            side, _, _ = map_after(self.features, "features", image_size)
            self.avgpool: Module = Sequential()
            if not (published or small or side == 6):
                self.avgpool, side = AdaptiveAvgPool(6), 6
            self.classifier = fully_connected((side, side, n5), num_classes, image_size)
            if not published:
                linear1, relu1, _, linear2, relu2, _, last = self.classifier
                self.classifier = Sequential(Dropout(0.5), linear1, relu1, Dropout(0.5), linear2, relu2, last)
        self._initialise(*INITIALISATIONS[init])

    def _initialise(self, draw_conv: Callable, draw_hidden: Callable, bias: float) -> None:
        convolutions = [layer for layer in self.features if isinstance(layer, Conv2d)]
        *hidden, last = (layer for layer in self.classifier if isinstance(layer, Linear))
        for conv in convolutions:
            draw_conv(conv.weight)
        for linear in hidden:
            draw_hidden(linear.weight)
        initialise.normal(last.weight, std=0.01)
        _, conv2, _, conv4, conv5 = convolutions
        for started in (conv2.bias, conv4.bias, conv5.bias, *(linear.bias for linear in hidden)):
            if started is not None:
                initialise.constant(started, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten())


MODELS: dict[str, Callable[..., Model]] = {"alexnet": AlexNet}
