"""What moves channels and positions about: concatenation, and the two parts of ResNet's shortcut A."""

from __future__ import annotations

import kernels
from kernels.geometry import Pair
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops import _checks
from minicnn.ops._checks import require


@differentiable
def concat(*xs: Array, axis: int = -1) -> Forward:
    """Lay arrays side by side along an axis, by default their channels: how the branches of an Inception module meet.

    Every element of y is one element of one input, so each input's gradient is its own piece of gy.

    (..., C₁), (..., C₂), … -> (..., C₁ + C₂ + …). ValueError unless all sizes but that of `axis` are equal.
    Source: Szegedy et al. 2014 (arXiv:1409.4842, section 4).
    """
    require(len(xs) > 0, "concat: needs one array or more, got none")
    for i, x in enumerate(xs):
        _checks.array("concat", f"argument {i}", x, "(...)")
    ndim = xs[0].ndim
    require(-ndim <= axis < ndim, f"concat: axis {axis} does not exist in an array of shape {xs[0].shape}")
    others = {(*x.shape[: axis % ndim], None, *x.shape[axis % ndim + 1 :]) for x in xs}
    shapes = ", ".join(str(x.shape) for x in xs)
    require(len(others) == 1, f"concat: shapes must agree except along axis {axis}, got {shapes}")
    k, sizes = kernels.of(xs[0]), tuple(x.shape[axis] for x in xs)

    def backward(gy, needs):
        return k.concat_grad(gy, sizes, axis=axis)

    return k.concat(*xs, axis=axis), backward


@differentiable
def pad_channels(x: Array, before: int, after: int) -> Forward:
    """Add channels of zeros in front and behind: (..., C) -> (..., before + C + after).

    The zeros are constants; the gradient is that of the channels between.
    ValueError for negative numbers. Source: ResNet, shortcut A (arXiv:1512.03385, 3.3): it matches dimensions without
    a parameter.
    """
    _checks.array("pad_channels", "x", x, "(..., C)")
    _checks.whole("pad_channels", "before", before, least=0)
    _checks.whole("pad_channels", "after", after, least=0)
    k = kernels.of(x)

    def backward(gy, needs):
        return k.pad_channels_grad(gy, before, after), None, None

    return k.pad_channels(x, before, after), backward


@differentiable
def subsample(x: Array, stride: Pair) -> Forward:
    """Keep every stride-th row and column: (N, H, W, C) -> (N, ⌈H/s⌉, ⌈W/s⌉, C).

    What was kept gets its gradient, what was left out gets 0. `stride` is an int or (h, w), ValueError below 1.
    Source: ResNet, shortcut A (arXiv:1512.03385, 3.3).
    """
    _checks.array("subsample", "x", x, "(N, H, W, C)")
    _checks.whole_or_pair("subsample", "stride", stride)
    k, x_shape = kernels.of(x), x.shape

    def backward(gy, needs):
        return k.subsample_grad(gy, x_shape, stride), None

    return k.subsample(x, stride), backward
