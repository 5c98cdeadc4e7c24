"""The network as a graph: which op takes its input from which."""

from __future__ import annotations

from typing import NamedTuple

from minicnn.autograd import Array, Node, Tensor
from minicnn.layers import Module
from minicnn.look.tracing import trace


class Box(NamedTuple):
    """One op, as it runs: with its ReLU, where both are done in one pass. Box 0 is the image."""

    name: str  # "layer1.0.conv1"
    op: str
    shape: tuple[int, ...]  # of the result, without the batch
    parents: tuple[int, ...]  # the boxes whose results it takes


def network_graph(model: Module, x: Array) -> list[Box]:
    """The network as boxes and arrows: read off the tape, so it is what ran, not what was meant.

    Shortcuts and branches show as arrows that go around.

    x (1, H, W, C) -> boxes in the order in which they run, each after its parents.
    """
    seen = trace(model, x, fused=True)
    boxes = [Box("image", "", x.shape[1:], ())]
    numbers: dict[Node | Tensor, int] = {seen.x: 0}
    for step in seen.steps:
        if step.y.node is None:  # made of constants alone
            continue
        numbers[step.y.node] = len(boxes)
        parents = tuple(numbers[parent] for parent in step.y.node.parents if parent is not None)
        boxes.append(Box(step.name, step.op, step.y.shape[1:], parents))
    return boxes
