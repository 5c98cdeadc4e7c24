"""Activations: without them a deep network would be one linear map. Each keeps its output, not its input."""

from __future__ import annotations

from typing import Any

import kernels
from minicnn.autograd import differentiable


@differentiable
def relu(x: Any) -> Any:
    """y = max(x, 0): dy/dx is 1 where x > 0, which is where y > 0, and 0 elsewhere (at 0 too, by convention).

    Source: Nair and Hinton 2010.
    """
    k = kernels.of(x)
    y = k.relu(x)

    def backward(gy, needs):
        return (k.relu_grad(gy, y),)

    return y, backward


@differentiable
def sigmoid(x: Any) -> Any:
    """y = 1 / (1 + e^−x): dy/dx = e^−x / (1 + e^−x)² = y·(1 − y), never above 1/4, so depth makes gradients vanish."""
    k = kernels.of(x)
    y = k.sigmoid(x)

    def backward(gy, needs):
        return (k.sigmoid_grad(gy, y),)

    return y, backward


@differentiable
def tanh(x: Any) -> Any:
    """y = (e^x − e^−x) / (e^x + e^−x): dy/dx = 1 − y², which is 1 at 0 and vanishes far from it."""
    k = kernels.of(x)
    y = k.tanh(x)

    def backward(gy, needs):
        return (k.tanh_grad(gy, y),)

    return y, backward
