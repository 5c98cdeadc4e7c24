"""BN-Inception: GoogLeNet with BatchNorm behind each convolution (Ioffe & Szegedy, arXiv 1502.03167)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minicnn import ops
from minicnn.autograd import Tensor
from minicnn.layers import AvgPool, Concat, GlobalAvgPool, Linear, MaxPool, Module, Sequential
from minicnn.models.googlenet import ConvUnit
from minicnn.models.model import SMALL, Model, side_after

# Figure 5: the channels of each module's convolutions, and the pool of its last branch. GoogLeNet's 5x5 has become two
# 3x3. 3c and 4e halve the map: no 1x1 branch, a stride of 2 where the others end, and a pool that is not projected.
# fmt: off
TABLE = {
    #      #1x1  #3x3   #3x3  double  double  pool   proj
    #            reduce       reduce  3x3
    "3a": (  64,   64,   64,    64,     96,   "avg",   32),
    "3b": (  64,   64,   96,    64,     96,   "avg",   64),
    "3c": (   0,  128,  160,    64,     96,   "max",    0),
    "4a": ( 224,   64,   96,    96,    128,   "avg",  128),
    "4b": ( 192,   96,  128,    96,    128,   "avg",  128),
    "4c": ( 160,  128,  160,   128,    160,   "avg",  128),
    "4d": (  96,  128,  192,   160,    192,   "avg",  128),
    "4e": (   0,  128,  192,   192,    256,   "max",    0),
    "5a": ( 352,  192,  320,   160,    224,   "avg",  128),
    "5b": ( 352,  192,  320,   192,    224,   "max",  128),
}
# fmt: on

# A bias changes nothing before a BatchNorm (§3.2), but published weights and their counts include it.
unit = partial(ConvUnit, bn=True, bias=True)
halve = partial(MaxPool, 3, stride=2, ceil=True)
POOLS: dict[str, Callable[[], Module]] = {
    "avg": partial(AvgPool, 3, stride=1, pad=1, count_pad=True),
    "max": partial(MaxPool, 3, stride=1, pad=1),
}


class HalvingPool(Module):
    """A 3x3 max pool of stride 2 beside padded 3x3 convolutions of stride 2: its map is as large as theirs.

    On an even side its windows are Caffe's, unpadded and rounded up; on an odd side that would be one too few.
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool(x, 3, stride=2, pad=(x.shape[1] % 2, x.shape[2] % 2), ceil=True)


def inception(channels: int, name: str) -> Concat:
    """A row of the table: branches on the same map, whose results lie side by side."""
    n1, n3_reduce, n3, double_reduce, double, pool, pool_proj = TABLE[name]
    stride = 1 if pool_proj else 2
    branches: dict[str, Module] = {
        "branch2": Sequential(unit(channels, n3_reduce, 1), unit(n3_reduce, n3, 3, stride=stride)),
        "branch3": Sequential(
            unit(channels, double_reduce, 1),
            unit(double_reduce, double, 3),
            unit(double, double, 3, stride=stride),
        ),
    }
    if stride == 2:
        return Concat(**branches, branch4=HalvingPool())
    project = Sequential(POOLS[pool](), unit(channels, pool_proj, 1))
    return Concat(branch1=unit(channels, n1, 1), **branches, branch4=project)


class BNInception(Model):
    """Ten modules of 1x1 and 3x3 convolutions, each with its BatchNorm.

    With LRN and dropout gone and a rate five times as high, the paper's network needs 2.1 million steps to the accuracy
    that GoogLeNet reaches in 31 (Figure 3). The first layer is a plain 7x7 convolution, as in published weights; the
    paper's is separable. Up to 64 pixels it is 3x3 with stride 1, and no pool follows.

    Weights start from He's normal distribution. Parameters are named in GoogLeNet's manner: `conv1.conv`, `conv1.bn`,
    `inception3a.branch3.2.conv`, `fc`.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, image_size: int = 224):
        small = image_size <= SMALL

        # The rows of Figure 5, with the side of the map at 224 pixels.
        self.conv1 = unit(in_channels, 64, 3) if small else unit(in_channels, 64, 7, stride=2)  # 112
        self.maxpool1 = Sequential() if small else halve()  # 56
        self.conv2 = unit(64, 64, 1)
        self.conv3 = unit(64, 192, 3)
        self.maxpool2 = halve()  # 28
        self.inception3a = inception(192, "3a")
        self.inception3b = inception(256, "3b")
        self.inception3c = inception(320, "3c")  # 14
        self.inception4a = inception(576, "4a")
        self.inception4b = inception(576, "4b")
        self.inception4c = inception(576, "4c")
        self.inception4d = inception(608, "4d")
        self.inception4e = inception(608, "4e")  # 7
        self.inception5a = inception(1056, "5a")
        self.inception5b = inception(1024, "5b")
        self.avgpool = GlobalAvgPool()
        self.fc = Linear(1024, num_classes)

        side = image_size if small else (image_size + 1) // 2
        for name, layer in self.named_children():
            if isinstance(layer, MaxPool):
                side = side_after(layer, name, side, image_size)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


MODELS: dict[str, Callable[..., Model]] = {"bn-inception": BNInception}
