"""ResNet: layers that learn what to add to their input (He et al., arXiv 1512.03385), and its plain twins.

The units, and how Identity Mappings (He et al., arXiv 1603.05027) rearranges them, are in residual.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from minicnn.autograd import Tensor
from minicnn.layers import BatchNorm, Conv2d, GlobalAvgPool, Linear, MaxPool, Module, Sequential, conv_bn_relu
from minicnn.models.model import SMALL, Model, side_after
from minicnn.models.residual import Unit


class BasicBlock(Unit):
    """[3x3, width; 3x3, width] and a shortcut, or as many 3x3 convolutions as the shortcut is to span (Figure 2).

    With `shortcut=None` two layers of a plain network. `form` are the keywords of a Unit.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        *,
        shortcut: str | None,
        span: int = 2,
        first: bool = False,
        **form: Any,
    ):
        convolutions = [Conv2d(channels, width, 3, stride=stride, pad=1, bias=False)]
        convolutions += [Conv2d(width, width, 3, pad=1, bias=False) for _ in range(span - 1)]
        super().__init__(convolutions, stride, shortcut, first, **form)


class Bottleneck(Unit):
    """[1x1, width; 3x3, width; 1x1, 4·width] and a shortcut: the 3x3 works on a quarter of the channels (Figure 5).

    Where the map is halved, the stride is in the first 1x1 (`stride_in="1x1"`, the paper) or in the 3x3, which then
    sees every position (`"3x3"`, torchvision). `form` are the keywords of a Unit.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        *,
        shortcut: str,
        stride_in: str,
        first: bool = False,
        **form: Any,
    ):
        if stride_in not in ("1x1", "3x3"):
            raise ValueError(f"stride_in must be '1x1' or '3x3', got {stride_in!r}")
        stride1, stride2 = (stride, 1) if stride_in == "1x1" else (1, stride)
        convolutions = (
            Conv2d(channels, width, 1, stride=stride1, bias=False),
            Conv2d(width, width, 3, stride=stride2, pad=1, bias=False),
            Conv2d(width, 4 * width, 1, bias=False),
        )
        super().__init__(convolutions, stride, shortcut, first, **form)


class ResNet(Model):
    """A stem, stages of blocks on ever smaller and wider maps, a global average, one linear layer (Table 1).

    Each stage but the first starts with a block of stride 2. Convolutions have no biases, for each is followed by a
    BatchNorm. All weights start from He's normal distribution, as layers do by themselves. Parameters are named as
    torchvision's: `conv1`, `layer1.0.bn2`, `layer2.0.downsample.0`, `fc`. Units that begin with an activation leave
    their sum without one; `last` has it then.
    """

    conv_bn_pairs = (("conv1", "bn1"),)

    def __init__(
        self,
        block: Callable[..., Unit],
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
            stage: list[Unit] = []
            for i in range(count):
                opens_stage, opens_network = i == 0, i == 0 and name == "layer1"
                stride = 2 if opens_stage and not opens_network else 1
                stage.append(block(channels, width, stride=stride, first=opens_network))
                channels = stage[-1].out_channels
            setattr(self, name, Sequential(*stage))
        self.last = stage[-1].closing()
        self.avgpool = GlobalAvgPool()
        self.fc = Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(conv_bn_relu(x, self.conv1, self.bn1))
        for name in self.stages:
            for block in getattr(self, name):  # one by one: called as a whole, a stage would keep its input to the end
                x = block(x)
        return self.fc(self.avgpool(self.last(x)))


def _imagenet(
    block: Callable[..., Unit], blocks: Sequence[int], num_classes: int, in_channels: int, image_size: int
) -> ResNet:
    """Table 1: a 7x7 stem of stride 2 and a 3x3 pool of stride 2; up to 64 pixels a 3x3 stem and no pool."""
    if image_size <= SMALL:
        stem, maxpool = Conv2d(in_channels, 64, 3, pad=1, bias=False), None
    else:
        stem, maxpool = Conv2d(in_channels, 64, 7, stride=2, pad=3, bias=False), MaxPool(3, stride=2, pad=1)
    return ResNet(block, blocks, (64, 128, 256, 512), num_classes, stem=stem, maxpool=maxpool)


def _cifar(block: Callable[..., Unit], blocks: Sequence[int], num_classes: int, in_channels: int) -> ResNet:
    """§4.2: a 3x3 stem, then three stages on maps of 32, 16 and 8 pixels with 16, 32 and 64 filters."""
    return ResNet(block, blocks, (16, 32, 64), num_classes, stem=Conv2d(in_channels, 16, 3, pad=1, bias=False))


def _spanned(blocks: Sequence[int], span: int) -> list[int]:
    """How many blocks of `span` layers each stage has, for as many layers as in `blocks` of two."""
    if span not in (1, 2, 3):
        raise ValueError(f"span must be 1, 2 or 3, got {span!r}")
    for count in blocks:
        if 2 * count % span:
            raise ValueError(f"span {span} does not divide the {2 * count} layers of a stage")
    return [2 * count // span for count in blocks]


def _of_any_form(builder: Callable[..., ResNet]) -> Callable[..., ResNet]:
    """The builder with its `**form` spelt out in its signature, for `models.variants`: the keywords of a Unit."""
    own = inspect.signature(builder)
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters += [p for p in inspect.signature(Unit).parameters.values() if p.kind is p.KEYWORD_ONLY]
    builder.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return builder


@_of_any_form
def basic(
    blocks: Sequence[int],
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    *,
    shortcut: str = "B",
    span: int = 2,
    **form: Any,
) -> ResNet:
    """ResNet-18 and 34: the ImageNet networks of basic blocks."""
    block = partial(BasicBlock, shortcut=shortcut, span=span, **form)
    return _imagenet(block, _spanned(blocks, span), num_classes, in_channels, image_size)


@_of_any_form
def bottleneck(
    blocks: Sequence[int],
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    *,
    shortcut: str = "B",
    stride_in: str = "3x3",
    **form: Any,
) -> ResNet:
    """ResNet-50, 101, 152 and 200: the ImageNet networks of bottleneck blocks."""
    block = partial(Bottleneck, shortcut=shortcut, stride_in=stride_in, **form)
    return _imagenet(block, blocks, num_classes, in_channels, image_size)


def plain(blocks: Sequence[int], num_classes: int = 1000, in_channels: int = 3, image_size: int = 224) -> ResNet:
    """Plain-18 and 34: the same layers without shortcuts (Figure 3, middle)."""
    return _imagenet(partial(BasicBlock, shortcut=None), blocks, num_classes, in_channels, image_size)


@_of_any_form
def cifar(
    n: int,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    *,
    shortcut: str = "A",
    span: int = 2,
    **form: Any,
) -> ResNet:
    """ResNet-20 to 1202 for small images, of basic blocks: 2n layers a stage, 6n + 2 in all."""
    block = partial(BasicBlock, shortcut=shortcut, span=span, **form)
    return _cifar(block, _spanned((n, n, n), span), num_classes, in_channels)


@_of_any_form
def cifar_bottleneck(
    n: int,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    *,
    shortcut: str = "B",
    stride_in: str = "3x3",
    **form: Any,
) -> ResNet:
    """ResNet-164 and 1001 of Identity Mappings (appendix), of bottleneck blocks: 3n layers a stage, 9n + 2 in all."""
    block = partial(Bottleneck, shortcut=shortcut, stride_in=stride_in, **form)
    return _cifar(block, (n, n, n), num_classes, in_channels)


def cifar_plain(n: int, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> ResNet:
    """Plain-20 to 110 for small images: the same layers without shortcuts."""
    return _cifar(partial(BasicBlock, shortcut=None), (n, n, n), num_classes, in_channels)


@_of_any_form
def mini(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 28,
    *,
    shortcut: str = "B",
    span: int = 2,
    **form: Any,
) -> ResNet:
    """A ResNet that learns Fashion-MNIST in a minute on two cores: one basic block each of 32, 64 and 128 channels.

    Not from the paper: what `python -m minicnn.train` trains when it is told nothing. A 2x2 pool behind the 3x3 stem
    quarters the work of all that follows.
    """
    maxpool = MaxPool(2)
    side_after(maxpool, "maxpool", image_size, image_size)
    stem = Conv2d(in_channels, 32, 3, pad=1, bias=False)
    block = partial(BasicBlock, shortcut=shortcut, span=span, **form)
    return ResNet(block, _spanned((1, 1, 1), span), (32, 64, 128), num_classes, stem=stem, maxpool=maxpool)


MODELS: dict[str, Callable[..., ResNet]] = {
    # Table 1: how many blocks on maps of 56, 28, 14 and 7 pixels. ResNet-200 is from Identity Mappings (Table 5).
    "resnet18": partial(basic, (2, 2, 2, 2)),
    "resnet34": partial(basic, (3, 4, 6, 3)),
    "resnet50": partial(bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(bottleneck, (3, 8, 36, 3)),
    "resnet200": partial(bottleneck, (3, 24, 36, 3)),
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
    # Identity Mappings: n, of 9n + 2 layers.
    "resnet164": partial(cifar_bottleneck, 18),
    "resnet1001": partial(cifar_bottleneck, 111),
    "resnet-mini": mini,
}
