"""ZFNet: AlexNet with a finer first layer, as the look of its filters suggested (Zeiler & Fergus, arXiv 1311.2901)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minicnn import init as initialise
from minicnn.autograd import Tensor
from minicnn.layers import LCN, LRN, Conv2d, Linear, MaxPool, Module, ReLU, Sequential
from minicnn.models.model import SMALL, Model, fully_connected, map_after

# The filters of convolutions 3, 4 and 5: of Figure 3, and of the widened network of Table 3.
WIDTHS = {False: (384, 384, 256), True: (512, 1024, 512)}

NORMALISATIONS: dict[str, Callable[[], Module]] = {
    "lrn": partial(LRN, size=5, alpha=1e-4, beta=0.75, k=2.0),
    "lcn": partial(LCN, size=9),
}

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he": initialise.he_normal,
    "paper": partial(initialise.normal, std=0.01),
}


class ZFNet(Model):
    """AlexNet in one piece, its 11x11 filters every 4 pixels made 7x7 every 2; contrast is normalised after the pools.

    The paper normalises "across feature maps" and cites both AlexNet, for LRN, and Jarrett et al., for LCN, without
    constants: `norm="lrn"` has AlexNet's, `norm="lcn"` a window of 9x9. `wide=True` is the network of Table 3 with 512,
    1024 and 512 filters in the last three convolutions.

    Up to 64 pixels the first two convolutions keep the map's size, and the hidden layers have 512 units, not 4096.

    Biases start from 0, weights as `init` says: "he" keeps the signal's size, "paper" is N(0, 0.01²) (§3), from which
    the network sets out slowly; the last layer starts from N(0, 0.01²) in any case. In training, the paper holds the
    root mean square of each filter at 0.1 at most: `optim.clip_filter_rms`.
    Parameters are named in torchvision's manner: `features.N`, `classifier.N`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        *,
        norm: str = "lrn",
        wide: bool = False,
        init: str = "he",
    ):
        if norm not in NORMALISATIONS:
            raise ValueError(f"norm must be 'lrn' or 'lcn', got {norm!r}")
        if init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
        n3, n4, n5 = WIDTHS[wide]
        normalised, pool = NORMALISATIONS[norm], partial(MaxPool, 3, stride=2, ceil=True)

        with initialise.skipped():  # drawn below
            if image_size <= SMALL:
                conv1, conv2 = Conv2d(in_channels, 96, 7, pad=3), Conv2d(96, 256, 5, pad=2)
            else:
                conv1, conv2 = Conv2d(in_channels, 96, 7, stride=2, pad=1), Conv2d(96, 256, 5, stride=2)
            self.features = Sequential(  # with the side of the map at 224 pixels
                conv1, ReLU(), pool(), normalised(),  # 110, 55
                conv2, ReLU(), pool(), normalised(),  # 26, 13
                Conv2d(256, n3, 3, pad=1), ReLU(),
                Conv2d(n3, n4, 3, pad=1), ReLU(),
                Conv2d(n4, n5, 3, pad=1), ReLU(), pool(),  # 6
            )  # fmt: skip
            self.classifier = fully_connected(map_after(self.features, "features", image_size), num_classes, image_size)
        *layers, last = (layer for layer in self.modules() if isinstance(layer, Conv2d | Linear))
        for layer in layers:
            INITIALISATIONS[init](layer.weight)
        initialise.normal(last.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten())


MODELS: dict[str, Callable[..., Model]] = {"zfnet": ZFNet}
