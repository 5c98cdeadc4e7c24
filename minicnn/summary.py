"""`python -m minicnn.summary MODEL`: what each layer of a network makes of an image, and what that costs.

The network is run once on one blank image and the tape is watched: a row for every op, in the order in which they run.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from threadpoolctl import threadpool_limits

import kernels
from minicnn import _cli, device, init, models
from minicnn.autograd import Event, Tensor, no_grad, observe
from minicnn.layers import Module


class Row(NamedTuple):
    """One op of one layer, for one image."""

    layer: str  # "layer1.0.conv1": whose parameters it uses, or else which layer was running
    op: str  # "conv2d"
    shape: tuple[int, ...]  # of the result, without the batch: (H, W, C) or (C,); () where the op was not run
    parameters: int  # trained numbers that are used here for the first time
    multiply_adds: int  # of convolutions and matrix products; what is done element by element is not counted


def profile(model: Module, image_size: int | None = None, in_channels: int | None = None) -> list[Row]:
    """A row for each op that the model runs to classify one image; their parameters add up to all of the model's.

    Image size and channels need not be given for a model of `models.build`, which knows its own. Parameters that are
    used in training only, as GoogLeNet's auxiliary heads, come last, as op "training only".
    """
    size, channels = image_size or model.image_size, in_channels or model.in_channels  # type: ignore[attr-defined]
    first = next(model.parameters()).data
    image = Tensor(device.to(np.zeros((1, size, size, channels), first.dtype), device.of(first)))

    owners = {id(tensor.data): name.rpartition(".")[0] for name, tensor in model.named_parameters()}
    unused = {id(tensor.data): tensor.size for tensor in model.parameters()}
    rows: list[Row] = []

    def watch(event: Event) -> None:
        op, y = event.name, cast(Any, event.outputs[0])
        used = [id(array) for array in event.inputs if id(array) in owners]
        layer = owners[used[0]] if used else running[-1]
        parameters = sum(unused.pop(array, 0) for array in used)
        rows.append(Row(layer, op, y.shape[1:], parameters, _multiply_adds(op, event.inputs, y)))

    with (
        _names_of_running_layers(model) as running,
        _evaluation(model),
        kernels.use("reference"),  # nothing to compile
        threadpool_limits(1, user_api="blas"),  # BLAS threads that wait for each other crawl on a busy machine
        no_grad(),
        observe(watch),
    ):
        model(image)

    left: dict[str, int] = {}
    for array, size in unused.items():
        left[owners[array]] = left.get(owners[array], 0) + size
    return rows + [Row(layer, "training only", (), parameters, 0) for layer, parameters in left.items()]


def _multiply_adds(op: str, inputs: tuple[Any, ...], y: Any) -> int:
    """How many products an op adds up: for each output, as many as it has inputs under its weights."""
    if op in ("conv2d", "conv_relu"):
        return y.size * math.prod(inputs[1].shape[:3])
    if op in ("linear", "matmul"):
        return y.size * inputs[0].shape[-1]
    return 0


@contextlib.contextmanager
def _names_of_running_layers(model: Module) -> Iterator[list[str]]:
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


@contextlib.contextmanager
def _evaluation(model: Module) -> Iterator[None]:
    """Within the block, the model is in evaluation mode."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def table(rows: list[Row]) -> str:
    """The rows as aligned text, with their totals."""
    cells = [("layer", "op", "output", "parameters", "multiply-adds")]
    cells += [
        (row.layer, row.op, "x".join(map(str, row.shape)), f"{row.parameters:,}", f"{row.multiply_adds:,}")
        for row in rows
    ]
    parameters, multiply_adds = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    cells.append(("total", "", "", f"{parameters:,}", f"{multiply_adds:,}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    parser = _cli.Parser(
        prog="python -m minicnn.summary",
        description="Print each layer's output, parameters and multiply-adds for one image, and the totals.",
    )
    parser.add_argument("model", nargs="?", help="a network's name; without it, all names are listed")
    parser.add_argument("--variant", type=_cli.variant, default={}, metavar="JSON", help="such as '{\"bn\": true}'")
    parser.add_argument("--classes", type=int, help="how many it tells apart (default: the paper's)")
    parser.add_argument("--channels", type=int, default=3, help="of the image")
    parser.add_argument("--image-size", type=int, help="side of the image in pixels (default: the paper's)")
    options = parser.parse_args(arguments)
    if options.model is None:
        print("\n".join(models.names()))
        return 0
    with init.skipped():
        model = models.build(options.model, options.classes, options.channels, options.image_size, **options.variant)
    print(table(profile(model)))
    from kernels.cpu import machine

    print(f"kernels on this machine: {machine.path()}", file=sys.stderr)  # not a part of the table
    return 0


if __name__ == "__main__":
    sys.exit(main())
