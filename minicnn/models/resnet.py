"""ResNet: layers that learn what to add to their input (He et al., arXiv 1512.03385), and its plain twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.layers import BatchNorm, Conv2d, GlobalAvgPool, Linear, MaxPool, Module, Sequential, conv_bn_relu
from minicnn.models.model import SMALL, Model, side_after


class PlainBlock(Module):
    """[3x3, width; 3x3, width], each convolution followed by a BatchNorm and a ReLU: two layers of a plain network."""

    conv_bn_pairs = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, channels: int, width: int, stride: int):
        self.out_channels = width
        self.conv1 = Conv2d(channels, width, 3, stride=stride, pad=1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv2d(width, width, 3, pad=1, bias=False)
        self.bn2 = BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_bn_relu(x, self.conv1, self.bn1)
        return conv_bn_relu(y, self.conv2, self.bn2)


class BasicBlock(PlainBlock):
    """A PlainBlock whose second ReLU sees the block's input too: y = relu(F(x) + shortcut(x)) (Figure 2)."""

    def __init__(self, channels: int, width: int, stride: int, *, shortcut: str):
        super().__init__(channels, width, stride)
        self.downsample = shortcut_of(shortcut, channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_bn_relu(x, self.conv1, self.bn1)
        return conv_bn_relu(y, self.conv2, self.bn2, residual=self.downsample(x))


class Bottleneck(Module):
    """[1x1, width; 3x3, width; 1x1, 4·width] and a shortcut: the 3x3 works on a quarter of the channels (Figure 5).

    Where the map is halved, the stride is in the first 1x1 (`stride_in="1x1"`, the paper) or in the 3x3, which then
    sees every position (`"3x3"`, torchvision).
    """

    conv_bn_pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, channels: int, width: int, stride: int, *, shortcut: str, stride_in: str):
        if stride_in not in ("1x1", "3x3"):
            raise ValueError(f"stride_in must be '1x1' or '3x3', got {stride_in!r}")
        self.out_channels = 4 * width
        stride1, stride2 = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = Conv2d(channels, width, 1, stride=stride1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv2d(width, width, 3, stride=stride2, pad=1, bias=False)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = BatchNorm(4 * width)
        self.downsample = shortcut_of(shortcut, channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_bn_relu(x, self.conv1, self.bn1)
        y = conv_bn_relu(y, self.conv2, self.bn2)
        return conv_bn_relu(y, self.conv3, self.bn3, residual=self.downsample(x))


class ZeroPadding(Module):
    """Option A's shortcut: every `stride`-th position, with zeros for the new channels, half before and half after."""

    def __init__(self, channels: int, width: int, stride: int):
        self.stride = stride
        self.before = (width - channels) // 2
        self.after = width - channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return ops.pad_channels(ops.subsample(x, self.stride), self.before, self.after)


def shortcut_of(option: str, channels: int, width: int, stride: int) -> Module:
    """What a block adds to its result (§4.1): its input, if that has the right shape, otherwise what `option` says.

    "A" pads with zeros and has no parameters; "B" projects with a 1x1 convolution and a BatchNorm; "C" projects
    always, also where the input would fit.
    """
    if option not in ("A", "B", "C"):
        raise ValueError(f"shortcut must be 'A', 'B' or 'C', got {option!r}")
    if option != "C" and (channels, stride) == (width, 1):
        return Sequential()  # the identity
    if option == "A":
        return ZeroPadding(channels, width, stride)
    return Sequential(Conv2d(channels, width, 1, stride=stride, bias=False), BatchNorm(width))


class ResNet(Model):
    """A stem, stages of blocks on ever smaller and wider maps, a global average, one linear layer (Table 1).

    Each stage but the first starts with a block of stride 2. Convolutions have no biases, for each is followed by a
    BatchNorm. All weights start from He's normal distribution, as layers do by themselves. Parameters are named as
    torchvision's: `conv1`, `layer1.0.bn2`, `layer2.0.downsample.0`, `fc`.
    """

    conv_bn_pairs = (("conv1", "bn1"),)

    def __init__(
        self,
        block: Callable[..., Any],
        blocks: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        *,
        stem: Conv2d,
        maxpool: Module | None = None,
    ):
        channels = stem.weight.shape[3]
        self.conv1, self.bn1 = stem, BatchNorm(channels)
        self.maxpool = maxpool or Sequential()
        self.stages = tuple(f"layer{i}" for i in range(1, len(blocks) + 1))
        for name, count, width in zip(self.stages, blocks, widths, strict=True):
            stage: list[Any] = []
            for i in range(count):
                stage.append(block(channels, width, stride=2 if i == 0 and name != "layer1" else 1))
                channels = stage[-1].out_channels
            setattr(self, name, Sequential(*stage))
        self.avgpool = GlobalAvgPool()
        self.fc = Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(conv_bn_relu(x, self.conv1, self.bn1))
        for name in self.stages:
            for block in getattr(self, name):  # one by one: called as a whole, a stage would keep its input to the end
                x = block(x)
        return self.fc(self.avgpool(x))


def _imagenet(block: Callable, blocks: Sequence[int], num_classes: int, in_channels: int, image_size: int) -> ResNet:
    """Table 1: a 7x7 stem of stride 2 and a 3x3 pool of stride 2; up to 64 pixels a 3x3 stem and no pool."""
    if image_size <= SMALL:
        stem, maxpool = Conv2d(in_channels, 64, 3, pad=1, bias=False), None
    else:
        stem, maxpool = Conv2d(in_channels, 64, 7, stride=2, pad=3, bias=False), MaxPool(3, stride=2, pad=1)
    return ResNet(block, blocks, (64, 128, 256, 512), num_classes, stem=stem, maxpool=maxpool)


def _cifar(block: Callable, n: int, num_classes: int, in_channels: int) -> ResNet:
    """§4.2: a 3x3 stem, then 2n layers on maps of 32, 16 and 8 pixels with 16, 32 and 64 filters: 6n + 2 in all."""
    return ResNet(block, (n, n, n), (16, 32, 64), num_classes, stem=Conv2d(in_channels, 16, 3, pad=1, bias=False))


def basic(
    blocks: Sequence[int], num_classes: int = 1000, in_channels: int = 3, image_size: int = 224, *, shortcut: str = "B"
) -> ResNet:
    """ResNet-18 and 34: the ImageNet networks of basic blocks."""
    return _imagenet(partial(BasicBlock, shortcut=shortcut), blocks, num_classes, in_channels, image_size)


def bottleneck(
    blocks: Sequence[int],
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    *,
    shortcut: str = "B",
    stride_in: str = "3x3",
) -> ResNet:
    """ResNet-50, 101 and 152: the ImageNet networks of bottleneck blocks."""
    block = partial(Bottleneck, shortcut=shortcut, stride_in=stride_in)
    return _imagenet(block, blocks, num_classes, in_channels, image_size)


def plain(blocks: Sequence[int], num_classes: int = 1000, in_channels: int = 3, image_size: int = 224) -> ResNet:
    """Plain-18 and 34: the same layers without shortcuts (Figure 3, middle)."""
    return _imagenet(PlainBlock, blocks, num_classes, in_channels, image_size)


def cifar(n: int, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, *, shortcut: str = "A") -> ResNet:
    """ResNet-20 to 1202 for small images, of basic blocks."""
    return _cifar(partial(BasicBlock, shortcut=shortcut), n, num_classes, in_channels)


def cifar_plain(n: int, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> ResNet:
    """Plain-20 to 110 for small images: the same layers without shortcuts."""
    return _cifar(PlainBlock, n, num_classes, in_channels)


def mini(num_classes: int = 10, in_channels: int = 3, image_size: int = 28, *, shortcut: str = "B") -> ResNet:
    """A ResNet that learns Fashion-MNIST in a minute on two cores: one basic block each of 32, 64 and 128 channels.

    Not from the paper: what `python -m minicnn.train` trains when it is told nothing. A 2x2 pool behind the 3x3 stem
    quarters the work of all that follows.
    """
    maxpool = MaxPool(2)
    side_after(maxpool, "maxpool", image_size, image_size)
    stem = Conv2d(in_channels, 32, 3, pad=1, bias=False)
    block = partial(BasicBlock, shortcut=shortcut)
    return ResNet(block, (1, 1, 1), (32, 64, 128), num_classes, stem=stem, maxpool=maxpool)


MODELS: dict[str, Callable[..., ResNet]] = {
    # Table 1: how many blocks on maps of 56, 28, 14 and 7 pixels.
    "resnet18": partial(basic, (2, 2, 2, 2)),
    "resnet34": partial(basic, (3, 4, 6, 3)),
    "resnet50": partial(bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(bottleneck, (3, 8, 36, 3)),
    "plain18": partial(plain, (2, 2, 2, 2)),
    "plain34": partial(plain, (3, 4, 6, 3)),
    # §4.2: n, of 6n + 2 layers.
    "resnet20": partial(cifar, 3),
    "resnet32": partial(cifar, 5),
    "resnet44": partial(cifar, 7),
    "resnet56": partial(cifar, 9),
    "resnet110": partial(cifar, 18),
    "resnet1202": partial(cifar, 200),
    "plain20": partial(cifar_plain, 3),
    "plain32": partial(cifar_plain, 5),
    "plain44": partial(cifar_plain, 7),
    "plain56": partial(cifar_plain, 9),
    "plain110": partial(cifar_plain, 18),
    "resnet-mini": mini,
}
