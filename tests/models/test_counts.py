"""Parameters and multiply-adds of every network, against the exact columns of the published tables."""

from __future__ import annotations

import math

import pytest

from minicnn import init, models
from minicnn.models.residual import SKIPS, UNITS
from minicnn.summary import profile


def build(name: str, **variant):
    with init.skipped():
        return models.build(name, **variant)


def parameters(model) -> int:
    return sum(tensor.size for tensor in model.parameters())


def multiply_adds(model) -> int:
    return sum(row.multiply_adds for row in profile(model))


VGG = {  # parameters, with BN, GMAC at 224
    "vgg-a": (132_863_336, 132_868_840, 7.609),
    "vgg-a-lrn": (132_863_336, 132_868_840, 7.609),
    "vgg-b": (133_047_848, 133_053_736, 11.308),
    "vgg-c": (133_638_952, 133_647_400, 11.771),
    "vgg-d": (138_357_544, 138_365_992, 15.470),
    "vgg-e": (143_667_240, 143_678_248, 19.632),
}


@pytest.mark.parametrize("name", VGG)
def test_vgg(name):
    plain, with_bn, giga = VGG[name]
    model = build(name)
    assert parameters(model) == plain
    assert parameters(build(name, bn=True)) == with_bn
    assert sum(tensor.size for tensor in model.classifier.parameters()) == 123_642_856
    assert round(multiply_adds(model) / 1e9, 3) == giga


def test_vgg_with_5x5_for_each_pair_of_3x3():
    model = build("vgg-b-5x5")
    assert parameters(model) == 134_503_528
    assert round(multiply_adds(model) / 1e9, 3) == 9.356


CLASSICS = [  # parameters, GMAC at the paper's size
    ("alexnet", {}, 60_965_224, 0.724),
    ("alexnet", {"groups": 1}, 62_378_344, 1.135),
    ("alexnet", {"variant": "torchvision", "image_size": 224}, 61_100_840, 0.714),
    ("zfnet", {}, 62_357_608, 1.168),
    ("zfnet", {"norm": "lcn"}, 62_357_608, 1.168),
    ("nin", {}, 7_595_176, 1.100),
]


@pytest.mark.parametrize(("name", "variant", "count", "giga"), CLASSICS)
def test_alexnet_and_its_successors(name, variant, count, giga):
    model = build(name, **variant)
    assert parameters(model) == count
    assert round(multiply_adds(model) / 1e9, 3) == giga


def test_nin_for_cifar():
    model = build("nin", image_size=32)
    assert parameters(model) == 966_986
    assert parameters(build("nin", num_classes=100, image_size=32)) == 984_356
    rows = profile(model)
    products = sum(row.multiply_adds for row in rows)
    biases = sum(math.prod(row.shape) for row in rows if row.multiply_adds)
    assert round((products + biases) / 1e6) == 223  # the published figure counts the addition of a bias too
    assert products == 222_486_528


GOOGLENET = {  # weights, weights and biases, MMAC
    "conv1": (9_408, 9_472, 118.0),
    "conv2 conv3": (114_688, 114_944, 359.7),
    "inception3a": (163_328, 163_696, 128.0),
    "inception3b": (388_096, 388_736, 304.3),
    "inception4a": (375_552, 376_176, 73.6),
    "inception4b": (448_512, 449_160, 87.9),
    "inception4c": (509_440, 510_104, 99.9),
    "inception4d": (604_672, 605_376, 118.5),
    "inception4e": (867_328, 868_352, 170.0),
    "inception5a": (1_042_432, 1_043_456, 51.1),
    "inception5b": (1_442_816, 1_444_080, 70.7),
    "fc": (1_024_000, 1_025_000, 1.0),
}


def test_googlenet_row_by_row():
    model = build("googlenet")
    rows = profile(model)
    for group, expected in GOOGLENET.items():
        names = group.split()
        sizes = {key: tensor.size for key, tensor in model.named_parameters() if key.split(".")[0] in names}
        weights = sum(size for key, size in sizes.items() if key.endswith("weight"))
        mega = sum(row.multiply_adds for row in rows if row.layer.split(".")[0] in names) / 1e6
        assert (weights, sum(sizes.values()), round(mega, 1)) == expected, group


def test_googlenet_totals():
    model = build("googlenet")
    assert parameters(model) == 13_378_280
    assert parameters(model.aux1) == 3_188_840
    assert parameters(model.aux2) == 3_190_888
    main = build("googlenet", aux_logits=False)
    assert parameters(main) == 6_998_552
    assert round(multiply_adds(main) / 1e9, 3) == round(multiply_adds(model) / 1e9, 3) == 1.583


def test_googlenet_with_batch_norm():
    assert parameters(build("googlenet", bn=True, aux_logits=False)) == 7_005_832
    assert parameters(build("googlenet", bn=True)) == 13_385_816


def test_googlenet_of_torchvision():
    main = build("googlenet", variant="torchvision", aux_logits=False)
    assert parameters(main) == 6_624_904
    assert round(multiply_adds(main) / 1e9, 3) == 1.498
    assert parameters(build("googlenet", variant="torchvision")) == 13_004_888


