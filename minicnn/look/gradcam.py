"""Grad-CAM: which places spoke for a class."""

from __future__ import annotations

import numpy as np

from minicnn import device
from minicnn.autograd import Array
from minicnn.layers import Module
from minicnn.look.tracing import trace


def grad_cam(model: Module, x: Array, label: int, layer: str | None = None) -> np.ndarray:
    """Where the evidence for a class lies: the maps of a layer, added up by how much each of them speaks for the class.

        weight_k = mean over the map of ∂score/∂map_k,      cam = max(Σ_k weight_k · map_k, 0)

    The gradient says whether more of a feature would raise the score of the class, the map says where the feature is.
    What speaks against the class is cut off.

    x (1, H, W, C) -> (H', W'), the size of the maps of `layer`: by default the last ones, which know most about what
    is there and still something about where. ValueError for a layer that does not exist or makes no map.
    Source: Selvaraju et al. 2016 (arXiv:1610.02391, section 3).
    """
    seen = trace(model, x)
    maps = seen.find_map(layer).y.retain_grad()  # (1, H', W', C')
    seen.score(label)
    gradient: Array = maps.grad
    weights = gradient.mean(axis=(0, 1, 2))  # (C',)
    return device.to((maps.data[0] @ weights).clip(0), "cpu")
