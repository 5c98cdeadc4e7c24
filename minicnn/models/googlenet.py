"""GoogLeNet, or Inception-v1: modules of four parallel branches (Szegedy et al., arXiv 1409.4842)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kernels.geometry import Padding, Pair, pair
from minicnn import init as initialise
from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.layers import (
    LCN,
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

NORMALISATIONS: dict[str, Callable[[], Module]] = {  # behind the first pool and the third convolution
    "lrn": partial(LRN, size=5, alpha=2e-5, beta=0.75, k=1.0),  # Caffe's constants
    "lcn": LCN,
    "bn": Sequential,  # each convolution has its own
    "none": Sequential,
}


class ConvUnit(Module):
    """A convolution with its ReLU, and with `bn` a BatchNorm between them, which makes a bias superfluous.

    `size` may be (KH, KW). Without `pad` a unit of stride 1 keeps the map's size.
    """

    conv_bn_pairs = (("conv", "bn"),)

    def __init__(
        self,
        channels: int,
        width: int,
        size: Pair,
        *,
        stride: int = 1,
        pad: Padding | None = None,
        bn: bool,
        bias: bool | None = None,
    ):
        kh, kw = pair(size)
        pad = (kh // 2, kw // 2) if pad is None else pad
        self.conv = Conv2d(channels, width, (kh, kw), stride=stride, pad=pad, bias=not bn if bias is None else bias)
        self.bn = BatchNorm(width, eps=1e-3) if bn else None

    def forward(self, x: Tensor) -> Tensor:
        return conv_bn_relu(x, self.conv, self.bn)


def convolution(channels: int, width: int, size: int, *, factorised: str | bool, bn: bool) -> list[Module]:
    """One convolution, or the two that see the same window for less (arXiv 1512.00567 §3): 3x3 twice, or 1xn and nx1.

    Both widen the map by the same factor, √(width / channels), as §3.1 there recommends, in eights of channels.
    """
    between = max(8, 8 * round(math.sqrt(channels * width) / 8))
    unit = partial(ConvUnit, bn=bn)
    if factorised == "3x3" and size == 5:
        return [unit(channels, between, 3), unit(between, width, 3)]
    if factorised == "nx1":
        return [unit(channels, between, (1, size)), unit(between, width, (size, 1))]
    return [unit(channels, width, size)]


class Inception(Concat):
    """The module of Figure 2(b): 1x1 convolutions reduce what the 3x3 and the `large` (5x5) filters have to look at.

    `widths` are six numbers as in a row of the table; the keywords are the network's.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        *,
        large: int = 5,
        reduce: bool = True,
        pool_order: str = "pool-first",
        factorised: str | bool = False,
        bn: bool = False,
    ):
        n1, n3_reduce, n3, n5_reduce, n5, pool_proj = widths
        unit = partial(ConvUnit, bn=bn)
        filters = partial(convolution, factorised=factorised, bn=bn)

        def branch(reduced: int, width: int, size: int) -> Sequential:
            if not reduce:
                return Sequential(*filters(channels, width, size))
            return Sequential(unit(channels, reduced, 1), *filters(reduced, width, size))

        pool, project = MaxPool(3, stride=1, pad=1), unit(channels, pool_proj, 1)
        super().__init__(
            branch1=unit(channels, n1, 1),
            branch2=branch(n3_reduce, n3, 3),
            branch3=branch(n5_reduce, n5, large),
            branch4=Sequential(pool, project) if pool_order == "pool-first" else Sequential(project, pool),
        )


def joined(widths: Sequence[int]) -> int:
    """The channels of a module's four branches side by side."""
    n1, _, n3, _, n5, pool_proj = widths
    return n1 + n3 + n5 + pool_proj


