"""Parameters and buffers are named as in torchvision, so that published weights load by name."""

from __future__ import annotations

import itertools

import pytest

from minicnn import init, models

BN = ["weight", "bias", "running_mean", "running_var"]


def names(name: str, **variant) -> list[str]:
    with init.skipped():
        return list(models.build(name, **variant).state_dict())


def entries(layer: str, *attributes: str) -> list[str]:
    return [f"{layer}.{attribute}" for attribute in attributes]


def linear(layer: str) -> list[str]:
    return entries(layer, "weight", "bias")


def conv_bn(conv: str, bn: str) -> list[str]:
    return [f"{conv}.weight", *entries(bn, *BN)]


@pytest.mark.parametrize(
    ("name", "bn", "convolutions"),
    [
        ("vgg-a", False, [0, 3, 6, 8, 11, 13, 16, 18]),
        ("vgg-d", False, [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]),
        ("vgg-a", True, [0, 4, 8, 11, 15, 18, 22, 25]),
    ],
)
def test_vgg(name, bn, convolutions):
    expected = []
    for i in convolutions:
        expected += linear(f"features.{i}") + (entries(f"features.{i + 1}", *BN) if bn else [])
    for i in (0, 3, 6):
        expected += linear(f"classifier.{i}")
    assert names(name, bn=bn) == expected


@pytest.mark.parametrize(
    ("name", "blocks", "convolutions", "projected"),
    [("resnet34", (3, 4, 6, 3), 2, (2, 3, 4)), ("resnet50", (3, 4, 6, 3), 3, (1, 2, 3, 4))],
)
def test_resnet(name, blocks, convolutions, projected):
    expected = conv_bn("conv1", "bn1")
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            for i in range(1, convolutions + 1):
                expected += conv_bn(f"{prefix}.conv{i}", f"{prefix}.bn{i}")
            if block == 0 and stage in projected:
                expected += conv_bn(f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    assert names(name) == expected + linear("fc")


def test_preactivated_resnet():
    expected = conv_bn("conv1", "bn1")
    for stage, block in itertools.product((1, 2, 3), (0, 1, 2)):
        prefix = f"layer{stage}.{block}"
        first = (stage, block) == (1, 0)  # gets what bn1 has normalised
        expected += [f"{prefix}.conv1.weight"] if first else conv_bn(f"{prefix}.conv1", f"{prefix}.bn1")
        expected += conv_bn(f"{prefix}.conv2", f"{prefix}.bn2")
        expected += [f"{prefix}.downsample.0.weight"] if stage > 1 and block == 0 else []
    expected += entries("last.bn", *BN) + linear("fc")
    assert names("resnet20", shortcut="B", unit="full-preact") == expected


def test_gated_resnet():
    ungated = names("resnet20")
    gates = [f"layer{stage}.{block}.gate" for stage, block in itertools.product((1, 2, 3), (0, 1, 2))]
    expected = sorted(ungated + [entry for gate in gates for entry in linear(gate)])
    assert sorted(names("resnet20", skip="shortcut-gate")) == expected


MODULES = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
BRANCHES = ["branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"]
UNITS = [
    *("conv1", "conv2", "conv3"),
    *(f"inception{module}.{branch}" for module, branch in itertools.product(MODULES, BRANCHES)),
]


def test_googlenet():
    expected = [entry for unit in UNITS for entry in linear(f"{unit}.conv")] + linear("fc")
    for head in ("aux1", "aux2"):
        expected += linear(f"{head}.conv.conv") + linear(f"{head}.fc1") + linear(f"{head}.fc2")
    assert sorted(names("googlenet")) == sorted(expected)


def test_googlenet_of_torchvision():
    expected = [entry for unit in UNITS for entry in conv_bn(f"{unit}.conv", f"{unit}.bn")] + linear("fc")
    for head in ("aux1", "aux2"):
        expected += conv_bn(f"{head}.conv.conv", f"{head}.conv.bn") + linear(f"{head}.fc1") + linear(f"{head}.fc2")
    assert sorted(names("googlenet", variant="torchvision")) == sorted(expected)
