"""Inception-v3: large filters factorised into small and flat ones (Szegedy et al., arXiv 1512.00567)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from minicnn import init as initialise
from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.layers import AvgPool, Conv2d, Dropout, GlobalAvgPool, Linear, MaxPool, Module, Sequential
from minicnn.models.googlenet import ConvUnit
from minicnn.models.model import Model, side_after

# The kinds of modules, as the authors published them in code. A line is a branch, by torchvision's name: "1x7 192" is a
# convolution to 192 channels with its BatchNorm and ReLU, with "/2" one of stride 2, unpadded; "avg" and "max/2" are
# 3x3 pools; "a | b" at the end are two convolutions side by side. n is a module's own.
# fmt: off
FIGURE_5 = {  # two 3x3 see what a 5x5 sees; one 5x5 has been left
    "branch1x1":    "1x1 64",
    "branch5x5":    "1x1 48, 5x5 64",
    "branch3x3dbl": "1x1 64, 3x3 96, 3x3 96",
    "branch_pool":  "avg, 1x1 n",
}
FIGURE_10 = {  # half the side and more channels, with neither a bottleneck nor a convolution of the whole map before
    "branch3x3":    "3x3/2 384",
    "branch3x3dbl": "1x1 64, 3x3 96, 3x3/2 96",
    "branch_pool":  "max/2",
}
FIGURE_6 = {  # 1x7 and 7x1 see what a 7x7 sees, for 2/7 of its cost
    "branch1x1":    "1x1 192",
    "branch7x7":    "1x1 n, 1x7 n, 7x1 192",
    "branch7x7dbl": "1x1 n, 7x1 n, 1x7 n, 7x1 n, 1x7 192",
    "branch_pool":  "avg, 1x1 192",
}
FIGURES_6_AND_10 = {
    "branch3x3":    "1x1 192, 3x3/2 320",
    "branch7x7x3":  "1x1 192, 1x7 192, 7x1 192, 3x3/2 192",
    "branch_pool":  "max/2",
}
FIGURE_7 = {  # many features on the smallest map
    "branch1x1":    "1x1 320",
    "branch3x3":    "1x1 384, 1x3 384 | 3x1 384",
    "branch3x3dbl": "1x1 448, 3x3 384, 1x3 384 | 3x1 384",
    "branch_pool":  "avg, 1x1 192",
}
# fmt: on

SMALLEST = 75  # the side in pixels from which on the published stem leaves enough for the last modules

unit = partial(ConvUnit, bn=True)
halve = partial(MaxPool, 3, stride=2)
POOLS: dict[str, Callable[[], Module]] = {"avg": partial(AvgPool, 3, stride=1, pad=1, count_pad=True), "max/2": halve}


def conv_unit(channels: int, text: str) -> ConvUnit:
    """The convolution that "7x1 192" or "3x3/2 320" describes."""
    window, width = text.split()
    size, _, stride = window.partition("/")
    kh, kw = map(int, size.split("x"))
    if stride:
        return unit(channels, int(width), (kh, kw), stride=int(stride), pad=0)
    return unit(channels, int(width), (kh, kw))


class Mixed(Module):
    """Branches that all see the same map, and whose results are laid side by side.

    Layers are named after their branch, as in torchvision: `branch1x1` where it is alone, `branch7x7_2` where it is the
    second, `branch3x3_2a` and `branch3x3_2b` where the second are two.
    """

    def __init__(self, channels: int, figure: Mapping[str, str], n: int | None = None):
        self._branches: list[list[list[str]]] = []  # the names of layers: of a branch the steps, of a step one or two
        for branch, text in figure.items():
            steps, names, width = text.replace(" n", f" {n}").split(", "), [], channels
            if steps[0] in POOLS:
                self.pool = POOLS[steps.pop(0)]()
                names.append(["pool"])
            for number, step in enumerate(steps, start=1):
                name, beside = branch if len(steps) == 1 else f"{branch}_{number}", step.split(" | ")
                names.append([name] if len(beside) == 1 else [f"{name}a", f"{name}b"])
                for name, described in zip(names[-1], beside, strict=True):
                    layer = conv_unit(width, described)
                    setattr(self, name, layer)
                width = layer.conv.weight.shape[3]
            self._branches.append(names)

    def forward(self, x: Tensor) -> Tensor:
        results: list[Tensor] = []
        for branch in self._branches:
            y = [x]
            for names in branch:
                y = [getattr(self, name)(y[0]) for name in names]
            results += y
        return ops.concat(*results)


class AuxiliaryHead(Module):
    """A classifier near the end, which regularises more than it helps the gradient along (§4); for training only."""

    def __init__(self, channels: int, side: int, num_classes: int):
        size = min(5, side)
        self.avgpool = AvgPool(size, stride=3)  # 17 -> 5
        self.conv0 = unit(channels, 128, 1)
        self.conv1 = unit(128, 768, min(5, (side - size) // 3 + 1), pad=0)  # 1
        self.mean = GlobalAvgPool()
        self.fc = Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mean(self.conv1(self.conv0(self.avgpool(x)))))


class InceptionV3(Model):
    """Eleven modules on ever smaller and wider maps, whose filters are 3x3 or flat, all with BatchNorm (Table 1).

    In training it returns (main, auxiliary) logits, whose losses `models.loss` adds up, for the paper with
    `label_smoothing=0.1`; in evaluation, or with `aux_logits=False`, the main logits only. It is the network of the
    authors' code and of torchvision, which differs from Table 1: 1x1 to 80 channels and 3x3 to 192 between the first
    two pools, and a 5x5 left in the first modules. torchvision's weights expect images as (x - 0.5) / 0.5.

    Below 75 pixels nothing would be left at the end: there the stem keeps the map's size up to its second pool. The
    auxiliary head's windows shrink where its map is smaller than 17x17.

    Weights start from N(0, 0.1²) without what lies two deviations out, in the auxiliary head's last layers from 0.01
    and 0.001 in place of 0.1. Parameters are named as torchvision's: `Conv2d_1a_3x3.conv`, `Mixed_6b.branch7x7_2.bn`,
    `AuxLogits.conv0.conv`, `fc`.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, image_size: int = 299, *, aux_logits: bool = True
    ):
        small = image_size < SMALLEST
        shrink = partial(unit, pad=1 if small else 0)
        with initialise.skipped():  # drawn below
            # With the side of the map at 299 pixels.
            self.Conv2d_1a_3x3 = shrink(in_channels, 32, 3, stride=1 if small else 2)  # 149
            self.Conv2d_2a_3x3 = shrink(32, 32, 3)  # 147
            self.Conv2d_2b_3x3 = unit(32, 64, 3)
            self.maxpool1 = Sequential() if small else halve()  # 73
            self.Conv2d_3b_1x1 = unit(64, 80, 1)
            self.Conv2d_4a_3x3 = shrink(80, 192, 3)  # 71
            self.maxpool2 = halve()  # 35
            self.Mixed_5b = Mixed(192, FIGURE_5, n=32)
            self.Mixed_5c = Mixed(256, FIGURE_5, n=64)
            self.Mixed_5d = Mixed(288, FIGURE_5, n=64)
            self.Mixed_6a = Mixed(288, FIGURE_10)  # 17
            self.Mixed_6b = Mixed(768, FIGURE_6, n=128)
            self.Mixed_6c = Mixed(768, FIGURE_6, n=160)
            self.Mixed_6d = Mixed(768, FIGURE_6, n=160)
            self.Mixed_6e = Mixed(768, FIGURE_6, n=192)
            self.Mixed_7a = Mixed(768, FIGURES_6_AND_10)  # 8
            self.Mixed_7b = Mixed(1280, FIGURE_7)
            self.Mixed_7c = Mixed(2048, FIGURE_7)
            self.avgpool = GlobalAvgPool()
            self.dropout = Dropout(0.5)
            self.fc = Linear(2048, num_classes)

            side, sides = image_size, {}  # sides: after each layer of the stem, and after each pool
            for name, layer in self.named_modules():
                if isinstance(layer, MaxPool) or (isinstance(layer, Conv2d) and name.startswith("Conv2d")):
                    sides[name] = side = side_after(layer, name, side, image_size)
            self.AuxLogits = AuxiliaryHead(768, sides["Mixed_6a.pool"], num_classes) if aux_logits else None

        deviations = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
        for name, layer in self.named_modules():
            if isinstance(layer, Conv2d | Linear):
                initialise.truncated_normal(layer.weight, deviations.get(name, 0.1))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x6e = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x6e)))
        logits = self.fc(self.dropout(self.avgpool(x)))
        if not (self.training and self.AuxLogits):
            return logits
        return logits, self.AuxLogits(x6e)


MODELS: dict[str, Callable[..., Model]] = {"inception-v3": InceptionV3}
