"""Pooling: one number for each window, and so a smaller map."""

from __future__ import annotations

import kernels
from kernels.geometry import Padding, Pair
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops import _checks


@differentiable
def max_pool(x: Array, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False) -> Forward:
    """Keep the largest value of each window: was the feature seen anywhere here?

        y[n, oh, ow, c] = x[winner],   the winner: the first maximum of the window in scan order

    A small change of x leaves the winner in place, so ∂y/∂x is 1 for the winner and 0 for the others. The whole
    gradient of a window goes to its winner, and an input that won several overlapping windows gets the sum. Only the
    winners are kept for backward, a byte each, not x.

    x (N, H, W, C) -> (N, OH, OW, C). `stride` None means the window's size. Padding is −inf and never wins; NaN does.
    `ceil` rounds the output size up and drops a last window that starts wholly in padding (Caffe's rule, which
    GoogLeNet, AlexNet and ZFNet need). ValueError where no window fits or one would lie in the padding alone.
    Source: Riesenhuber and Poggio 1999; overlapping windows: Krizhevsky et al. 2012, section 3.4.
    """
    _checks.array("max_pool", "x", x, "(N, H, W, C)")
    stride = size if stride is None else stride
    _checks.pool_window("max_pool", x.shape, size, stride, pad, ceil)
    k, options, x_shape = kernels.of(x), {"stride": stride, "pad": pad, "ceil": ceil}, x.shape
    y, winners = k.max_pool(x, size, **options)

    def backward(gy, needs):
        return k.max_pool_grad(gy, winners, x_shape, size, **options), None

    return y, backward


@differentiable
def avg_pool(
    x: Array, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False, count_pad: bool = False
) -> Forward:
    """Replace each window by its mean: y = Σ x / n over the n elements of the window.

    ∂y/∂x = 1/n for each of them: every element gets the n-th part of the window's gradient, and where windows overlap
    the sum of those parts.

    x (N, H, W, C) -> (N, OH, OW, C). n counts the real elements of the window, with `count_pad` also the padding;
    what `ceil` adds beyond the padding never counts. `stride`, `ceil` and errors as in `max_pool`.
    Source: LeCun et al. 1998 (LeNet-5's sub-sampling), section II.B.
    """
    _checks.array("avg_pool", "x", x, "(N, H, W, C)")
    stride = size if stride is None else stride
    _checks.pool_window("avg_pool", x.shape, size, stride, pad, ceil)
    k, x_shape = kernels.of(x), x.shape
    options = {"stride": stride, "pad": pad, "ceil": ceil, "count_pad": count_pad}

    def backward(gy, needs):
        return k.avg_pool_grad(gy, x_shape, size, **options), None

    return k.avg_pool(x, size, **options), backward


@differentiable
def global_avg_pool(x: Array) -> Forward:
    """The mean of each channel over the whole map: (N, H, W, C) -> (N, C).

    Each of the H·W positions has the weight 1/(H·W) in the mean, so each gets that part of the gradient.
    Source: Lin et al. 2013 (arXiv:1312.4400, 3.2), in place of fully connected layers.
    """
    _checks.array("global_avg_pool", "x", x, "(N, H, W, C)")
    k, x_shape = kernels.of(x), x.shape

    def backward(gy, needs):
        return (k.global_avg_pool_grad(gy, x_shape),)

    return k.global_avg_pool(x), backward
