"""What each side does with a network: a training step, and inference, on images that are there already.

A training step is forward, loss, backward and SGD with momentum. Inference is forward alone, in evaluation mode,
without a graph, and with BatchNorm folded into the convolutions before it.

Each function builds everything and returns a `Step`, which does it once. They run in a process of their own (see
`harness.py`) that imports the one side only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.networks import Network

Step = Callable[[], float]  # the loss, or the sum of the logits: finite if all went well
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-5, 0.9, 1e-4  # so slow that random labels make no network diverge


def batch(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, 3) and labels (N,), the same for both sides."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((network.batch, network.side, network.side, 3), np.float32)
    return images, rng.integers(network.classes, size=network.batch)


# --- minicnn -----------------------------------------------------------------------------------------------------


def minicnn_model(network: Network, threads: int) -> Any:
    """The network, a minicnn.Module."""
    from minicnn import device, layers, models, seed

    device.set_threads(threads)
    seed(0)
    model = models.build(network.model, network.classes, image_size=network.side, **network.variant)
    if not network.lrn:
        model.norm1 = model.norm2 = layers.Sequential()  # the identity
    return model


def minicnn_step(network: Network, threads: int, *, on: str = "cpu") -> Step:
    from minicnn import Tensor, device, models, optim

    model = minicnn_model(network, threads)
    model.to(device=on)
    optimiser = optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    images, labels = (device.to(array, on) for array in batch(network))

    def step() -> float:
        loss = models.loss(model(Tensor(images)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def minicnn_inference(network: Network, threads: int) -> Step:
    from minicnn import Tensor, no_grad
    from minicnn.folding import fold

    model = fold(minicnn_model(network, threads))
    images, _ = batch(network)

    def infer() -> float:
        with no_grad():
            return float(model(Tensor(images)).numpy().sum())

    return infer


# --- PyTorch -----------------------------------------------------------------------------------------------------


def torch_model(network: Network, threads: int, channels_last: bool) -> tuple[Any, Any]:
    """The network, a torch.nn.Module, and its images (N, 3, H, W), both in one of the two layouts."""
    import torch

    from benchmarks import torch_networks

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    variant = network.variant if network.lrn else {**network.variant, "lrn": False}
    model = torch_networks.build(network.model, network.classes, network.side, **variant)
    images = torch.from_numpy(batch(network)[0]).permute(0, 3, 1, 2)  # NHWC in memory: PyTorch's channels_last
    layout = layout_of(channels_last)
    return model.to(memory_format=layout), images.contiguous(memory_format=layout)


def torch_step(
    network: Network, threads: int, *, channels_last: bool = False, compiled: bool = False, on: str = "cpu"
) -> Step:
    import torch

    from benchmarks import torch_networks

    model, images = torch_model(network, threads, channels_last)
    labels = torch.from_numpy(batch(network)[1]).to(on)
    model, images = model.to(on), images.to(on)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        fused=True,  # its fastest implementation: one pass over each parameter
    )
    run = torch.compile(model) if compiled else model

    def step() -> float:
        loss = torch_networks.loss(run(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def torch_inference(network: Network, threads: int, *, channels_last: bool = False, compiled: bool = False) -> Step:
    import torch
    from torch.fx.experimental import optimization

    model, images = torch_model(network, threads, channels_last)
    model.eval()
    if compiled:  # with its weights frozen, which lets the compiler fold BatchNorm and lay out the filters once
        run = torch.compile(model, options={"freezing": True})
    else:
        run = optimization.fuse(model).to(memory_format=layout_of(channels_last))  # it makes filters in NCHW

    def infer() -> float:
        with torch.inference_mode():
            return run(images).sum().item()

    return infer


def layout_of(channels_last: bool) -> Any:
    import torch

    return torch.channels_last if channels_last else torch.contiguous_format
