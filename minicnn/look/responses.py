"""Layer responses: how strongly each layer answers."""

from __future__ import annotations

from minicnn.autograd import Array, no_grad
from minicnn.layers import Module
from minicnn.look.tracing import trace


def layer_responses(model: Module, x: Array) -> dict[str, float]:
    """How strong each layer's response is: the standard deviation of what a convolution makes, after its BatchNorm.

    It is measured before what follows: a ReLU, or the sum with a shortcut. In a residual network the response is the
    correction that a layer makes to what it got; the authors found it smaller than in plain networks, and smaller
    still the deeper the network is.

    x (N, H, W, C), as many images as one likes -> {name of the convolution: standard deviation}, in the order in which
    they run. Source: He et al. 2015 (arXiv:1512.03385, figure 7).
    """
    with no_grad():
        steps = trace(model, x).steps
    behind = {id(step.inputs[0]): step.y.data for step in steps if step.op == "batch_norm"}
    made: dict[str, Array] = {s.name: behind.get(id(s.y.data), s.y.data) for s in steps if s.op == "conv2d"}
    return {name: float(y.std()) for name, y in made.items()}
