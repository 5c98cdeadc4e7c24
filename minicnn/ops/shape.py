"""What moves channels and positions about: concatenation, and the two parts of ResNet's shortcut A."""

from __future__ import annotations

from typing import Any

import kernels
from kernels.geometry import Pair, pair
from minicnn.autograd import differentiable
from minicnn.ops import _checks
from minicnn.ops._checks import require


@differentiable
def concat(*xs: Any, axis: int = -1) -> Any:
    """Lay arrays side by side along an axis, by default their channels: how the branches of an Inception module meet.

    Every element of y is one element of one input, so each input's gradient is its own piece of gy.
    All sizes but that of `axis` must be equal; ValueError otherwise.
    """
    require(len(xs) > 0, "concat: needs one array or more, got none")
    ndim = xs[0].ndim
    require(-ndim <= axis < ndim, f"concat: axis {axis} does not exist in an array of shape {xs[0].shape}")

    def others(x: Any) -> tuple[int, ...]:
        return tuple(n for i, n in enumerate(x.shape) if i != axis % ndim)

    shapes = ", ".join(str(x.shape) for x in xs)
    require(
        all(x.ndim == ndim and others(x) == others(xs[0]) for x in xs),
        f"concat: shapes must agree except along axis {axis}, got {shapes}",
    )
    k, sizes = kernels.of(xs[0]), tuple(x.shape[axis] for x in xs)

    def backward(gy, needs):
        return k.concat_grad(gy, sizes, axis=axis)

    return k.concat(*xs, axis=axis), backward


@differentiable
def pad_channels(x: Any, before: int, after: int) -> Any:
    """Add channels of zeros in front and behind: (..., C) -> (..., before + C + after).

    The zeros are constants; the gradient is that of the channels between. Source: ResNet, shortcut A
    (arXiv:1512.03385, 3.3): it matches dimensions without a parameter.
    """
    require(min(before, after) >= 0, f"pad_channels: before and after must not be negative, got {before} and {after}")
    k = kernels.of(x)

    def backward(gy, needs):
        return k.pad_channels_grad(gy, before, after), None, None

    return k.pad_channels(x, before, after), backward


@differentiable
def subsample(x: Any, stride: Pair) -> Any:
    """Keep every stride-th row and column: (N, H, W, C) -> (N, ⌈H/s⌉, ⌈W/s⌉, C).

    What was kept gets its gradient, what was left out gets 0. Source: ResNet, shortcut A (arXiv:1512.03385, 3.3).
    """
    _checks.maps("subsample", x)
    require(min(pair(stride)) >= 1, f"subsample: stride must be at least 1, got {stride}")
    k, x_shape = kernels.of(x), x.shape

    def backward(gy, needs):
        return k.subsample_grad(gy, x_shape, stride), None

    return k.subsample(x, stride), backward