def test_bn_inception():
    model = build("bn-inception")
    assert parameters(model) == 11_295_240
    rows = profile(model)
    products = sum(row.multiply_adds for row in rows)
    assert round(products / 1e9, 3) == 2.033
    # The published 2.048 counts the addition of biases, normalisations and the elements that are averaged too.
    biases = sum(math.prod(row.shape) for row in rows if row.multiply_adds)
    normalised = sum(math.prod(row.shape) for row in rows if row.op == "bn_relu")
    averaged = 9 * sum(math.prod(row.shape) for row in rows if row.op == "avg_pool") + 7 * 7 * 1024
    assert round((products + biases + normalised + averaged) / 1e9, 3) == 2.048


def test_inception_v3():
    model = build("inception-v3")
    assert parameters(model) == 27_161_264
    assert parameters(model.AuxLogits) == 3_326_696
    main = build("inception-v3", aux_logits=False)
    assert parameters(main) == 23_834_568
    assert round(multiply_adds(main) / 1e9, 3) == round(multiply_adds(model) / 1e9, 3) == 5.713


RESNET = {  # parameters, GMAC with the stride in the 3x3, in the 1x1
    "resnet18": (11_689_512, 1.814, None),
    "resnet34": (21_797_672, 3.664, None),
    "resnet50": (25_557_032, 4.089, 3.858),
    "resnet101": (44_549_160, 7.801, 7.570),
    "resnet152": (60_192_808, 11.514, 11.282),
}


@pytest.mark.parametrize("name", RESNET)
def test_resnet(name):
    count, in_3x3, in_1x1 = RESNET[name]
    model = build(name)
    assert parameters(model) == count
    assert round(multiply_adds(model) / 1e9, 3) == in_3x3
    if in_1x1:
        model = build(name, stride_in="1x1")
        assert parameters(model) == count
        assert round(multiply_adds(model) / 1e9, 3) == in_1x1


@pytest.mark.parametrize(
    ("name", "shortcut", "count"),
    [
        ("resnet18", "A", 11_515_688),
        ("resnet34", "A", 21_623_848),
        ("resnet18", "C", 12_043_816),
        ("resnet34", "C", 22_716_840),
        ("resnet50", "C", 40_128_552),
    ],
)
def test_resnet_shortcuts(name, shortcut, count):
    assert parameters(build(name, shortcut=shortcut)) == count


def test_plain_nets_count_as_residual_nets_with_option_a():
    assert parameters(build("plain18")) == 11_515_688
    assert parameters(build("plain34")) == 21_623_848


CIFAR = {  # parameters with shortcut A, B, C; MMAC with A
    20: (269_722, 272_474, 283_962, "40.55"),
    32: (464_154, 466_906, 489_594, "68.86"),
    44: (658_586, 661_338, 695_226, "97.17"),
    56: (853_018, 855_770, 900_858, "125.49"),
    110: (1_727_962, 1_730_714, 1_826_202, "252.89"),
    1202: (19_421_274, 19_424_026, 20_538_714, "2829"),
}


@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_resnet(depth):
    *counts, mega = CIFAR[depth]
    assert [parameters(build(f"resnet{depth}", shortcut=shortcut)) for shortcut in "ABC"] == counts
    model = build(f"resnet{depth}")
    assert parameters(model) == counts[0]
    assert format(multiply_adds(model) / 1e6, f".{len(mega.partition('.')[2])}f") == mega


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_plain(depth):
    assert parameters(build(f"plain{depth}")) == CIFAR[depth][0]


@pytest.mark.parametrize(
    ("name", "original", "preactivated"),
    [
        ("resnet164", 1_704_154, 1_703_258),
        ("resnet1001", 10_328_602, 10_327_706),
        ("resnet200", 64_673_832, 64_666_152),
    ],
)
def test_bottlenecks_of_identity_mappings(name, original, preactivated):
    assert parameters(build(name)) == original
    assert parameters(build(name, unit="full-preact")) == preactivated


@pytest.mark.parametrize("name", RESNET)
def test_preactivated_resnet_has_no_batch_norm_on_its_projections(name):
    channels = [128, 256, 512] if name in ("resnet18", "resnet34") else [256, 512, 1024, 2048]
    model = build(name, unit="full-preact")
    assert parameters(model) == RESNET[name][0] - 2 * sum(channels)
    assert round(multiply_adds(model) / 1e9, 3) == RESNET[name][1]


@pytest.mark.parametrize("unit", UNITS)
def test_units_have_the_same_parts_in_another_order(unit):
    assert parameters(build("resnet20", unit=unit)) == CIFAR[20][0]
    assert parameters(build("resnet110", unit=unit)) == CIFAR[110][0]


@pytest.mark.parametrize("skip", SKIPS)
def test_skips(skip):
    gates = 3 * (16 * 16 + 16) + (16 + 2 * 32 + 3) * 32 + (32 + 2 * 64 + 3) * 64  # one of 1x1 and a bias to each unit
    expected = {"conv1x1": CIFAR[20][2], "exclusive-gate": CIFAR[20][0] + gates, "shortcut-gate": CIFAR[20][0] + gates}
    assert parameters(build("resnet20", skip=skip)) == expected.get(skip, CIFAR[20][0])


@pytest.mark.parametrize("span", [1, 2, 3])
def test_a_shortcut_spans_more_or_fewer_of_the_same_layers(span):
    model = build("resnet110", span=span)
    assert parameters(model) == CIFAR[110][0]
    assert format(multiply_adds(model) / 1e6, ".2f") == CIFAR[110][3]


@pytest.mark.parametrize("size", [28, 32])
def test_vgg_for_small_images_has_a_small_head(size):
    head = build("vgg-a", num_classes=10, image_size=size).classifier
    assert parameters(head) == 512 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
