"""A network that cannot learn 64 images by heart has a wrong gradient somewhere."""

from __future__ import annotations

import pytest

import kernels
import minicnn
from minicnn import layers, models
from tests import by_heart, device


def tiny_googlenet() -> layers.Module:
    """GoogLeNet's parts in small: a stem with LRN and ceil-mode pools, two Inception modules, a global average."""

    def unit(channels: int, width: int, size: int) -> layers.Sequential:
        return layers.Sequential(layers.Conv2d(channels, width, size, pad=size // 2), layers.ReLU())

    def inception(channels: int) -> layers.Concat:
        return layers.Concat(
            unit(channels, 8, 1),
            layers.Sequential(unit(channels, 8, 1), unit(8, 16, 3)),
            layers.Sequential(unit(channels, 4, 1), unit(4, 8, 5)),
            layers.Sequential(layers.MaxPool(3, stride=1, pad=1), unit(channels, 8, 1)),
        )

    return layers.Sequential(
        unit(1, 16, 3), layers.MaxPool(3, stride=2, ceil=True), layers.LRN(alpha=2e-5, k=1.0),
        inception(16), layers.MaxPool(3, stride=2, ceil=True), inception(40),
        layers.GlobalAvgPool(), layers.Linear(40, 10),
    )  # fmt: skip


def tiny_vgg() -> layers.Module:
    """VGG's parts in small: pairs of 3x3 convolutions, 2x2 pools, two fully connected layers."""

    def conv(channels: int, width: int) -> list[layers.Module]:
        return [layers.Conv2d(channels, width, 3, pad=1), layers.ReLU()]

    return layers.Sequential(
        *conv(1, 8), *conv(8, 8), layers.MaxPool(2), *conv(8, 16), *conv(16, 16), layers.MaxPool(2),
        layers.Flatten(), layers.Linear(3 * 3 * 16, 32), layers.ReLU(), layers.Linear(32, 10),
    )  # fmt: skip


def tiny_resnet() -> layers.Module:
    return models.build("resnet-mini", in_channels=1)


@pytest.mark.not_on_host("takes a hundred steps and more")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("build", [tiny_googlenet, tiny_vgg, tiny_resnet])
def test_learns_64_images_by_heart(build, backend):
    minicnn.seed(0)
    model = build().to(device.name)
    with kernels.use(backend):
        by_heart.learn(model, *by_heart.some_images(64), lr=5e-3, steps=150)
