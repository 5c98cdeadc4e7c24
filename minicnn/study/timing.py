"""How long convolutions take, forward and backward, and how much memory; and PyTorch's beside ours."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from statistics import median
from typing import Any, cast

import numpy as np

import minicnn
from minicnn import Tensor, device, observe
from minicnn.autograd import Event
from minicnn.layers import Conv2d
from minicnn.study.claim import Figures
from minicnn.study.engine import Bench

BILLION = 1e9


def convolution_speed(
    bench: Bench, seed: int, *, size: int, channels: int, count: int, side: int, batch: int, repeats: int
) -> Figures:
    """`count` convolutions of size × size, each with its ReLU, on maps of `side` pixels: the median of `repeats`.

    milliseconds of a step forward and backward, rate in 10⁹ multiply-adds a second of it, megabytes of the maps that it
    keeps for its way back.
    """
    minicnn.seed(seed)
    rng = np.random.default_rng(seed)
    x, gy = (rng.standard_normal((batch, side, side, channels), np.float32) for _ in range(2))
    layers = [Conv2d(channels, channels, size, pad=size // 2, bias=False) for _ in range(count)]
    multiply_adds = 3 * count * size**2 * channels**2 * side**2 * batch
    step = _ours(layers, device.to(x, bench.device), device.to(gy, bench.device), bench.device)
    seconds = _median_seconds(step, repeats)
    figures: Figures = {
        "milliseconds": 1e3 * seconds,
        "rate": multiply_adds / seconds / BILLION,
        "megabytes": _stored(step) / 1e6,
    }
    if importlib.util.find_spec("torch"):
        theirs = _median_seconds(_torch(layers, x, gy, bench.device), repeats)
        figures |= {"torch_milliseconds": 1e3 * theirs, "torch_rate": multiply_adds / theirs / BILLION}
    return figures


def _ours(layers: list[Conv2d], x: Any, gy: Any, on: str) -> Callable[[], None]:
    for layer in layers:
        layer.to(device=on)

    def step() -> None:
        y = Tensor(x, requires_grad=True)
        for layer in layers:
            layer.zero_grad()
            y = layer.relu(y)
        y.backward(gy)
        if on == "cuda":
            import cupy

            cupy.cuda.get_current_stream().synchronize()

    return step


def _torch(layers: list[Conv2d], x: np.ndarray, gy: np.ndarray, on: str) -> Callable[[], None]:
    """The same step in PyTorch, in its channels_last layout, which is the one that our arrays have."""
    import torch

    torch.set_num_threads(device.threads())
    weights = [
        torch.tensor(device.to(layer.weight.data, "cpu")).permute(3, 2, 0, 1).contiguous().to(on).requires_grad_()
        for layer in layers
    ]
    place, upstream = (torch.tensor(a).permute(0, 3, 1, 2).to(on) for a in (x, gy))
    pad = weights[0].shape[2] // 2

    def step() -> None:
        y = place.detach().requires_grad_()
        for w in weights:
            w.grad = None
            y = torch.relu(torch.nn.functional.conv2d(y, w, padding=pad))
        y.backward(upstream)
        if on == "cuda":
            torch.cuda.synchronize()

    return step


def _median_seconds(step: Callable[[], None], repeats: int) -> float:
    step()  # compiles, and touches memory for the first time
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _stored(step: Callable[[], None]) -> int:
    """The bytes of the maps that a step makes on its way forward, which it keeps for the way back."""
    sizes: list[int] = []

    def add(event: Event) -> None:
        if event.phase == "forward":
            sizes.append(cast(Any, event.outputs[0]).nbytes)

    with observe(add):
        step()
    return sum(sizes)
