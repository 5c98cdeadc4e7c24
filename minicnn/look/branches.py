"""Parallel branches: which filter size an Inception module relies on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from kernels import array_module
from minicnn.autograd import Array, Node, Tensor
from minicnn.layers import Module
from minicnn.look.tracing import Step, trace

Made = Node | Tensor | None  # what is at the end of an edge of the tape
Makers = dict[Made, Step]  # the step that made it
Users = dict[Made, list[Step]]  # the steps that use it

WEIGHTED = ("conv2d", "linear")
# What leaves each channel where it is, so that a layer behind still tells the branches apart.
KEEPS_CHANNELS = {
    "relu", "lrn", "lcn", "batch_norm", "dropout", "max_pool", "avg_pool", "global_avg_pool", "mean", "reshape",
}  # fmt: skip


class Share(NamedTuple):
    """One branch of one module; each figure is its share of the module's total."""

    module: str  # "inception3a"
    branch: str  # "branch2"
    channels: float  # of the channels of the map: what the others would be if all channels counted alike
    own_weights: float  # of Σ|w| over the weights in the branches
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
    made_by: Makers = {step.y.node: step for step in seen.steps if step.y.node}
    users: Users = {}
    for step in seen.steps:
        for parent in _parents(step):
            users.setdefault(parent, []).append(step)
    shares = []
    for step in (step for step in seen.steps if _joins_branches(step, users)):
        sizes = [array.shape[-1] for array in step.inputs]
        behind = sum(_mass_of_channels(user, step.y.shape[-1]) for user in _weighted(step, users))
        gradient: Array = step.y.grad
        columns = (
            np.array(sizes, float),
            _own_masses(step, made_by),
            _sums(behind, sizes),
            _sums(abs(gradient).sum(axis=(0, 1, 2)), sizes),
        )
        names = [_branch(step, made_by.get(parent), made_by) for parent in _parents(step)]
        rows = zip(*(column / (column.sum() or 1) for column in columns), strict=True)
        shares += [Share(step.layer, name, *map(float, row)) for name, row in zip(names, rows, strict=True)]
    return shares


def _parents(step: Step) -> tuple[Made, ...]:
    """What an op's arguments were made by: None for constants."""
    return step.y.node.parents if step.y.node else ()


def _joins_branches(step: Step, users: Users) -> bool:
    """Whether a step lays the maps of several branches side by side, and is not itself a part of a branch."""
    if step.op != "concat" or step.y.ndim != 4 or any(user.op == "concat" for user in users.get(step.y.node, ())):
        return False
    channels = [array.shape[-1] for array in step.inputs]
    return len(channels) > 1 and sum(channels) == step.y.shape[-1]  # positions can be laid side by side too


def _branch(module: Step, last: Step | None, made_by: Makers) -> str:
    """The name of a branch: of the module's child in which its last step ran; "2a+2b" where the branch splits."""
    if last is None or last.op != "concat":
        return (last.name if last else "input").removeprefix(f"{module.layer}.").partition(".")[0]
    return "+".join(_branch(module, made_by.get(parent), made_by) for parent in _parents(last))


def _own_masses(module: Step, made_by: Makers) -> np.ndarray:
    """For each branch, Σ|w| over the weights on its way that are not on the way of all the others."""
    ways = [_upstream(parent, made_by) for parent in _parents(module)]
    shared = set.intersection(*ways)
    own = [[step for node, step in made_by.items() if node in way - shared] for way in ways]
    return np.array([sum(float(abs(s.inputs[1]).sum()) for s in way if s.op in WEIGHTED) for way in own])


def _upstream(node: Made, made_by: Makers) -> set[Made]:
    """An op and all ops that it depends on."""
    found: set[Made] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node in made_by and node not in found:
            found.add(node)
            waiting += _parents(made_by[node])
    return found


def _weighted(step: Step, users: Users) -> Iterator[Step]:
    """The first steps behind this one that multiply by weights, as far as its channels can be told apart."""
    waiting = list(users.get(step.y.node, ()))
    while waiting:
        user = waiting.pop()
        if user.op in WEIGHTED:
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
