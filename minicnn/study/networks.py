"""Networks that only studies train: 3x3 convolutions in a row, of which all else can be exchanged, and one more."""

from __future__ import annotations

from collections.abc import Callable

from minicnn import init, models
from minicnn.autograd import Tensor
from minicnn.layers import (
    LCN,
    LRN,
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Module,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
)
from minicnn.models.googlenet import TABLE, GoogLeNet, Inception
from minicnn.models.model import SMALL, Model
from minicnn.models.residual import ZeroPadding

# Each with the initialisation that keeps the size of its signal: He's for ReLU, Glorot's for what is linear near 0.
ACTIVATIONS: dict[str, tuple[type[Module], Callable[[Tensor], Tensor]]] = {
    "relu": (ReLU, init.he_normal),
    "tanh": (Tanh, init.glorot_normal),
    "sigmoid": (Sigmoid, init.glorot_normal),
}
# In front of the activation, and behind it; each made for a number of channels.
BEFORE: dict[str, Callable[[int], Module]] = {"bn": BatchNorm}
BEHIND: dict[str, Callable[[int], Module]] = {
    "bn-after": BatchNorm,
    "lrn-2012": lambda channels: LRN(size=5, alpha=1e-4, beta=0.75, k=2.0),  # AlexNet's constants
    "lcn": lambda channels: LCN(9),
    "lrn-2014": lambda channels: LRN(size=5, alpha=2e-5, beta=0.75, k=1.0),  # Caffe's for GoogLeNet
}
NORMS = ("none", *BEFORE, *BEHIND)


class Pair(Module):
    """Two convolutions whose second activation sees their input too, padded with zeros where the channels grow."""

    def __init__(self, body: Module, shortcut: Module, last: Module):
        self.body, self.shortcut, self.last = body, shortcut, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x) + self.shortcut(x))


class Chain(Model):
    """2·stages·n + 2 layers: a stem, n pairs of 3x3 convolutions on each of ever smaller and wider maps, one linear.

    Up to 64 pixels it has three stages of 16, 32 and 64 channels, so that depth 20 with `norm="bn"` is plain-20;
    above, a 7x7 stem of stride 2 with a pool and four stages of 64 to 512, so that depth 18 is plain-18. Parameters are
    drawn so that the signal keeps its size: He's initialisation for ReLU, Glorot's for tanh and sigmoid.

    depth       8, 14, 20, 26, 32 … for small images, 10, 18, 26, 34 … for large ones
    activation  "relu", "tanh" or "sigmoid"
    norm        "bn" in front of each activation, "bn-after", "lrn-2012", "lcn" or "lrn-2014" behind it, or "none"
    shortcut    add each pair's input to its result, in front of the activation
    dropout     share of the values that are dropped behind each pair in training
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        *,
        depth: int = 20,
        activation: str = "relu",
        norm: str = "bn",
        shortcut: bool = False,
        dropout: float = 0.0,
    ):
        small = image_size <= SMALL
        widths = (16, 32, 64) if small else (64, 128, 256, 512)
        pairs, rest = divmod(depth - 2, 2 * len(widths))
        if pairs < 1 or rest:
            raise ValueError(f"depth must be 2 more than a multiple of {2 * len(widths)}, got {depth}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")

        make, draw = ACTIVATIONS[activation]

        def conv(channels: int, width: int, size: int = 3, stride: int = 1) -> list[Module]:
            layer = Conv2d(channels, width, size, stride=stride, pad=size // 2, bias=not norm.startswith("bn"))
            draw(layer.weight)
            return [layer, *([BEFORE[norm](width)] if norm in BEFORE else [])]

        def active(width: int) -> list[Module]:
            return [make(), *([BEHIND[norm](width)] if norm in BEHIND else [])]

        channels = widths[0]
        if small:
            self.stem = Sequential(*conv(in_channels, channels), *active(channels))
        else:
            self.stem = Sequential(*conv(in_channels, channels, 7, 2), *active(channels), MaxPool(3, stride=2, pad=1))
        stack: list[Module] = []
        for width in widths:
            for i in range(pairs):
                stride = 2 if i == 0 and width > widths[0] else 1
                body = [*conv(channels, width, 3, stride), *active(width), *conv(width, width)]
                if shortcut:
                    around = ZeroPadding(channels, width, stride)
                    stack.append(Pair(Sequential(*body), around, Sequential(*active(width))))
                else:
                    stack += [*body, *active(width)]
                stack += [Dropout(dropout)] if dropout else []
                channels = width
        self.pairs = Sequential(*stack)
        self.avgpool = GlobalAvgPool()
        self.fc = Linear(channels, num_classes)
        draw(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.pairs(self.stem(x))))


def googlenet_with_shortcuts(
    num_classes: int = 1000, in_channels: int = 3, image_size: int = 224, *, init: str | None = None
) -> GoogLeNet:
    """GoogLeNet, and around each of its modules a shortcut: a 1x1 convolution, for each makes its map wider."""
    model = GoogLeNet(num_classes, in_channels, image_size, init=init)
    for name, module in list(model.named_children()):
        if isinstance(module, Inception):
            narrow = module.branch1.conv.weight.shape[2]  # type: ignore[attr-defined]
            n1, _, n3, _, n5, pool = TABLE[name.removeprefix("inception")]
            setattr(model, name, Residual(module, Conv2d(narrow, n1 + n3 + n5 + pool, 1, bias=False)))
    return model


models.register({"chain": Chain, "googlenet-shortcuts": googlenet_with_shortcuts})
