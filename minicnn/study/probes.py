"""What is measured on the tape of a network: its responses, its pre-activations, the gradient on its way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minicnn
from minicnn import Tensor, device, evaluate, models, no_grad, observe, ops
from minicnn.autograd import Event
from minicnn.data import Dataset, augment
from minicnn.layers import evaluation
from minicnn.look import layer_responses
from minicnn.models import Model
from minicnn.study.claim import SERIES, Figures
from minicnn.study.engine import Bench

ACTIVATIONS = ("relu", "sigmoid", "tanh")
SHOWN = 128  # images that a trained network is measured on
SMALLEST = 1e-30  # of a number whose logarithm is taken


def responses(model: Model, images: Dataset) -> Figures:
    """The standard deviation of each layer's response after BatchNorm, before ReLU and addition (ResNet's Figure 7)."""
    stds = list(layer_responses(model, _some(model, images)).values())
    return {"response_std": float(np.mean(stds)), SERIES: {"response std by layer": stds}}


def pre_activations(model: Model, images: Dataset) -> Figures:
    """What the activations are given, layer by layer: its spread, its quantiles, and how many channels never pass any.

    spread_decades: between the layer with the widest and the one with the narrowest spread, in powers of ten.
    """
    by_layer: dict[str, list[float]] = {"std": [], "5 % quantile": [], "95 % quantile": []}
    dead: list[float] = []

    def measure(event: Event) -> None:
        if event.name not in ACTIVATIONS:
            return
        x, y = device.to(event.inputs[0], "cpu"), device.to(event.outputs[0], "cpu")
        for name, value in zip(by_layer, (x.std(), *np.quantile(x, (0.05, 0.95))), strict=True):
            by_layer[name].append(float(value))
        if event.name == "relu":
            dead.append(float((y.max(axis=tuple(range(y.ndim - 1))) <= 0).mean()))

    _watch_forward(model, images, measure)
    logs = np.log10(np.maximum(by_layer["std"], SMALLEST))
    return {
        "spread_decades": float(logs.max() - logs.min()),
        "dead_share": 100 * float(np.mean(dead)) if dead else 0.0,
        SERIES: {f"pre-activation {name} by layer": values for name, values in by_layer.items()},
    }


def _watch_forward(model: Model, images: Dataset, measure: Callable[[Event], None]) -> None:
    """Show the network its first test images in evaluation mode, each op alone, and `measure` every one of them."""
    with evaluation(model), no_grad(), ops.fused.disabled(), observe(measure):
        model(Tensor(_some(model, images)))


def _some(model: Model, images: Dataset) -> Any:
    """The first images as the network is tested on them, where its weights are."""
    x, _ = next(iter(evaluate.batches(images, model.image_size)))
    return device.to(x[:SHOWN], device.of(next(model.parameters()).data))


def start_gradients(
    bench: Bench, seed: int, *, model: str, variant: dict[str, Any], images: int, draws: int
) -> Figures:
    """How large the gradient is that arrives at each activation of a network that has not learned anything yet.

    `draws` networks are drawn for a seed, each shown `images` training images; figures are means over them.
    decades: from the last activation to the first, in powers of ten, by how much the gradient has shrunk.
    """
    train, _ = bench.images()
    arrived = []
    for draw in range(draws * seed, draws * (seed + 1)):
        minicnn.seed(draw)
        network = models.build(model, train.num_classes, train.channels, train.image_size, **variant)
        network.to(device=bench.device)
        chosen = np.random.default_rng(draw).choice(len(train), min(images, len(train)), replace=False)
        pixels, labels = train.take(np.sort(chosen))
        x = augment.normalise(pixels, train.mean, train.std)
        arrived.append(_gradients(network, device.to(x, bench.device), device.to(labels, bench.device)))
    norms = np.maximum(np.mean(arrived, axis=0), SMALLEST)  # (layers,), the first layer first
    return {
        "decades": float(np.log10(norms[-1] / norms[0])),
        SERIES: {"gradient at the start by layer": norms.tolist()},
    }


def _gradients(model: Model, x: Any, labels: Any) -> list[float]:
    """The norm of the loss's gradient with respect to each activation's output, the first layer first."""
    norms: list[float] = []

    def measure(event: Event) -> None:
        if event.phase == "backward" and event.name in ACTIVATIONS:
            norms.append(float((event.inputs[0].astype(np.float64) ** 2).sum() ** 0.5))

    with ops.fused.disabled(), observe(measure):
        models.loss(model(Tensor(x)), labels).backward()
    return norms[::-1]
