"""Which kernels are measured, and on which arrays: the layers of the networks, at their usual batch sizes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Shape = tuple[int, ...]

COLD = 96 << 20  # bytes of operands that are read before the same are read again: more than caches hold
MOST_COPIES = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel with the shapes of its operands, the options it is called with, and what it has to do at the least."""

    kernel: str  # a function of kernels.cpu, or of minicnn_kernels.py
    layer: str  # what the table calls this size of it
    operands: tuple[Shape, ...]
    options: dict[str, Any]
    moved: int  # bytes: every input and output once
    multiply_adds: int = 0

    @property
    def name(self) -> str:
        return f"{self.kernel} {self.layer}"

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Random operands, the same at every call."""
        rng = np.random.default_rng(0)
        return tuple(rng.standard_normal(shape, np.float32) for shape in self.operands)

    def cold_arrays(self) -> list[tuple[np.ndarray, ...]]:
        """The operands in as many copies as push each other out of the caches: at least 1, at most 64."""
        first = self.arrays()
        copies = min(MOST_COPIES, -(-COLD // (bytes_of(*self.operands) or self.moved)))
        return [first, *(tuple(array.copy() for array in first) for _ in range(copies - 1))]


def bytes_of(*shapes: Shape) -> int:
    return 4 * sum(map(math.prod, shapes))  # float32


# --- Products ----------------------------------------------------------------------------------------------------


def convolution(layer: str, n: int, side: int, c: int, o: int, size: int, stride: int = 1) -> Iterator[Case]:
    """A convolution that keeps the map's size but for its stride: forward, and both gradients."""
    options = {"stride": stride, "pad": size // 2}
    x, w, y = (n, side, side, c), (size, size, c, o), (n, -(-side // stride), -(-side // stride), o)
    work = {"moved": bytes_of(x, w, y), "multiply_adds": math.prod(y) * size * size * c}
    yield Case("conv2d", layer, (x, w), options, **work)
    yield Case("conv2d_input_grad", layer, (y, w), {"x_shape": x, **options}, **work)
    yield Case("conv2d_weight_grad", layer, (y, x), {"w_shape": w, **options}, **work)


def fully_connected(layer: str, n: int, inputs: int, outputs: int) -> Iterator[Case]:
    x, w, y = (n, inputs), (inputs, outputs), (n, outputs)
    work = {"moved": bytes_of(x, w, y), "multiply_adds": n * inputs * outputs}
    yield Case("linear", layer, (x, w), {}, **work)
    yield Case("linear_input_grad", layer, (y, w), {}, **work)
    yield Case("linear_weight_grad", layer, (y, x), {}, **work)


CONVOLUTIONS: dict[str, list[Case]] = {
    "ResNet-18": [
        *convolution("7×7/2 3→64 @224", 16, 224, 3, 64, 7, 2),
        *convolution("3×3 64→64 @56", 16, 56, 64, 64, 3),
        *convolution("3×3/2 64→128 @56", 16, 56, 64, 128, 3, 2),
        *convolution("3×3 128→128 @28", 16, 28, 128, 128, 3),
        *convolution("3×3 256→256 @14", 16, 14, 256, 256, 3),
        *convolution("3×3 512→512 @7", 16, 7, 512, 512, 3),
    ],
    "ResNet-50": [
        *convolution("1×1 64→64 @56", 16, 56, 64, 64, 1),
        *convolution("1×1 64→256 @56", 16, 56, 64, 256, 1),
        *convolution("1×1 256→64 @56", 16, 56, 256, 64, 1),
        *convolution("1×1/2 256→512 @56", 16, 56, 256, 512, 1, 2),
        *convolution("3×3/2 128→128 @56", 16, 56, 128, 128, 3, 2),
        *convolution("1×1 128→512 @28", 16, 28, 128, 512, 1),
        *convolution("1×1 512→128 @28", 16, 28, 512, 128, 1),
        *convolution("3×3/2 256→256 @28", 16, 28, 256, 256, 3, 2),
        *convolution("1×1 256→1024 @14", 16, 14, 256, 1024, 1),
        *convolution("1×1 1024→256 @14", 16, 14, 1024, 256, 1),
        *convolution("3×3/2 512→512 @14", 16, 14, 512, 512, 3, 2),
        *convolution("1×1 512→2048 @7", 16, 7, 512, 2048, 1),
        *convolution("1×1 2048→512 @7", 16, 7, 2048, 512, 1),
    ],
    "VGG-16": [
        *convolution("3×3 3→64 @224", 8, 224, 3, 64, 3),
        *convolution("3×3 64→64 @224", 8, 224, 64, 64, 3),
        *convolution("3×3 256→256 @56", 8, 56, 256, 256, 3),
        *convolution("3×3 512→512 @28", 8, 28, 512, 512, 3),
        *convolution("3×3 512→512 @14", 8, 14, 512, 512, 3),
    ],
    "GoogLeNet": [
        *convolution("1×1 192→64 @28", 16, 28, 192, 64, 1),
        *convolution("5×5 16→32 @28", 16, 28, 16, 32, 5),
        *convolution("5×5 32→96 @28", 16, 28, 32, 96, 5),
        *convolution("1×1 480→192 @14", 16, 14, 480, 192, 1),
    ],
    "ResNet-20": [
        *convolution("3×3 3→16 @32", 128, 32, 3, 16, 3),
        *convolution("3×3 16→16 @32", 128, 32, 16, 16, 3),
        *convolution("3×3/2 16→32 @32", 128, 32, 16, 32, 3, 2),
        *convolution("3×3 32→32 @16", 128, 16, 32, 32, 3),
        *convolution("3×3/2 32→64 @16", 128, 16, 32, 64, 3, 2),
        *convolution("3×3 64→64 @8", 128, 8, 64, 64, 3),
    ],
}

FULLY_CONNECTED = [
    *fully_connected("8 × 25088→4096", 8, 25088, 4096),
    *fully_connected("32 × 25088→4096", 32, 25088, 4096),
    *fully_connected("8 × 4096→1000", 8, 4096, 1000),
    *fully_connected("32 × 4096→1000", 32, 4096, 1000),
    *fully_connected("16 × 2048→1000", 16, 2048, 1000),
    *fully_connected("128 × 64→10", 128, 64, 10),
]


# --- All else: bound by memory -----------------------------------------------------------------------------------


def normalisation(n: int, side: int, c: int, residual: bool) -> Iterator[Case]:
    """BatchNorm in training, with ReLU: the statistics alone, all of forward, and backward."""
    x, layer = (n, side, side, c), f"{n} × {side}² × {c}"
    channel, added = ((c,), (c,)), (x,) if residual else ()
    if not residual:
        yield Case("batch_norm_stats", layer, (x,), {}, bytes_of(x))
    layer += " + residual" if residual else ""
    yield Case("bn_relu", layer, (x, *channel, *added), {}, bytes_of(x, x, *added))
    # reads gy, y and x; writes gx, and the residual's gradient
    yield Case("bn_relu_grad", layer, (x, x, *channel, *added), {}, bytes_of(x, x, x, x, *added))


def pooling(kind: str, n: int, side: int, c: int, size: int, stride: int, pad: int = 0) -> Iterator[Case]:
    out = (side + 2 * pad - size) // stride + 1
    x, y, options = (n, side, side, c), (n, out, out, c), {"size": size, "stride": stride, "pad": pad}
    winners = math.prod(y) if kind == "max_pool" else 0  # a byte each
    layer = f"{size}×{size}/{stride}, {n} × {side}² × {c}"
    yield Case(kind, layer, (x,), options, bytes_of(x, y) + winners)
    yield Case(f"{kind}_grad", layer, (y, x), options, bytes_of(x, y) + winners)


def elementwise(kernel: str, *shape: int, **options: Any) -> Iterator[Case]:
    """A kernel on a whole array, and its gradient from gy and one array more."""
    layer = " × ".join(map(str, shape))
    yield Case(kernel, layer, (shape,), options, bytes_of(shape, shape))
    yield Case(f"{kernel}_grad", layer, (shape, shape), options, bytes_of(shape, shape, shape))


def joining(n: int, side: int, *channels: int) -> Iterator[Case]:
    maps = [(n, side, side, c) for c in channels]
    layer = f"{n} × {side}² × {'+'.join(map(str, channels))}"
    yield Case("concat", layer, tuple(maps), {}, 2 * bytes_of(*maps))


def loss(n: int, classes: int) -> Iterator[Case]:
    logits, layer = (n, classes), f"{n} × {classes}"
    yield Case("cross_entropy", layer, (logits,), {}, bytes_of(logits, logits))
    yield Case("cross_entropy_grad", layer, ((n,), logits), {}, bytes_of(logits, logits))


def dropout(n: int, c: int, p: float) -> Iterator[Case]:
    for kernel in ("dropout", "dropout_grad"):
        yield Case(kernel, f"{n} × {c}", ((n, c),), {"p": p}, bytes_of((n, c), (n, c)))


def optimiser(network: str, parameters: int) -> Iterator[Case]:
    """SGD with momentum on all parameters: reads weights, gradients and velocities; writes weights and velocities."""
    yield Case("sgd_step", network, (), {"network": network}, 5 * bytes_of((parameters,)))


LRN = {"size": 5, "alpha": 2e-5, "beta": 0.75, "k": 1.0}  # GoogLeNet's

OTHERS: dict[str, list[Case]] = {
    "fully connected": FULLY_CONNECTED,
    "normalisation": [
        *normalisation(16, 112, 64, residual=False),
        *normalisation(16, 56, 64, residual=True),
        *normalisation(16, 56, 256, residual=True),
        *normalisation(16, 14, 256, residual=False),
        *normalisation(16, 14, 1024, residual=True),
        *normalisation(128, 32, 16, residual=True),
        *normalisation(128, 8, 64, residual=False),
        *elementwise("lrn", 16, 56, 56, 64, **LRN),
        *elementwise("lrn", 16, 56, 56, 192, **LRN),
    ],
    "pooling and the rest": [
        *pooling("max_pool", 16, 112, 64, 3, 2, 1),
        *pooling("max_pool", 8, 224, 64, 2, 2),
        *pooling("max_pool", 16, 28, 192, 3, 1, 1),
        *pooling("avg_pool", 16, 14, 512, 5, 3),
        *pooling("avg_pool", 16, 7, 2048, 7, 1),
        *elementwise("relu", 8, 224, 224, 64),
        *elementwise("relu", 16, 28, 28, 128),
        *joining(16, 28, 64, 128, 32, 32),
        *joining(16, 7, 384, 384, 128, 128),
        *loss(16, 1000),
        *loss(128, 10),
        *dropout(32, 4096, 0.5),
        *dropout(16, 1024, 0.4),
        *optimiser("resnet50", 25_557_032),
        *optimiser("resnet20", 269_722),
    ],
}

GROUPS = CONVOLUTIONS | OTHERS
CASES = {case.name: case for group in GROUPS.values() for case in group}
