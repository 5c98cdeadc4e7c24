"""GoogLeNet, or Inception-v1: modules of four parallel branches (Szegedy et al., arXiv 1409.4842)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minicnn import init as initialise
from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.layers import (
    LRN,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Module,
    Sequential,
    conv_bn_relu,
)
from minicnn.models.model import SMALL, Model, side_after

# Table 1: the channels of each module's convolutions. The four branches give #1x1 + #3x3 + #5x5 + pool proj channels.
# fmt: off
TABLE = {
    #     #1x1  #3x3   #3x3  #5x5   #5x5  pool
    #           reduce       reduce       proj
    "3a": (64,    96,  128,    16,    32,   32),
    "3b": (128,  128,  192,    32,    96,   64),
    "4a": (192,   96,  208,    16,    48,   64),
    "4b": (160,  112,  224,    24,    64,   64),
    "4c": (128,  128,  256,    24,    64,   64),
    "4d": (112,  144,  288,    32,    64,   64),
    "4e": (256,  160,  320,    32,   128,  128),
    "5a": (256,  160,  320,    32,   128,  128),
    "5b": (384,  192,  384,    48,   128,  128),
}
# fmt: on

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "caffe": initialise.caffe_xavier,
    "he": initialise.he_normal,
    "torchvision": partial(initialise.normal, std=0.01),
}


class ConvUnit(Module):
    """A convolution with its ReLU; with `bn` a BatchNorm between them, in place of the bias."""

    conv_bn_pairs = (("conv", "bn"),)

    def __init__(self, channels: int, width: int, size: int, *, stride: int = 1, bn: bool):
        self.conv = Conv2d(channels, width, size, stride=stride, pad=size // 2, bias=not bn)
        self.bn = BatchNorm(width, eps=1e-3) if bn else None

    def forward(self, x: Tensor) -> Tensor:
        return conv_bn_relu(x, self.conv, self.bn)


def inception(name: str, channels: int, *, large: int, bn: bool) -> Concat:
    """The module of Figure 2(b): 1x1 convolutions reduce what the 3x3 and the `large` (5x5) filters have to look at."""
    n1, n3_reduce, n3, n5_reduce, n5, pool_proj = TABLE[name]
    unit = partial(ConvUnit, bn=bn)
    return Concat(
        branch1=unit(channels, n1, 1),
        branch2=Sequential(unit(channels, n3_reduce, 1), unit(n3_reduce, n3, 3)),
        branch3=Sequential(unit(channels, n5_reduce, 1), unit(n5_reduce, n5, large)),
        branch4=Sequential(MaxPool(3, stride=1, pad=1), unit(channels, pool_proj, 1)),
    )


class AdaptiveAvgPool(Module):
    """Averages over a grid of `size` x `size` windows that cover the map, whatever its size, and may overlap.

    Window i of n positions goes from ⌊i·n/size⌋ to ⌈(i+1)·n/size⌉: on 14 from 0, 3, 7 and 10, four wide each.
    """

    def __init__(self, size: int):
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        def windows(n: int) -> list[slice]:
            return [slice(i * n // self.size, -(-(i + 1) * n // self.size)) for i in range(self.size)]

        x = ops.concat(*(x[:, rows].mean(axis=1, keepdims=True) for rows in windows(x.shape[1])), axis=1)
        return ops.concat(*(x[:, :, cols].mean(axis=2, keepdims=True) for cols in windows(x.shape[2])), axis=2)


class AuxiliaryHead(Module):
    """A small classifier on an intermediate map: its loss sends gradient into the middle of the network (§5)."""

    def __init__(self, channels: int, *, side: int, num_classes: int, adaptive: bool, bn: bool):
        size = min(5, side)
        self.avgpool = AdaptiveAvgPool(4) if adaptive else AvgPool(size, stride=3)
        side = 4 if adaptive else (side - size) // 3 + 1
        self.conv = ConvUnit(channels, 128, 1, bn=bn)
        self.fc1 = Linear(side * side * 128, 1024, from_map=(side, side, 128))
        self.dropout = Dropout(0.7)
        self.fc2 = Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.avgpool(x))  # (N, 4, 4, 128)
        x = ops.relu(self.fc1(x.flatten()))
        return self.fc2(self.dropout(x))


class GoogLeNet(Model):
    """Nine Inception modules between a stem and a global average, with two auxiliary heads while it is trained.

    In training it returns (main, aux1, aux2) logits, whose losses `models.loss` adds up; in evaluation, or with
    `aux_logits=False`, the main logits only. LRN has Caffe's constants (the paper gives none). Up to 64 pixels the
    stem is a 3x3 convolution of stride 1 without a pool, and the heads' 5x5 pool shrinks where the map is smaller.

    `bn=True` normalises after each convolution and drops its bias and the LRN. `variant="torchvision"` is the network
    of torchvision's weights: `bn`, 3x3 filters in the 5x5 branch, a 2x2 fourth pool, adaptive pools before the
    auxiliary heads, dropout 0.2. Those weights expect images as (x - 0.5) / 0.5.

    Weights start as `init` says, by default as in Caffe's replica ("caffe"): from U(±sqrt(3 / fan_in)), biases from
    0.2. "he" keeps the signal's size through all layers, which without BatchNorm trains sooner. "torchvision", the
    default of that variant, is N(0, 0.01²).
    Parameters are named as torchvision's: `conv1.conv`, `inception3a.branch2.0.conv`, `aux1.fc1`, `fc`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        *,
        variant: str = "paper",
        aux_logits: bool = True,
        bn: bool = False,
        init: str | None = None,
    ):
        if variant not in ("paper", "torchvision"):
            raise ValueError(f"variant must be 'paper' or 'torchvision', got {variant!r}")
        init = init or ("caffe" if variant == "paper" else "torchvision")
        if init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
        torchvision, small = variant == "torchvision", image_size <= SMALL
        bn = bn or torchvision
        unit = partial(ConvUnit, bn=bn)
        module = partial(inception, large=3 if torchvision else 5, bn=bn)
        halve = partial(MaxPool, 3, stride=2, ceil=True)
        normalise = Sequential if bn else partial(LRN, size=5, alpha=2e-5, beta=0.75, k=1.0)

        # The rows of Table 1, with the side of the map at 224 pixels.
        self.conv1 = unit(in_channels, 64, 3) if small else unit(in_channels, 64, 7, stride=2)  # 112
        self.maxpool1 = Sequential() if small else halve()  # 56
        self.norm1 = normalise()
        self.conv2 = unit(64, 64, 1)
        self.conv3 = unit(64, 192, 3)
        self.norm2 = normalise()
        self.maxpool2 = halve()  # 28
        self.inception3a = module("3a", 192)
        self.inception3b = module("3b", 256)
        self.maxpool3 = halve()  # 14
        self.inception4a = module("4a", 480)
        self.inception4b = module("4b", 512)
        self.inception4c = module("4c", 512)
        self.inception4d = module("4d", 512)
        self.inception4e = module("4e", 528)
        self.maxpool4 = MaxPool(2, ceil=True) if torchvision else halve()  # 7
        self.inception5a = module("5a", 832)
        self.inception5b = module("5b", 832)
        self.avgpool = GlobalAvgPool()
        self.dropout = Dropout(0.2 if torchvision else 0.4)
        self.fc = Linear(1024, num_classes)

        side, sides = image_size if small else (image_size + 1) // 2, {}  # sides: after each pool
        for name, layer in self.named_children():
            if isinstance(layer, MaxPool):
                sides[name] = side = side_after(layer, name, side, image_size)

        self.aux1 = self.aux2 = None
        if aux_logits:
            head = partial(AuxiliaryHead, side=sides["maxpool3"], num_classes=num_classes, adaptive=torchvision, bn=bn)
            self.aux1, self.aux2 = head(512), head(528)

        for layer in self.modules():
            if isinstance(layer, Conv2d | Linear):
                INITIALISATIONS[init](layer.weight)
                if init == "caffe" and layer.bias is not None:
                    initialise.constant(layer.bias, 0.2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.conv3(self.conv2(x))
        x = self.maxpool2(self.norm2(x))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x4a = self.inception4a(x)
        x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))
        x = self.maxpool4(self.inception4e(x4d))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(self.avgpool(x)))
        if not (self.training and self.aux1 and self.aux2):
            return logits
        return logits, self.aux1(x4a), self.aux2(x4d)


MODELS = {"googlenet": GoogLeNet}
