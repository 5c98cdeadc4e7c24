"""VGG: depth from 3x3 convolutions alone (Simonyan & Zisserman, arXiv 1409.1556)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from minicnn import init as initialise
from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.layers import LRN, BatchNorm, Conv2d, Dropout, Linear, MaxPool, Module, ReLU, Sequential
from minicnn.models.model import SMALL, Model, side_after

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
    as torchvision's `vgg*_bn`, which keep the biases).

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
        init: str = "he",
    ):
        if init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
        with initialise.skipped():  # drawn below
            self.features, self.map_shape = self._features(table, in_channels, image_size, bn)
            hidden = 4096 if image_size > SMALL else 512
            self.classifier = Sequential(
                Linear(math.prod(self.map_shape), hidden, from_map=self.map_shape), ReLU(), Dropout(0.5),
                Linear(hidden, hidden), ReLU(), Dropout(0.5),
                Linear(hidden, num_classes),
            )  # fmt: skip
        for layer in self.modules():
            if isinstance(layer, Conv2d):
                INITIALISATIONS[init](layer.weight)
            elif isinstance(layer, Linear):
                INITIALISATIONS["paper" if init == "he" else init](layer.weight)

    @staticmethod
    def _features(table: str, channels: int, image_size: int, bn: bool) -> tuple[Sequential, tuple[int, int, int]]:
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
                layers += [Conv2d(channels, width, size, pad=size // 2), *([BatchNorm(width)] if bn else []), ReLU()]
                channels = width
        return Sequential(*layers), (side, side, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten())

    def dense(self) -> DenseVGG:
        """The same network, with the same parameters, for images of any size from `image_size` up."""
        return DenseVGG(self)


class DenseVGG(Module):
    """A VGG whose fully connected layers slide over the map as convolutions; its class scores are averaged (§3.2).

    A fully connected layer on a flattened 7x7 map is a 7x7 convolution that fits in one place only; the next ones are
    1x1 convolutions. On a larger image the same weights give a map of class scores, as if the network had looked at
    every position 32 pixels apart, for little more than the price of one.
    """

    def __init__(self, vgg: VGG):
        self.vgg = vgg

    def forward(self, x: Tensor) -> Tensor:
        x = self.vgg.features(x)  # (N, H, W, 512)
        size = self.vgg.map_shape[0]
        for layer in self.vgg.classifier:
            if isinstance(layer, Linear):
                w = layer.weight.reshape(size, size, x.shape[3], -1)  # (in, out) is (KH·KW·C, O) already
                x, size = ops.conv2d(x, w, layer.bias), 1
            else:
                x = layer(x)
        return x.mean(axis=(1, 2))  # (N, H', W', classes) -> (N, classes)


MODELS: dict[str, Callable[..., VGG]] = {name: partial(VGG, row) for name, row in TABLE.items()}