def added(channels: int, widths: Sequence[int], *, bn: bool = False, **parts: Any) -> Sequential:
    """Inception with its branches added, y = relu(Σ P_i · branch_i(x)), as wide as it and with no more parameters.

    Only maps of the same width can be added, so a 1x1 convolution P_i projects each branch to the width of the sum.
    Side by side the four P_i are the weights of one 1x1 convolution of the concatenated branches, and this is how the
    sum is computed here: to add is to concatenate and to mix.

    The projections alone would add the square of the width, 65,536 to the 163,328 weights of module 3a. To pay for them
    all branches are narrower by the same factor: the largest, in 1024ths, that needs no more parameters than Inception.
    """
    width = joined(widths)

    def narrower(share: int) -> Sequential:
        narrow = [max(1, n * share // 1024) for n in widths]
        branches = Inception(channels, narrow, bn=bn, **parts)
        return Sequential(branches=branches, projection=ConvUnit(joined(narrow), width, 1, bn=bn))

    def size(module: Module) -> int:
        return sum(tensor.size for tensor in module.parameters())

    with initialise.skipped():
        budget = size(Inception(channels, widths, bn=bn, **parts))
        share = bisect.bisect(range(1, 1025), budget, key=lambda share: size(narrower(share)))
    return narrower(share)


MODULES: dict[str, Callable[..., Module]] = {"concat": Inception, "add": added}

CHOICES: dict[str, tuple[str | bool, ...]] = {
    "variant": ("paper", "torchvision"),
    "norm": tuple(NORMALISATIONS),
    "pool_order": ("pool-first", "1x1-first"),
    "join": tuple(MODULES),
    "factorised": (False, "3x3", "nx1"),
    "init": tuple(INITIALISATIONS),
}


def check(**given: str | bool) -> None:
    """A ValueError for the first keyword whose value is none of its choices."""
    for keyword, value in given.items():
        choices = CHOICES[keyword]
        if value not in choices:
            listed = " or ".join(map(repr, choices)) if len(choices) == 2 else f"one of {', '.join(map(str, choices))}"
            raise ValueError(f"{keyword} must be {listed}, got {value!r}")


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

    `variant="torchvision"` is the network of torchvision's weights: BatchNorm, 3x3 filters in the 5x5 branch, a 2x2
    fourth pool, adaptive pools before the auxiliary heads, dropout 0.2. Those weights expect images as (x - 0.5) / 0.5.

    What the published network has can be exchanged, to see what it is good for:

    norm         "lrn"; "lcn" in its places; "bn" behind each convolution instead, and no biases; or "none".
                 `bn=True` is short for "bn", which torchvision's variant has by itself
    reduce       False leaves out the 1x1 convolutions before the 3x3 and 5x5; the pool's stays, to keep all widths
    pool_order   "pool-first", or "1x1-first" to pool what has been projected
    join         "concat", or "add" the branches, narrowed to the same number of parameters: see `added`
    factorised   "3x3" puts two 3x3 convolutions in place of each 5x5, "nx1" a 1xn and an nx1 in place of each nxn

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
        norm: str | None = None,
        reduce: bool = True,
        pool_order: str = "pool-first",
        join: str = "concat",
        factorised: str | bool = False,
        init: str | None = None,
    ):
        torchvision, small = variant == "torchvision", image_size <= SMALL
        init = init or ("torchvision" if torchvision else "caffe")
        if bn and norm not in (None, "bn"):
            raise ValueError(f"bn=True means norm='bn', but norm is {norm!r}")
        norm = norm or ("bn" if bn or torchvision else "lrn")
        check(variant=variant, norm=norm, pool_order=pool_order, join=join, factorised=factorised, init=init)
        if torchvision and factorised == "3x3":
            raise ValueError("factorised='3x3' needs 5x5 filters, which variant='torchvision' does not have")
        bn = norm == "bn"

        unit = partial(ConvUnit, bn=bn)
        large = 3 if torchvision else 5
        module = partial(MODULES[join], large=large, reduce=reduce, pool_order=pool_order, factorised=factorised, bn=bn)
        halve = partial(MaxPool, 3, stride=2, ceil=True)
        normalise = NORMALISATIONS[norm]

        # The rows of Table 1, with the side of the map at 224 pixels.
        self.conv1 = unit(in_channels, 64, 3) if small else unit(in_channels, 64, 7, stride=2)  # 112
        self.maxpool1 = Sequential() if small else halve()  # 56
        self.norm1 = normalise()
        self.conv2 = unit(64, 64, 1)
        self.conv3 = unit(64, 192, 3)
        self.norm2 = normalise()
        self.maxpool2 = halve()  # 28
        self.inception3a = module(192, TABLE["3a"])
        self.inception3b = module(256, TABLE["3b"])
        self.maxpool3 = halve()  # 14
        self.inception4a = module(480, TABLE["4a"])
        self.inception4b = module(512, TABLE["4b"])
        self.inception4c = module(512, TABLE["4c"])
        self.inception4d = module(512, TABLE["4d"])
        self.inception4e = module(528, TABLE["4e"])
        self.maxpool4 = MaxPool(2, ceil=True) if torchvision else halve()  # 7
        self.inception5a = module(832, TABLE["5a"])
        self.inception5b = module(832, TABLE["5b"])
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


MODELS: dict[str, Callable[..., Model]] = {"googlenet": GoogLeNet}
