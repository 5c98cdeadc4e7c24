"""PyTorch's side: torchvision's networks in short, with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import nn

from minicnn.models.alexnet import WIDTHS
from minicnn.models.googlenet import TABLE


class Block(nn.Module):
    """BasicBlock and Bottleneck: `convolutions` are (in, out, size, stride) of each convolution."""

    def __init__(self, *convolutions: tuple[int, int, int, int]):
        super().__init__()
        self.depth = len(convolutions)
        for i, (channels, width, size, stride) in enumerate(convolutions, start=1):
            setattr(self, f"conv{i}", nn.Conv2d(channels, width, size, stride, size // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(width))
        channels, width, stride = convolutions[0][0], convolutions[-1][1], max(c[3] for c in convolutions)
        self.downsample = None
        if (channels, stride) != (width, 1):
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = y.relu()
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class ResNet(nn.Module):
    def __init__(self, blocks: tuple[int, ...], bottleneck: bool, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, count in enumerate(blocks):
            width, units = 64 << stage, []
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                if bottleneck:
                    units.append(Block((channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)))
                else:
                    units.append(Block((channels, width, 3, stride), (width, width, 3, 1)))
                channels = 4 * width if bottleneck else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*units))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class AlexNet(nn.Module):
    """torchvision's, or the network of 2012 where `published`."""

    def __init__(self, published: bool, num_classes: int):
        super().__init__()
        n1, n2, n3, n4, n5 = WIDTHS["paper" if published else "torchvision"]
        groups, norm = (2, [nn.LocalResponseNorm(5, 5 * 1e-4, 0.75, 2.0)]) if published else (1, [])
        pool = nn.MaxPool2d(3, 2, ceil_mode=published)
        self.features = nn.Sequential(
            nn.Conv2d(3, n1, 11, 4, 0 if published else 2), nn.ReLU(), *norm, pool,
            nn.Conv2d(n1, n2, 5, 1, 2, groups=groups), nn.ReLU(), *norm, pool,
            nn.Conv2d(n2, n3, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(n3, n4, 3, 1, 1, groups=groups), nn.ReLU(),
            nn.Conv2d(n4, n5, 3, 1, 1, groups=groups), nn.ReLU(), pool,
        )  # fmt: skip
        linear1, linear2, last = nn.Linear(36 * n5, 4096), nn.Linear(4096, 4096), nn.Linear(4096, num_classes)
        if published:
            layers = [linear1, nn.ReLU(), nn.Dropout(), linear2, nn.ReLU(), nn.Dropout(), last]
        else:
            layers = [nn.Dropout(), linear1, nn.ReLU(), nn.Dropout(), linear2, nn.ReLU(), last]
        self.classifier = nn.Sequential(*layers)

    def forward(self, x):
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 6).flatten(1))


class VGG(nn.Module):
    """VGG-A for images of 96 pixels."""

    def __init__(self, bn: bool, num_classes: int):
        super().__init__()
        layers, channels = [], 3
        for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                layers += [*([nn.BatchNorm2d(width)] if bn else []), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 3 * 3, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Unit(nn.Module):
    def __init__(self, channels: int, width: int, size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Inception(nn.Module):
    def __init__(self, channels: int, n1: int, n3_reduce: int, n3: int, n5_reduce: int, n5: int, pool: int):
        super().__init__()
        self.branch1 = Unit(channels, n1, 1)
        self.branch2 = nn.Sequential(Unit(channels, n3_reduce, 1), Unit(n3_reduce, n3, 3))
        self.branch3 = nn.Sequential(Unit(channels, n5_reduce, 1), Unit(n5_reduce, n5, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), Unit(channels, pool, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryHead(nn.Module):
    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv = Unit(channels, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x):
        x = self.conv(nn.functional.adaptive_avg_pool2d(x, (4, 4)))
        return self.fc2(self.fc1(x.flatten(1)).relu())


class GoogLeNet(nn.Module):
    """torchvision's, without dropout."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = Unit(3, 64, 7, 2)
        self.conv2 = Unit(64, 64, 1)
        self.conv3 = Unit(64, 192, 3)
        channels = 192
        for name, row in TABLE.items():
            setattr(self, f"inception{name}", Inception(channels, *row))
            channels = row[0] + row[2] + row[4] + row[5]
        self.aux1 = AuxiliaryHead(512, num_classes)
        self.aux2 = AuxiliaryHead(528, num_classes)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x):
        def halve(x, size=3):
            return nn.functional.max_pool2d(x, size, 2, ceil_mode=True)

        x = halve(self.conv3(self.conv2(halve(self.conv1(x)))))
        x = halve(self.inception3b(self.inception3a(x)))
        x4a = self.inception4a(x)
        x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))
        x = halve(self.inception4e(x4d), size=2)
        logits = self.fc(self.inception5b(self.inception5a(x)).mean((2, 3)))
        return logits, self.aux1(x4a), self.aux2(x4d)
