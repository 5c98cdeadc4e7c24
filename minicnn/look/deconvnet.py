"""The deconvolutional network: what a unit saw, projected back to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import kernels
from kernels import array_module
from minicnn import device
from minicnn.autograd import Array
from minicnn.layers import Module
from minicnn.look.tracing import Rule, trace


def _rectified(gy: Array, needs: tuple[bool, ...]) -> tuple[Array, ...]:
    return (kernels.of(gy).relu(gy),)


def _unchanged(gy: Array, needs: tuple[bool, ...]) -> tuple[Array, ...]:
    return (gy,)


# What differs from back-propagation.
RULES: dict[str, Rule] = {"relu": _rectified, "lrn": _unchanged, "lcn": _unchanged}


def projections(model: Module, x: Array, layer: str, units: Sequence[int]) -> np.ndarray:
    """The pattern in the image that excited a unit: its strongest response, taken back through the layers to pixels.

    All of the layer is set to zero but the unit's strongest response. That goes back layer by layer, each undone by a
    layer of the deconvolutional network:

        max-pool     unpooling: a value returns to the place that won the window (the switch), zeros elsewhere
        ReLU         ReLU: what is reconstructed is an activation, so it is positive again
        convolution  the same filters, transposed

    Unpooling with switches is the gradient of max-pooling, transposed filters are the gradient of convolution. So this
    is back-propagation with one formula changed: ReLU passes the *positive* part of what arrives, wherever it was
    itself open. Of layers that the paper's network has not, each keeps its gradient where that is a transposed linear
    map: averages spread, sums go to all their terms, linear layers are transposed, and BatchNorm, in evaluation a
    stretch of each channel, is a part of the filters before it. The paper names no step that undoes contrast
    normalisation (LRN, LCN): it is passed over. Where windows overlap, a place that won several gets the sum.

    x (1, H, W, C) -> (len(units), H, W, C), in the image's normalised scale: 0 is no contribution. A unit that responds
    nowhere gives zeros. `layer` may also end in numbers, such as "fc": its units are the classes. ValueError for a
    layer or unit that does not exist. Source: Zeiler and Fergus 2013 (arXiv:1311.2901, section 2.1).
    """
    copies = array_module(x).repeat(x, len(units), axis=0)  # a batch: one image for each unit
    seen = trace(model, copies, rules=RULES)
    y = seen.find(layer).y  # (n, H', W', C') or (n, C')
    if wrong := [unit for unit in units if not 0 <= unit < y.shape[-1]]:
        raise ValueError(f"layer {layer!r} has units 0 to {y.shape[-1] - 1}, there is no unit {wrong[0]}")
    gy = array_module(x).zeros_like(y.data)
    for i, unit in enumerate(units):
        response = y.data[i, ..., unit]  # (H', W') or ()
        place = np.unravel_index(int(response.argmax()), response.shape)
        gy[(i, *place, unit)] = response[place]
    y.backward(gy)
    return device.to(seen.x.grad, "cpu")
