"""Feature maps: what a layer makes of an image."""

from __future__ import annotations

import numpy as np

from minicnn import device
from minicnn.autograd import Array, no_grad
from minicnn.layers import Module
from minicnn.look.tracing import trace


def feature_maps(model: Module, x: Array, layer: str | None = None) -> np.ndarray:
    """A feature map says where in the image a filter found what it looks for: bright where it responds.

    Early maps look like the image, drawn in edges; later ones are coarse, sparse, and respond to whole parts.

    x (1, H, W, C) -> (H', W', C'), the maps of `layer` (default: the last one). ValueError for a layer that does not
    exist or makes no map. Source: LeCun et al. 1998, figure 2.
    """
    with no_grad():
        return device.to(trace(model, x).find_map(layer).y.data[0], "cpu")


def strongest(maps: np.ndarray, count: int) -> list[int]:
    """The `count` channels of maps (H, W, C) with the highest peak, the highest first."""
    peaks = maps.max(axis=(0, 1))  # (C,)
    return np.argsort(-peaks, kind="stable")[:count].tolist()


def stages(model: Module, x: Array) -> list[str]:
    """The names of the last result at each size of map, from large to small: a few layers that show the whole network.

    Maps of one pixel are left out.
    """
    last: dict[tuple[int, int], str] = {}
    with no_grad():
        for step in trace(model, x).steps:
            if step.y.ndim == 4 and step.y.shape[1] * step.y.shape[2] > 1:
                last[step.y.shape[1:3]] = step.name
    return [last[size] for size in sorted(last, reverse=True)]
