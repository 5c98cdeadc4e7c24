"""PyTorch's side: small residual networks with full pre-activation or with gated shortcuts."""

from __future__ import annotations

import torch
from torch import nn


def convolution(channels: int, width: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, size, stride, size // 2, bias=False)


def layers_of(channels: int, width: int, stride: int, bottleneck: bool) -> list[nn.Conv2d]:
    if bottleneck:
        return [
            convolution(channels, width, 1),
            convolution(width, width, 3, stride),
            convolution(width, 4 * width, 1),
        ]
    return [convolution(channels, width, 3, stride), convolution(width, width, 3)]


class PreActivated(nn.Module):
    """BN ReLU conv, twice or three times, and x; the first unit of the network gets its input activated."""

    def __init__(self, convolutions: list[nn.Conv2d], stride: int, first: bool):
        super().__init__()
        self.depth, self.first = len(convolutions), first
        for i, conv in enumerate(convolutions, start=1):
            setattr(self, f"conv{i}", conv)
            if i > 1 or not first:
                setattr(self, f"bn{i}", nn.BatchNorm2d(conv.in_channels))
        channels, width = convolutions[0].in_channels, convolutions[-1].out_channels
        self.downsample = None
        if (channels, stride) != (width, 1):
            self.downsample = nn.Sequential(convolution(channels, width, 1, stride))

    def forward(self, x):
        a = x if self.first else self.bn1(x).relu()
        y = self.conv1(a)
        for i in range(2, self.depth + 1):
            y = getattr(self, f"conv{i}")(getattr(self, f"bn{i}")(y).relu())
        return y + (self.downsample(a) if self.downsample else x)


class Gated(nn.Module):
    """conv BN ReLU … conv BN, whose weight against the shortcut's a 1x1 convolution decides, and a ReLU."""

    def __init__(self, convolutions: list[nn.Conv2d], stride: int, exclusive: bool):
        super().__init__()
        self.depth, self.exclusive = len(convolutions), exclusive
        for i, conv in enumerate(convolutions, start=1):
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(conv.out_channels))
        channels, width = convolutions[0].in_channels, convolutions[-1].out_channels
        self.downsample = None
        if (channels, stride) != (width, 1):
            self.downsample = nn.Sequential(convolution(channels, width, 1, stride), nn.BatchNorm2d(width))
        self.gate = nn.Conv2d(channels, width, 1, stride)

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.depth else y
        g = torch.sigmoid(self.gate(x))
        h = self.downsample(x) if self.downsample else x
        return ((g * y if self.exclusive else y) + (1 - g) * h).relu()


class Net(nn.Module):
    """Stages of 2, 1 and 1 units on 8, 8 and 16 channels, of four times as many with bottlenecks; ten classes."""

    def __init__(self, bottleneck: bool, unit: str = "original", skip: str = "identity"):
        super().__init__()
        self.conv1, self.bn1 = convolution(3, 8, 3), nn.BatchNorm2d(8)
        channels = 8
        for stage, (count, width) in enumerate([(2, 8), (1, 8), (1, 16)], start=1):
            units = []
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                layers = layers_of(channels, width, stride, bottleneck)
                if unit == "full-preact":
                    units.append(PreActivated(layers, stride, first=(stage, i) == (1, 0)))
                else:
                    units.append(Gated(layers, stride, exclusive=skip == "exclusive-gate"))
                channels = layers[-1].out_channels
            setattr(self, f"layer{stage}", nn.Sequential(*units))
        self.last = nn.Sequential()
        if unit == "full-preact":
            self.last.add_module("bn", nn.BatchNorm2d(channels))
            self.last.add_module("relu", nn.ReLU())
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.last(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))
