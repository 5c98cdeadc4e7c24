"""What each layer of a network makes of an image, and what that costs.

The network is run once on one blank image and the tape is watched: a row for every op, in the order in which they run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from threadpoolctl import threadpool_limits

import kernels
from kernels.geometry import pair
from minicnn import device
from minicnn.autograd import Event, Tensor, no_grad, observe
from minicnn.layers import Module, evaluation
from minicnn.summary.cost import Cost, Reach, columns_of

CONVOLUTIONS = ("conv2d", "conv_relu")
TRAINING_ONLY = "training only"


class Row(NamedTuple):
    """One op of one layer, for one image."""

    layer: str  # "layer1.0.conv1": whose parameters it uses, or else which layer was running
    op: str  # "conv2d"
    shape: tuple[int, ...]  # of the result, without the batch: (H, W, C) or (C,); () where the op was not run
    parameters: int  # trained numbers that are used here for the first time
    multiply_adds: int  # of convolutions and matrix products; what is done element by element is not counted
    activations: int = 0  # that a convolution puts out
    receptive_field: int = 0  # side in pixels, the longer one, of what one place of a map sees; 0 for what is no map
    columns: int = 0  # in the im2col buffer of a convolution


def profile(model: Module, image_size: int | None = None, in_channels: int | None = None) -> list[Row]:
    """A row for each op that the model runs to classify one image; their parameters add up to all of the model's.

    Image size and channels need not be given for a model of `models.build`, which knows its own. Parameters that are
    used in training only, as GoogLeNet's auxiliary heads, come last, as op "training only".

    Receptive fields follow convolutions, pools, subsampling and LCN's window (not its mean over the whole map); of
    paths that meet the largest counts.
    """
    size, channels = image_size or model.image_size, in_channels or model.in_channels  # type: ignore[attr-defined]
    first = next(model.parameters()).data
    image = Tensor(device.to(np.zeros((1, size, size, channels), first.dtype), device.of(first)))

    owners = {id(tensor.data): name.rpartition(".")[0] for name, tensor in model.named_parameters()}
    unused = {id(tensor.data): tensor.size for tensor in model.parameters()}
    reaches: dict[int, Reach | None] = {id(image.data): Reach()}  # by arrays, new ones perhaps of an old one's id
    rows: list[Row] = []

    def watch(event: Event) -> None:
        op, y = event.name, cast(Any, event.outputs[0])
        used = [id(array) for array in event.inputs if id(array) in owners]
        layer = owners[used[0]] if used else running[-1]
        parameters = sum(unused.pop(array, 0) for array in used)
        reach = _reach(event, [seen for array in event.inputs if (seen := reaches.get(id(array)))])
        reaches[id(y)] = reach
        activations, columns = (y.size, _columns(event)) if op in CONVOLUTIONS else (0, 0)
        multiply_adds = _multiply_adds(op, event.inputs, y)
        field = max(reach.sees) if reach else 0
        rows.append(Row(layer, op, y.shape[1:], parameters, multiply_adds, activations, field, columns))

    with (
        names_of_running_layers(model) as running,
        evaluation(model),
        kernels.use("reference"),  # nothing to compile
        threadpool_limits(1, user_api="blas"),  # BLAS threads that wait for each other crawl on a busy machine
        no_grad(),
        observe(watch),
    ):
        model(image)

    left: dict[str, int] = {}
    for array, size in unused.items():
        left[owners[array]] = left.get(owners[array], 0) + size
    return rows + [Row(layer, TRAINING_ONLY, (), parameters, 0) for layer, parameters in left.items()]


def total(rows: Iterable[Row]) -> Cost:
    """What all rows cost together; the receptive field is that of the convolution that sees most."""
    rows = list(rows)
    return Cost(
        weights=sum(row.parameters for row in rows),
        multiply_adds=sum(row.multiply_adds for row in rows),
        activations=sum(row.activations for row in rows),
        receptive_field=max((row.receptive_field for row in rows if row.op in CONVOLUTIONS), default=0),
        columns=max((row.columns for row in rows), default=0),
    )


def stages(rows: Iterable[Row]) -> dict[str, Cost]:
    """The cost of all ops that make a map of one size, by that size: {"56x56": …, "28x28": …, "no map": …}.

    "no map" is what comes after the last one, the fully connected layers; "training only" what is not run here.
    """
    by_size: dict[str, list[Row]] = {}
    for row in rows:
        h_w = "x".join(map(str, row.shape[:2])) if len(row.shape) == 3 else "no map"
        by_size.setdefault(TRAINING_ONLY if row.op == TRAINING_ONLY else h_w, []).append(row)
    return {size: total(of_size) for size, of_size in by_size.items()}


def _multiply_adds(op: str, inputs: tuple[Any, ...], y: Any) -> int:
    """How many products an op adds up: for each output, as many as it has inputs under its weights."""
    if op in CONVOLUTIONS:
        return y.size * math.prod(inputs[1].shape[:3])
    if op in ("linear", "matmul"):
        return y.size * inputs[0].shape[-1]
    return 0


def _columns(event: Event) -> int:
    """The numbers in a convolution's im2col buffer."""
    x, w, y = event.inputs[0], event.inputs[1], cast(Any, event.outputs[0])
    stride = max(pair(event.options.get("stride", 1)))
    return columns_of(y.shape[1] * y.shape[2], w.shape[0] * w.shape[1], x.shape[3], stride)


def _reach(event: Event, inputs: list[Reach]) -> Reach | None:
    """What the result of an op sees, of what its inputs see; None where it is no map, or not made of the image."""
    if not inputs or cast(Any, event.outputs[0]).ndim != 4:
        return None
    inputs[0] = inputs[0].through(*_window(event))
    sees, step = zip(*inputs, strict=True)
    return Reach(*((max(h), max(w)) for h, w in (zip(*sees, strict=True), zip(*step, strict=True))))


def _window(event: Event) -> tuple[tuple[int, int], tuple[int, int]]:
    """The window, with the gaps of a dilated one, and the stride of an op that slides over its first input."""
    inputs, options = event.inputs, event.options
    if event.name in CONVOLUTIONS:
        (kh, kw), (dh, dw) = inputs[1].shape[:2], pair(options.get("dilation", 1))
        return ((kh - 1) * dh + 1, (kw - 1) * dw + 1), pair(options.get("stride", 1))
    if event.name in ("max_pool", "avg_pool"):
        stride = options.get("stride")
        return pair(inputs[1]), pair(inputs[1] if stride is None else stride)
    if event.name == "subsample":
        return (1, 1), pair(inputs[1])
    if event.name == "lcn":
        size = 2 * options.get("size", 9) - 1  # it looks at differences in a window, each from its own window's mean
        return (size, size), (1, 1)
    return (1, 1), (1, 1)


@contextlib.contextmanager
def names_of_running_layers(model: Module) -> Iterator[list[str]]:
    """A list whose last element is, within the block, the name of the innermost layer that is running."""
    running = [""]

    def announced(name: str, forward: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            running.append(name)
            try:
                return forward(*args, **options)
            finally:
                running.pop()

        return call

    layers = list({id(module): (name, module) for name, module in model.named_modules()}.values())
    for name, module in layers:
        module.forward = announced(name, module.forward)  # type: ignore[method-assign]
    try:
        yield running
    finally:
        for _, module in layers:
            del module.forward
