"""The residual unit, y = f(h(x) + F(x)): what may stand in the places of F, h and f, and in which order.

ResNet (He et al. 2015, arXiv 1512.03385) adds its input to what two or three convolutions make of it. Identity Mappings
in Deep Residual Networks (He et al. 2016, arXiv 1603.05027, "the paper" below) asks what each part of that is good for.
"""

from __future__ import annotations

from collections.abc import Sequence

from minicnn import init, ops
from minicnn.autograd import Tensor
from minicnn.layers import BatchNorm, Conv2d, Dropout, Module, ReLU, Sequential, conv_bn_relu

UNITS = ("original", "bn-after-add", "relu-before-add", "relu-only-preact", "full-preact")
SKIPS = ("identity", "scale", "exclusive-gate", "shortcut-gate", "conv1x1", "dropout")


class ZeroPadding(Module):
    """Option A's shortcut: every `stride`-th position, with zeros for the new channels, half before and half after."""

    def __init__(self, channels: int, width: int, stride: int):
        self.stride = stride
        self.before = (width - channels) // 2
        self.after = width - channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return ops.pad_channels(ops.subsample(x, self.stride), self.before, self.after)


class Projection(Sequential):
    """Option B's and C's shortcut: a 1x1 convolution, and a BatchNorm unless the unit has its own in front of F."""

    def __init__(self, channels: int, width: int, stride: int, *, bn: bool):
        conv = Conv2d(channels, width, 1, stride=stride, bias=False)
        super().__init__(conv, *([BatchNorm(width)] if bn else []))


def shortcut_of(option: str, channels: int, width: int, stride: int, *, bn: bool = True) -> Module:
    """What a unit adds to its result (ResNet §4.1): its input, if that has the right shape, else what `option` says.

    "A" pads with zeros and has no parameters; "B" projects with a 1x1 convolution and, with `bn`, a BatchNorm; "C"
    projects always, also where the input would fit.
    """
    if option not in ("A", "B", "C"):
        raise ValueError(f"shortcut must be 'A', 'B' or 'C', got {option!r}")
    if option != "C" and (channels, stride) == (width, 1):
        return Sequential()  # the identity
    if option == "A":
        return ZeroPadding(channels, width, stride)
    return Projection(channels, width, stride, bn=bn)


