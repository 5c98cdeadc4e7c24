"""The same networks as a PyTorch user would write them, with torchvision's names: what minicnn is compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- VGG ---------------------------------------------------------------------------------------------------------

VGG_WIDTHS = {  # M is a 2x2 max pool
    "vgg-a": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg-d": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
}


class VGG(nn.Module):
    def __init__(self, widths: str, num_classes: int, image_size: int, *, bn: bool = False):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for entry in widths.split():
            if entry == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(channels, int(entry), 3, padding=1))
            layers += [nn.BatchNorm2d(int(entry)), nn.ReLU(inplace=True)] if bn else [nn.ReLU(inplace=True)]
            channels = int(entry)
        self.features = nn.Sequential(*layers)
        hidden = 4096 if image_size > 64 else 512
        self.classifier = nn.Sequential(
            nn.Linear(channels * (image_size // 32) ** 2, hidden), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


# --- ResNet ------------------------------------------------------------------------------------------------------


class ZeroPadding(nn.Module):
    """Shortcut A: every `stride`-th position, and zeros for the new channels, half of them on each side."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.stride, self.pad = stride, (width - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))


def projection(channels: int, width: int, stride: int) -> nn.Module:
    """Shortcut B."""
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    """Stages of blocks behind the stem; each stage but the first halves the map in its first block."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        blocks: tuple[int, ...],
        num_classes: int,
        *,
        stem: nn.Conv2d,
        maxpool: nn.Module,
        shortcut: Callable[[int, int, int], nn.Module],
    ):
        super().__init__()
        self.conv1, self.bn1, self.maxpool = stem, nn.BatchNorm2d(stem.out_channels), maxpool
        self.relu = nn.ReLU(inplace=True)
        channels, stages = stem.out_channels, []
        for i, count in enumerate(blocks):
            width, stage = stem.out_channels * 2**i, []
            for j in range(count):
                stride, out = 2 if i > 0 and j == 0 else 1, width * block.expansion
                downsample = None if (channels, stride) == (out, 1) else shortcut(channels, out, stride)
                stage.append(block(channels, width, stride, downsample))
                channels = out
            stages.append(nn.Sequential(*stage))
            self.add_module(f"layer{i + 1}", stages[-1])
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name, stage in self.named_children():
            if name.startswith("layer"):
                x = stage(x)
        return self.fc(x.mean((2, 3)))


def imagenet(block: type, blocks: tuple[int, ...], num_classes: int, image_size: int) -> ResNet:
    stem, maxpool = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.MaxPool2d(3, stride=2, padding=1)
    return ResNet(block, blocks, num_classes, stem=stem, maxpool=maxpool, shortcut=projection)


def cifar(n: int, num_classes: int, image_size: int) -> ResNet:
    stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    return ResNet(BasicBlock, (n, n, n), num_classes, stem=stem, maxpool=nn.Identity(), shortcut=ZeroPadding)


# --- GoogLeNet ---------------------------------------------------------------------------------------------------


class ConvUnit(nn.Module):
    def __init__(self, channels: int, width: int, size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, size, stride=stride, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)


class Inception(nn.Module):
    def __init__(self, channels: int, n1: int, n3_reduce: int, n3: int, n5_reduce: int, n5: int, pool_proj: int):
        super().__init__()
        self.branch1 = ConvUnit(channels, n1, 1)
        self.branch2 = nn.Sequential(ConvUnit(channels, n3_reduce, 1), ConvUnit(n3_reduce, n3, 3))
        self.branch3 = nn.Sequential(ConvUnit(channels, n5_reduce, 1), ConvUnit(n5_reduce, n5, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvUnit(channels, pool_proj, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryHead(nn.Module):
    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv = ConvUnit(channels, 128, 1)
        self.fc1 = nn.Linear(4 * 4 * 128, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.avg_pool2d(x, 5, stride=3))
        return self.fc2(self.dropout(F.relu(self.fc1(x.flatten(1)), inplace=True)))


class GoogLeNet(nn.Module):
    """As published: biases, LRN, true 5x5 filters, no BatchNorm; (main, aux1, aux2) logits in training."""

    def __init__(self, num_classes: int, image_size: int, *, lrn: bool = True):
        super().__init__()
        # PyTorch's alpha multiplies the mean over the window, the paper's the sum
        norm = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=1.0) if lrn else nn.Identity
        self.conv1, self.norm1 = ConvUnit(3, 64, 7, stride=2), norm()
        self.conv2, self.conv3, self.norm2 = ConvUnit(64, 64, 1), ConvUnit(64, 192, 3), norm()
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.dropout, self.fc = nn.Dropout(0.4), nn.Linear(1024, num_classes)
        self.aux1, self.aux2 = AuxiliaryHead(512, num_classes), AuxiliaryHead(528, num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        x = self.norm1(self.maxpool(self.conv1(x)))
        x = self.maxpool(self.norm2(self.conv3(self.conv2(x))))
        x = self.maxpool(self.inception3b(self.inception3a(x)))
        x4a = self.inception4a(x)
        x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))
        x = self.maxpool(self.inception4e(x4d))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(x.mean((2, 3))))
        return (logits, self.aux1(x4a), self.aux2(x4d)) if self.training else logits


MODELS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(VGG, widths) for name, widths in VGG_WIDTHS.items()},
    "resnet18": partial(imagenet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(imagenet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(imagenet, Bottleneck, (3, 4, 6, 3)),
    "resnet152": partial(imagenet, Bottleneck, (3, 8, 36, 3)),
    "resnet20": partial(cifar, 3),
    "resnet56": partial(cifar, 9),
    "resnet110": partial(cifar, 18),
    "resnet1202": partial(cifar, 200),
    "googlenet": GoogLeNet,
}


def build(model: str, num_classes: int, image_size: int, **variant: bool) -> nn.Module:
    """The network that `minicnn.models.build` makes under this name: the same layers and parameter names."""
    return MODELS[model](num_classes, image_size, **variant)


def loss(outputs: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The mean cross-entropy; GoogLeNet's auxiliary heads weigh 0.3 each."""
    main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    return F.cross_entropy(main, labels) + sum(0.3 * F.cross_entropy(logits, labels) for logits in auxiliary)
