"""The first layer's filters: the only weights that can be looked at as they are."""

from __future__ import annotations

import numpy as np

from minicnn import device
from minicnn.layers import Conv2d, Module


def first_filters(model: Module) -> tuple[str, np.ndarray]:
    """The filters of the first convolution are small pictures themselves: its inputs are the colours of the image.

    A trained network has edges of all directions and blobs of colour there. Noise means that it has learned little, or
    that its weights hardly decayed; filters that are all alike, or flat, are dead.

    Returns the layer's name and its weight (KH, KW, C, O). ValueError for a network without a convolution.
    Source: Krizhevsky et al. 2012, figure 3; ZFNet on what is wrong with these (arXiv:1311.2901, figure 6).
    """
    for name, module in model.named_modules():
        if isinstance(module, Conv2d):
            return name, device.to(module.weight.data, "cpu")
    raise ValueError(f"{type(model).__name__} has no convolution, and so no filters to look at")
