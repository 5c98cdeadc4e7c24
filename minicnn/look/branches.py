"""Parallel branches: which filter size an Inception module relies on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from kernels import array_module
from minicnn.autograd import Array, Node, Tensor
from minicnn.layers import Module
from minicnn.look.tracing import Step, trace

# What leaves each channel where it is, so that a layer behind still tells the branches apart.
KEEPS_CHANNELS = {
    "relu", "lrn", "lcn", "batch_norm", "dropout", "max_pool", "avg_pool", "global_avg_pool", "mean", "reshape",
}  # fmt: skip


class Share(NamedTuple):
    """One branch of one module; each figure is its share of the module's total."""

    module: str  # "inception3a"
    branch: str  # "branch2"
    channels: float  # of the channels of the map: what the others would be if all channels counted alike
    own_weights: float  # of Σ|w| over the weights in the branch
    weights_behind: float  # of Σ|w| over the weights with which the next layers look at the map
    gradient: float  # of Σ|∂score/∂y| over the map


def branch_shares(model: Module, x: Array, label: int) -> list[Share]:
    """How much each branch of an Inception module counts: its share of the weights, and of the gradient of a class.

    The module offers 1x1, 3x3 and 5x5 filters and a pool side by side; which of them the network uses is learned. The
    weights with which the *next* layers look at a branch's channels say how much it is used on the whole, the gradient
    of the class's score how much it would matter for this image. Both are to be read beside the branch's share of the
    channels. (The Hebbian principle that the paper is led by has no formula in it: this is a measurement of ours.)

    x (N, H, W, C). Empty for a network that concatenates no maps. Behind a module, the weights of the first layers
    count that are reached through pools, activations and normalisation; where there are none the share is 0.
    Source of the module: Szegedy et al. 2014 (arXiv:1409.4842, figure 2).
    """
    seen = trace(model, x, keep="concat")
    seen.score(label)
    made_by: dict[Node | Tensor | None, Step] = {step.y.node: step for step in seen.steps if step.y.node}
    users: dict[Node | Tensor | None, list[Step]] = {}
    for step in seen.steps:
        for parent in _parents(step):
            users.setdefault(parent, []).append(step)
    shares = []
    for step in seen.steps:
        sizes = [array.shape[-1] for array in step.inputs if step.op == "concat" and array.ndim == 4]
        if len(sizes) < 2 or sum(sizes) != step.y.shape[-1]:  # no concat, or one of positions
            continue
        names = [_branch(step, made_by.get(parent)) for parent in _parents(step)]
        behind = sum(_mass_of_channels(user, step.y.shape[-1]) for user in _weighted(step, users))
        gradient: Array = step.y.grad
        columns = (
            np.array(sizes, float),
            np.array([_mass(model, f"{step.layer}.{name}") for name in names]),
            _sums(behind, sizes),
            _sums(abs(gradient).sum(axis=(0, 1, 2)), sizes),
        )
        rows = zip(*(column / (column.sum() or 1) for column in columns), strict=True)
        shares += [Share(step.layer, name, *map(float, row)) for name, row in zip(names, rows, strict=True)]
    return shares


def _parents(step: Step) -> tuple[Node | Tensor | None, ...]:
    """What an op's arguments were made by: None for constants."""
    return step.y.node.parents if step.y.node else ()


def _branch(module: Step, last: Step | None) -> str:
    """The name of a branch: of the module's child in which its last step ran."""
    inside = (last.name if last else "input").removeprefix(f"{module.layer}.")
    return inside.partition(".")[0]


def _mass(model: Module, branch: str) -> float:
    """Σ|w| over the filters of a branch, biases and normalisation aside."""
    arrays = model.state_dict().items()
    return sum(float(abs(w).sum()) for name, w in arrays if w.ndim >= 2 and name.startswith(f"{branch}."))


def _weighted(step: Step, users: Mapping[Node | Tensor | None, list[Step]]) -> Iterator[Step]:
    """The first steps behind this one that multiply by weights, as far as its channels can be told apart."""
    waiting = list(users.get(step.y.node, ()))
    while waiting:
        user = waiting.pop()
        if user.op in ("conv2d", "linear"):
            yield user
        elif user.op in KEEPS_CHANNELS:
            waiting += users.get(user.y.node, ())


def _mass_of_channels(step: Step, channels: int) -> Array:
    """Σ|w| over the weights that look at each channel of the input: (channels,)."""
    w = abs(step.inputs[1])
    if step.op == "linear":  # (in, O), where a flattened map has its channels last
        return w.reshape(-1, channels, w.shape[-1]).sum(axis=(0, 2))
    groups = channels // w.shape[2]
    by_group = w.sum(axis=(0, 1)).reshape(w.shape[2], groups, -1).sum(axis=2)  # (C/groups, groups)
    return by_group.T.reshape(-1)


def _sums(values: Array | int, sizes: Iterable[int]) -> np.ndarray:
    """The sum over each branch's channels."""
    sizes = list(sizes)
    if isinstance(values, int):  # nothing was added up
        return np.zeros(len(sizes))
    ends = np.cumsum(sizes)[:-1].tolist()
    return np.array([float(part.sum()) for part in array_module(values).split(values, ends)])
