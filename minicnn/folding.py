"""A trained network made ready for inference: every BatchNorm that can disappears into the layer before it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable

from minicnn.autograd import Tensor
from minicnn.layers import BatchNorm, Conv2d, Linear, Module, Sequential


def fold(model: Module) -> Module:
    """A copy of `model` in evaluation mode that computes the same in fewer steps: no BatchNorm behind a convolution.

    With its running statistics a BatchNorm is the same stretch and shift for every image, and a convolution (or a
    fully connected layer) can do both itself. Per output channel, b being 0 for a layer without a bias:

        γ·(x∗w + b − mean)/σ + β  =  x∗(w·γ/σ) + (b − mean)·γ/σ + β,      σ = √(var + eps)

    so that w' = w·γ/σ and b' = β + (b − mean)·γ/σ. That saves a pass over every map, and what follows, a residual and
    a ReLU, is done by the convolution as it writes its result.

    Folded are a Conv2d or Linear and the BatchNorm next in a Sequential, and the pairs that a Module of another kind
    names in `conv_bn_pairs`; every other BatchNorm stays as it is. A folded layer keeps its name, with a weight and a
    bias; the BatchNorm's name is gone from the `state_dict`. No parameter requires a gradient. The copy shares no array
    with `model`, which is not changed. Outputs are those of `model.eval()` up to rounding.

    Raises TypeError for what is not a Module, and where a pair consists of other layers, ValueError where its sizes do
    not fit. Source: Jacob et al. 2018 (arXiv 1712.05877 §3.2).
    """
    if not isinstance(model, Module):
        raise TypeError(f"fold: needs a Module, such as models.build returns, got {type(model).__name__}")
    values = (value for module in model.modules() for value in vars(module).values())
    constants = {id(value): Tensor(value.data.copy()) for value in values if isinstance(value, Tensor)}
    folded = copy.deepcopy(model, constants)  # with these in the place of the parameters
    for prefix, module in list(folded.named_modules()):
        for name, bn_name in _pairs(module):
            layer, bn = getattr(module, name), getattr(module, bn_name)
            if bn is not None:
                where = f"{prefix}.{name}" if prefix else name
                setattr(module, name, _joined(layer, bn, where))
                setattr(module, bn_name, None)
    return folded.eval()


def _pairs(module: Module) -> Iterable[tuple[str, str]]:
    """The names of layers in `module`, and of the BatchNorm that is all that sees their result."""
    if type(module).forward is not Sequential.forward:
        return module.conv_bn_pairs
    return [
        (name, bn_name)
        for (name, layer), (bn_name, bn) in itertools.pairwise(module.named_children())
        # a layer derived from these may compute something else
        if type(layer).forward in (Conv2d.forward, Linear.forward) and type(bn).forward is BatchNorm.forward
    ]


def _joined(layer: Module, bn: Module, where: str) -> Module:
    """A layer that computes bn(layer(x)), in the layer's dtype; `where` is its name."""
    if not isinstance(layer, Conv2d | Linear) or not isinstance(bn, BatchNorm):
        kinds = f"{type(layer).__name__} and {type(bn).__name__}"
        raise TypeError(f"fold: {where} and its partner must be Conv2d or Linear and BatchNorm, not {kinds}")
    w, channels = layer.weight.data, layer.weight.shape[-1]
    if bn.weight.shape != (channels,):
        raise ValueError(f"fold: {where} makes {channels} channels, but the BatchNorm after it has {bn.weight.size}")

    scale = bn.weight.data * (bn.running_var.astype("float64") + bn.eps) ** -0.5  # γ/σ, (O,), and O is w's last axis
    b = 0 if layer.bias is None else layer.bias.data
    joined = copy.copy(layer)
    joined.weight = Tensor((w * scale).astype(w.dtype))
    joined.bias = Tensor((bn.bias.data + (b - bn.running_mean) * scale).astype(w.dtype))
    return joined
