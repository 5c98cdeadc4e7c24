"""A training step of each side: forward, loss, backward, SGD with momentum, on images that are there already.

Both functions build everything and return `step()`, which trains once and returns the loss. They run in a process of
their own (see `harness.py`) that imports the one side only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.networks import Network

Step = Callable[[], float]
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-5, 0.9, 1e-4  # so slow that random labels make no network diverge


def batch(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, 3) and labels (N,), the same for both sides."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((network.batch, network.side, network.side, 3), np.float32)
    return images, rng.integers(network.classes, size=network.batch)


def minicnn_step(network: Network, threads: int) -> Step:
    from minicnn import Tensor, device, layers, models, optim, seed

    device.set_threads(threads)
    seed(0)
    model = models.build(network.model, network.classes, image_size=network.side, **network.variant)
    if not network.lrn:
        model.norm1 = model.norm2 = layers.Sequential()  # the identity
    optimiser = optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    images, labels = batch(network)

    def step() -> float:
        loss = models.loss(model(Tensor(images)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def torch_step(network: Network, threads: int, *, channels_last: bool = False, compiled: bool = False) -> Step:
    import torch

    from benchmarks import torch_networks

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    variant: dict[str, Any] = network.variant if network.lrn else {**network.variant, "lrn": False}
    model = torch_networks.build(network.model, network.classes, network.side, **variant)
    images, labels = (torch.from_numpy(array) for array in batch(network))
    images = images.permute(0, 3, 1, 2)  # NHWC in memory, which is what PyTorch calls channels_last
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model, images = model.to(memory_format=layout), images.contiguous(memory_format=layout)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        fused=True,  # its fastest implementation on a CPU: one pass over each parameter
    )
    run = torch.compile(model) if compiled else model

    def step() -> float:
        loss = torch_networks.loss(run(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step
