"""What an Inception module's branches weigh, and what they are worth: measured on the network, claim 9."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnn import Tensor, device, evaluate, models, no_grad, ops
from minicnn.data import Dataset
from minicnn.layers import Concat, evaluation
from minicnn.look import Share, branch_shares
from minicnn.models import Model
from minicnn.study.claim import SERIES, TABLES, Figures
from minicnn.study.statistics import correlation

SHOWN = 128  # images on which branches are measured
MEASURES = ("own_weights", "weights_behind", "activation", "gradient")


def branch_usefulness(model: Model, images: Dataset) -> Figures:
    """Each branch's shares, and its usefulness: how the loss rises when the branch says nothing but its mean.

    rank_MEASURE: the rank correlation of usefulness with a share, module by module, the mean over the modules; the same
    of both per channel, for a branch of more channels has more of everything.
    """
    x, labels = _batch(model, images)
    shares = _shares(model, x, labels)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, Concat)}
    whole = _loss(model, x, labels)
    rows = []
    ranks: dict[str, list[float]] = {f"rank_{measure}{per}": [] for measure in MEASURES for per in ("", "_per_channel")}
    for name, module in modules.items():
        mine = [share for share in shares if share["module"] == name]
        for i, share in enumerate(mine):
            with _only_the_mean(module, i):
                share["rise"] = _loss(model, x, labels) - whole
            rows.append([f"{name} {share['branch']}", *(f"{share[key]:.3f}" for key in ("channels", *MEASURES)),
                         f"{share['rise']:+.4f}"])  # fmt: skip
        rises, channels = ([share[key] for share in mine] for key in ("rise", "channels"))
        for measure in MEASURES:
            values = [share[measure] for share in mine]
            ranks[f"rank_{measure}"].append(correlation(values, rises))
            per_channel = [[v / c for v, c in zip(column, channels, strict=True)] for column in (values, rises)]
            ranks[f"rank_{measure}_per_channel"].append(correlation(*per_channel))
    head = ["branch", "channels", *(measure.replace("_", " ") for measure in MEASURES), "rise of the loss"]
    table = {
        "title": "Each branch's share of its module, and what it is worth (first seed)",
        "head": head,
        "rows": rows,
    }
    return {**{name: float(np.mean(values)) for name, values in ranks.items()}, TABLES: [table]}


def branch_masses(model: Model, images: Dataset) -> Figures:
    """The share of the weights with which the next layers look at each branch, the mean over all modules."""
    x, labels = _batch(model, images)
    shares = _shares(model, x[:1], labels[:1])
    names = dict.fromkeys(share["branch"] for share in shares)
    means = {name: float(np.mean([s["weights_behind"] for s in shares if s["branch"] == name])) for name in names}
    return {SERIES: {name: [mean] for name, mean in means.items()}}


def _batch(model: Model, images: Dataset) -> tuple[Any, np.ndarray]:
    x, labels = next(iter(evaluate.batches(images, model.image_size)))
    return device.to(x[:SHOWN], device.of(next(model.parameters()).data)), labels[:SHOWN]


def _shares(model: Model, x: Any, labels: np.ndarray) -> list[dict[str, Any]]:
    """The branches' shares; of the gradient the mean over the images' own classes, and of the activation besides."""
    by_class: list[list[Share]] = [branch_shares(model, x[labels == c], int(c)) for c in np.unique(labels)]
    activations = _activations(model, x)
    found = []
    for same in zip(*by_class, strict=True):
        share = same[0]._asdict()
        share["gradient"] = float(np.mean([one.gradient for one in same]))
        share["activation"] = activations[share["module"]].pop(0)
        found.append(share)
    return found


def _activations(model: Model, x: Any) -> dict[str, list[float]]:
    """Each branch's share of the sum of its module's map: {module: [share of the first branch, …]}."""
    found: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, Concat):
                stack.enter_context(_recorded(module, found.setdefault(name, [])))
        with evaluation(model), no_grad():
            model(Tensor(x))
    return {name: [value / (sum(values) or 1.0) for value in values] for name, values in found.items()}


@contextlib.contextmanager
def _recorded(module: Concat, sums: list[float]) -> Iterator[None]:
    """Within the block the module leaves behind how much each of its branches sends."""

    def forward(x: Tensor) -> Tensor:
        branches = [branch(x) for branch in module.children()]
        sums.extend(float(abs(y.data).sum()) for y in branches)
        return ops.concat(*branches)

    with _instead(module, forward):
        yield


@contextlib.contextmanager
def _only_the_mean(module: Concat, silent: int) -> Iterator[None]:
    """Within the block one branch of the module sends the mean of each of its channels, whatever it sees."""

    def forward(x: Tensor) -> Tensor:
        branches = [branch(x) for branch in module.children()]
        y = branches[silent].data
        mean = y.mean(axis=(0, 1, 2), keepdims=True)
        branches[silent] = Tensor(y * 0 + mean)
        return ops.concat(*branches)

    with _instead(module, forward):
        yield


@contextlib.contextmanager
def _instead(module: Concat, forward: Any) -> Iterator[None]:
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


def _loss(model: Model, x: Any, labels: np.ndarray) -> float:
    with evaluation(model), no_grad():
        return models.loss(model(Tensor(x)), device.to(labels, device.of(x))).item()
