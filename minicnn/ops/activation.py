"""Activations: without them a deep network would be one linear map. Each keeps its output for backward, not its input.

That saves memory: the output is also the next op's input, and is kept for it anyway. x may have any shape.
"""

from __future__ import annotations

import kernels
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops import _checks


@differentiable
def relu(x: Array) -> Forward:
    """y = max(x, 0): what is negative is switched off, and learns nothing.

    dy/dx is 1 where x > 0, which is where y > 0, and 0 where x < 0; at 0 it is 0 by convention. So gx = gy where y > 0,
    else 0: gradients pass unchanged, however deep the network. Source: Nair and Hinton 2010.
    """
    _checks.array("relu", "x", x, "(...)")
    k = kernels.of(x)
    y = k.relu(x)

    def backward(gy, needs):
        return (k.relu_grad(gy, y),)

    return y, backward


@differentiable
def sigmoid(x: Array) -> Forward:
    """y = 1 / (1 + e^−x): any number becomes one between 0 and 1.

    dy/dx = e^−x / (1 + e^−x)² = y·(1 − y). It is never above 1/4, so every layer makes gradients smaller, and near 0
    where the unit is sure of itself.
    """
    _checks.array("sigmoid", "x", x, "(...)")
    k = kernels.of(x)
    y = k.sigmoid(x)

    def backward(gy, needs):
        return (k.sigmoid_grad(gy, y),)

    return y, backward


@differentiable
def tanh(x: Array) -> Forward:
    """y = (e^x − e^−x) / (e^x + e^−x): any number becomes one between −1 and 1.

    With numerator s and denominator c, s' = c and c' = s, so dy/dx = (c² − s²) / c² = 1 − y²: 1 at 0, and vanishing
    far from it.
    """
    _checks.array("tanh", "x", x, "(...)")
    k = kernels.of(x)
    y = k.tanh(x)

    def backward(gy, needs):
        return (k.tanh_grad(gy, y),)

    return y, backward
