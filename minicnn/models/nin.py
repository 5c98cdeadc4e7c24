"""Network in Network: 1x1 convolutions behind each convolution, no fully connected layer (Lin et al., arXiv 1312.4400).

The paper gives no widths; these are the authors' published configurations, for ImageNet and for CIFAR.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minicnn import init as initialise
from minicnn.autograd import Tensor
from minicnn.layers import AvgPool, Conv2d, Dropout, GlobalAvgPool, MaxPool, Module, ReLU, Sequential
from minicnn.models.model import SMALL, Model, map_after

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he": initialise.he_normal,
    "paper": partial(initialise.normal, std=0.05),
}


def mlpconv(channels: int, size: int, widths: tuple[int, int, int], *, stride: int = 1, pad: int = 0) -> Sequential:
    """A convolution and two 1x1 convolutions, with ReLUs: a small perceptron looks at each window (Figure 2)."""
    n1, n2, n3 = widths
    return Sequential(
        Conv2d(channels, n1, size, stride=stride, pad=pad), ReLU(),
        Conv2d(n1, n2, 1), ReLU(),
        Conv2d(n2, n3, 1), ReLU(),
    )  # fmt: skip


def imagenet(in_channels: int, num_classes: int) -> dict[str, Module]:
    """Four mlpconv layers, with the side of the map at 224 pixels."""
    pool = partial(MaxPool, 3, stride=2, ceil=True)
    return {
        "mlpconv1": mlpconv(in_channels, 11, (96, 96, 96), stride=4),  # 54
        "pool1": pool(),  # 27
        "mlpconv2": mlpconv(96, 5, (256, 256, 256), pad=2),
        "pool2": pool(),  # 13
        "mlpconv3": mlpconv(256, 3, (384, 384, 384), pad=1),
        "pool3": pool(),  # 6
        "dropout": Dropout(0.5),
        "mlpconv4": mlpconv(384, 3, (1024, 1024, num_classes), pad=1),
        "avgpool": GlobalAvgPool(),
    }


def cifar(in_channels: int, num_classes: int) -> dict[str, Module]:
    """Three mlpconv layers, with the side of the map at 32 pixels."""
    return {
        "mlpconv1": mlpconv(in_channels, 5, (192, 160, 96), pad=2),
        "pool1": MaxPool(3, stride=2, ceil=True),  # 16
        "dropout1": Dropout(0.5),
        "mlpconv2": mlpconv(96, 5, (192, 192, 192), pad=2),
        "pool2": AvgPool(3, stride=2, ceil=True),  # 8
        "dropout2": Dropout(0.5),
        "mlpconv3": mlpconv(192, 3, (192, 192, num_classes), pad=1),
        "avgpool": GlobalAvgPool(),
    }


class NIN(Model, Sequential):
    """A chain of mlpconv layers whose last one has a map for each class: its mean is the score, after a ReLU too.

    Up to 64 pixels it is the network for CIFAR, above that the one for ImageNet; `num_classes` None means what those
    data have, 10 and 1000.

    Biases start from 0, weights as `init` says: "he" keeps the signal's size up to the last convolution. That starts
    from N(0, 0.01²) and a bias of 1, so that the ReLU behind it lets every class through: one whose map is 0 all over
    has no gradient, and stays so. "paper" is N(0, 0.05²) throughout, as in the authors' configuration for CIFAR.
    """

    def __init__(
        self, num_classes: int | None = None, in_channels: int = 3, image_size: int = 224, *, init: str = "he"
    ):
        if init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
        small = image_size <= SMALL
        self.num_classes = num_classes or (10 if small else 1000)
        with initialise.skipped():  # drawn below
            super().__init__(**(cifar if small else imagenet)(in_channels, self.num_classes))
        map_after(self, "", image_size)
        for layer in self.modules():
            if isinstance(layer, Conv2d):
                INITIALISATIONS[init](layer.weight)
        if init == "he":
            *_, weight, bias = self.parameters()
            initialise.normal(weight, std=0.01)
            initialise.constant(bias, 1.0)


MODELS: dict[str, Callable[..., Model]] = {"nin": NIN}
