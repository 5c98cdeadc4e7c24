"""VGG: depth from 3x3 convolutions alone (Simonyan & Zisserman, arXiv 1409.1556)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minicnn import init as initialise
from minicnn.autograd import Tensor
from minicnn.layers import LRN, BatchNorm, Conv2d, Linear, MaxPool, Module, ReLU, Sequential
from minicnn.models.dense import Dense
from minicnn.models.model import Model, fully_connected, side_after

# Table 1: 256 is a 3x3 convolution to 256 channels with its ReLU (the paper's conv3-256), 1-256 a 1x1, 5-256 a 5x5;
# M is a 2x2 max pool, LRN AlexNet's normalisation. The last row is the control of §4.1, B's pairs of 3x3 as one 5x5.
# fmt: off
TABLE = {
    "vgg-a":     "64 M      128 M      256 256 M          512 512 M          512 512 M",
    "vgg-a-lrn": "64 LRN M  128 M      256 256 M          512 512 M          512 512 M",
    "vgg-b":     "64 64 M   128 128 M  256 256 M          512 512 M          512 512 M",
    "vgg-c":     "64 64 M   128 128 M  256 256 1-256 M    512 512 1-512 M    512 512 1-512 M",
    "vgg-d":     "64 64 M   128 128 M  256 256 256 M      512 512 512 M      512 512 512 M",
    "vgg-e":     "64 64 M   128 128 M  256 256 256 256 M  512 512 512 512 M  512 512 512 512 M",
    "vgg-b-5x5": "5-64 M    5-128 M    5-256 M            5-512 M            5-512 M",
}
# fmt: on
ALIASES = {"vgg11": "vgg-a", "vgg13": "vgg-b", "vgg16": "vgg-d", "vgg19": "vgg-e"}

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he": initialise.he_normal,
    "glorot": initialise.glorot_uniform,
    "paper": partial(initialise.normal, std=0.01),
}


class VGG(Model):
    """Convolutions of stride 1 that keep the map's size, five 2x2 pools that halve it, three fully connected layers.

    Up to 64 pixels the hidden fully connected layers have 512 units, not 4096, and the fifth pool is left out where
    the map is down to one pixel. `bn=True` puts a BatchNorm between each convolution and its ReLU (not in the paper;
    as torchvision's `vgg*_bn`, which keep the biases). `linear_1x1=True` leaves out the ReLUs behind the 1x1
    convolutions of C, which then add weights and depth, but no activation.

    Biases start from 0, weights as `init` says. "he" keeps the signal's size through the convolutions and, as
    torchvision, starts the fully connected layers from N(0, 0.01²), so that scores begin small. "glorot" is what the
    authors found, after submission, to make pre-training unnecessary (§3.1); each ReLU halves the signal's variance.
    "paper" is N(0, 0.01²), with which the authors trained A, to start deeper nets from its layers. (They print 0.01 as
    the *variance*. Like everybody since we take it for the standard deviation: one of 0.1 multiplies the signal by two
    million on its way through A.)

    Parameters are named as torchvision's: `features.N`, `classifier.N`.
    """

    def __init__(
        self,
        table: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        *,
        bn: bool = False,
        linear_1x1: bool = False,
        init: str = "he",
    ):
        if init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
        if linear_1x1 and " 1-" not in table:
            raise ValueError("linear_1x1 needs 1x1 convolutions, which vgg-c alone has")
        with initialise.skipped():  # drawn below
            self.features, self.map_shape = self._features(table, in_channels, image_size, bn, linear_1x1)
            self.classifier = fully_connected(self.map_shape, num_classes, image_size)
        for layer in self.modules():
            if isinstance(layer, Conv2d):
                INITIALISATIONS[init](layer.weight)
            elif isinstance(layer, Linear):
                INITIALISATIONS["paper" if init == "he" else init](layer.weight)

    @staticmethod
    def _features(
        table: str, channels: int, image_size: int, bn: bool, linear_1x1: bool
    ) -> tuple[Sequential, tuple[int, int, int]]:
        """The layers of a row of the table, and the (H, W, C) of the map that they make of an image."""
        layers: list[Module] = []
        side, pools = image_size, table.count("M")
        for entry in table.split():
            if entry == "M":
                pools -= 1
                if side == 1 and pools == 0:
                    continue
                pool = MaxPool(2)
                side = side_after(pool, f"features.{len(layers)}", side, image_size)
                layers.append(pool)
            elif entry == "LRN":
                layers.append(LRN(size=5, alpha=1e-4, beta=0.75, k=2.0))
            else:
                size, width = map(int, entry.split("-") if "-" in entry else ["3", entry])
                layers += [Conv2d(channels, width, size, pad=size // 2), *([BatchNorm(width)] if bn else [])]
                if size > 1 or not linear_1x1:
                    layers.append(ReLU())
                channels = width
        return Sequential(*layers), (side, side, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten())

    def dense(self) -> Dense:
        """The same network, with the same parameters, for images of any size from `image_size` up."""
        return Dense(self)


MODELS: dict[str, Callable[..., VGG]] = {name: partial(VGG, row) for name, row in TABLE.items()}