class Unit(Module):
    """y = f(h(x) + F(x)) of the given convolutions, with their activations in one of five orders, and one of six h.

    `unit` is where the BatchNorms and ReLUs stand (the paper's Figure 4); each convolution has one of either:

        original          conv BN ReLU … conv BN, add, ReLU
        bn-after-add      conv BN ReLU … conv, add, BN, ReLU
        relu-before-add   conv BN ReLU … conv BN ReLU, add
        relu-only-preact  ReLU conv BN … ReLU conv BN, add
        full-preact       BN ReLU conv … BN ReLU conv, add

    In the last three f is the identity. If h is too, x passes through the network untouched but for what is added to
    it, and so does the gradient on its way back (§2).

    `skip` is h (Table 1), with σ the sigmoid and w a 1x1 convolution:

        identity        h = x
        scale           h = skip_scale·x              and F becomes residual_scale·F
        exclusive-gate  h = (1 − g)·x,  g = σ(w∗x + b),  and F becomes g·F (as in highway networks)
        shortcut-gate   h = (1 − g)·x
        conv1x1         h = w∗x                       (shortcut C)
        dropout         h = x with each value zeroed with probability skip_dropout, the others scaled up

    Where the shape changes, x stands for what `shortcut`, A or B, makes of it. b starts from `gate_bias`: the more
    negative, the more open is the shortcut; at 0 both gates are half open. Everything that has weights, a projection
    or a gate, sees the activated input where the unit begins with an activation.

    `first` is for the first unit of a network: its input is activated already, for both of its paths (appendix), and it
    does not do so again. `shortcut=None` leaves h out: two or three layers of a plain network.

    ValueError for a `unit`, `skip` or `shortcut` that does not exist, and for a skip_dropout outside [0, 1).
    """

    bn1: BatchNorm
    gate: Conv2d
    dropout: Dropout

    def __init__(
        self,
        convolutions: Sequence[Conv2d],
        stride: int,
        shortcut: str | None,
        first: bool = False,
        *,
        unit: str = "original",
        skip: str = "identity",
        skip_scale: float = 0.5,
        residual_scale: float = 1.0,
        gate_bias: float = -6.0,
        skip_dropout: float = 0.5,
    ):
        for keyword, value, choices in (("unit", unit, UNITS), ("skip", skip, SKIPS)):
            if value not in choices:
                raise ValueError(f"{keyword} must be one of {', '.join(choices)}, got {value!r}")
        if not 0 <= skip_dropout < 1:
            raise ValueError(f"skip_dropout must be at least 0 and below 1, got {skip_dropout}")
        self.unit, self.skip, self.skip_scale, self.residual_scale = unit, skip, skip_scale, residual_scale
        self.depth, preact = len(convolutions), unit == "full-preact"
        self.activates = unit in ("relu-only-preact", "full-preact") and not first
        for i, conv in enumerate(convolutions, start=1):
            _, _, inputs, outputs = conv.weight.shape
            setattr(self, f"conv{i}", conv)
            missing = preact and first and i == 1
            setattr(self, f"bn{i}", None if missing else BatchNorm(inputs if preact else outputs))

        # What follows a convolution directly: its own BatchNorm, or the next one's where that comes before.
        pairs = [(f"conv{i}", f"bn{i + preact}") for i in range(1, self.depth + 1)]
        self.conv_bn_pairs = tuple(pairs[:-1] if unit in ("bn-after-add", "full-preact") else pairs)

        channels, self.out_channels = convolutions[0].weight.shape[2], convolutions[-1].weight.shape[3]
        self.downsample: Module | None = None
        if shortcut is not None:
            option = "C" if skip == "conv1x1" else shortcut
            self.downsample = shortcut_of(option, channels, self.out_channels, stride, bn=not preact)
        if skip in ("exclusive-gate", "shortcut-gate"):
            self.gate = Conv2d(channels, self.out_channels, 1, stride=stride)
            init.constant(self.gate.bias, gate_bias)  # type: ignore[arg-type]
        elif skip == "dropout":
            self.dropout = Dropout(skip_dropout)

    def forward(self, x: Tensor) -> Tensor:
        a = self._activated(x) if self.activates else x
        y = a
        for conv_name, bn_name in self.conv_bn_pairs[: self.depth - 1]:
            y = conv_bn_relu(y, getattr(self, conv_name), getattr(self, bn_name))
        conv, bn = getattr(self, f"conv{self.depth}"), getattr(self, f"bn{self.depth}")
        h, factor = self._shortcut(x, a)

        def added(f: Tensor) -> Tensor:
            return (f if factor is None else factor * f) + h

        match self.unit:
            case "original" if factor is None:
                return conv_bn_relu(y, conv, bn, residual=h)
            case "original":
                return ops.relu(added(_conv_bn(y, conv, bn)))
            case "bn-after-add":
                return bn.relu(added(conv(y)))
            case "relu-before-add":
                return added(conv_bn_relu(y, conv, bn))
            case "relu-only-preact":
                return added(_conv_bn(y, conv, bn))
            case _:  # full-preact, whose BatchNorms are all used up
                return added(conv(y))

    def _activated(self, x: Tensor) -> Tensor:
        return self.bn1.relu(x) if self.unit == "full-preact" else ops.relu(x)

    def _shortcut(self, x: Tensor, a: Tensor) -> tuple[Tensor | None, Tensor | float | None]:
        """h, and what F is multiplied with before the two are added, None for 1; `a` is x activated."""
        if self.downsample is None:
            return None, None
        h = self.downsample(a if isinstance(self.downsample, Projection) else x)
        match self.skip:
            case "scale":
                return self.skip_scale * h, None if self.residual_scale == 1 else self.residual_scale
            case "exclusive-gate":
                g = ops.sigmoid(self.gate(a))
                return (1 - g) * h, g
            case "shortcut-gate":
                return (1 - ops.sigmoid(self.gate(a))) * h, None
            case "dropout":
                return self.dropout(h), None
            case _:  # identity, or the projection of conv1x1
                return h, None

    def closing(self) -> Sequential:
        """What a network does with the result of its last unit (appendix): one more activation if units begin so."""
        if self.unit == "full-preact":
            return Sequential(bn=BatchNorm(self.out_channels), relu=ReLU())
        return Sequential(relu=ReLU()) if self.unit == "relu-only-preact" else Sequential()


def _conv_bn(x: Tensor, conv: Conv2d, bn: BatchNorm | None) -> Tensor:
    """bn(conv(x)); without `bn`, as once it is folded, conv(x)."""
    return conv(x) if bn is None else bn(conv(x))
