"""Normalisation: batch (BN), local response (LRN), local contrast (LCN)."""

from __future__ import annotations

import functools

import kernels
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops import _checks
from minicnn.ops._checks import require

Running = tuple[Array, Array]  # (mean, var), raw arrays (C,)


def check_batch_norm(op: str, x: Array, gamma: Array, beta: Array, running: Running | None, training: bool) -> None:
    """What batch_norm needs of its arguments; ValueError or TypeError otherwise."""
    _checks.array(op, "x", x, "(N, ..., C)")
    vectors = {"gamma": gamma, "beta": beta}
    if running is not None:
        vectors |= {"running mean": running[0], "running var": running[1]}
    for name, v in vectors.items():
        _checks.vector(op, name, v, x, x.shape[-1], "channel", statistic=True)
    require(training or running is not None, f"{op}: training=False needs running=(mean, var) to normalise with")
    several = x.size > x.shape[-1]
    require(several or not training, f"{op}: training needs more than one value per channel, x is {x.shape}")


def batch_statistics(x: Array, running: Running | None, momentum: float, training: bool) -> Running:
    """(mean, var) to normalise with: the batch's, which also go into `running`, or in evaluation the running ones.

    In evaluation they are copies: a closure that is walked later must not see what training has made of them since.
    """
    if running is not None and not training:
        return running[0].copy(), running[1].copy()
    k = kernels.of(x)
    mean, var = k.batch_norm_stats(x)
    if running is not None:
        k.batch_norm_update(*running, mean, var, count=x.size // x.shape[-1], momentum=momentum)
    return mean, var


@functools.partial(differentiable, statistics=("gamma", "beta"))
def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    running: Running | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    training: bool = True,
) -> Forward:
    """Give each channel mean 0 and deviation 1 over the batch, then let the network choose both: y = γ·x̂ + β.

        x̂ = (x − μ) / σ,   μ = Σ x / M,   σ² = Σ (x − μ)² / M + eps,   sums over the M = N·H·W values of a channel

    β is added everywhere and γ multiplies x̂ everywhere: gβ = Σ gy, gγ = Σ gy·x̂. With g = γ·gy arriving at x̂, the
    gradient reaches x by three paths:

    1. directly, through the numerator: g/σ;
    2. through μ, where ∂μ/∂x = 1/M and ∂x̂/∂μ = −1/σ: −Σ g / (M·σ);
    3. through σ, where ∂σ/∂x = x̂/M and ∂x̂/∂σ = −x̂/σ: −x̂·Σ (g·x̂) / (M·σ). (σ depends on μ too, but is least there.)

    Their sum, gx = γ/σ · (gy − Σ gy / M − x̂·Σ (gy·x̂) / M), has no part along 1 nor (but for eps) along x̂: to shift or
    stretch a whole channel changes nothing. With `training=False` μ and σ are constants and only path 1 is left.

    x (N, ..., C), gamma and beta (C,) -> (N, ..., C); beside a float16 x all that is (C,) may be float32. `running` =
    (mean, var), raw arrays (C,), is updated in place in training: (1 − momentum)·running + momentum·batch, var with
    M/(M − 1); it is used in evaluation. ValueError where shapes do not fit, for one value per channel, for evaluation
    without `running`.
    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167, algorithms 1 and 2).
    """
    check_batch_norm("batch_norm", x, gamma, beta, running, training)
    k = kernels.of(x)
    mean, var = batch_statistics(x, running, momentum, training)

    def backward(gy, needs):
        grad = k.batch_norm_grad if training else k.batch_norm_eval_grad
        return grad(gy, x, gamma, mean, var, eps=eps)

    return k.batch_norm(x, gamma, beta, mean, var, eps=eps), backward


def _check_centre(op: str, size: int) -> None:
    _checks.whole(op, "size", size, least=1)
    require(size % 2 == 1, f"{op}: size must be odd, so that the window has a centre, got {size}")


@differentiable
def lrn(x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Forward:
    """Local response normalisation: a strong response damps those of neighbouring channels at the same place.

        s_i = k + α Σ_j x_j² over |j − i| ≤ size//2,   y_i = x_i · s_i^(−β)

    x_i acts on the loss in two ways. It is the numerator of its own y_i: gy_i·s_i^(−β). And it is in the sum s_j of
    each neighbour j, where ∂s_j/∂x_i = 2α·x_i and ∂y_j/∂s_j = −β·y_j/s_j. Windows of odd size are symmetric, so these j
    are the window of i again:  gx_i = gy_i·s_i^(−β) − 2αβ·x_i Σ_j gy_j·y_j/s_j.

    x (..., C) -> (..., C). `alpha` multiplies the sum, as in the paper; Caffe and PyTorch multiply the mean: theirs is
    size·alpha. ValueError for an even size. Source: Krizhevsky et al. 2012, section 3.3.
    """
    _checks.array("lrn", "x", x, "(..., C)")
    _check_centre("lrn", size)
    kernel, options = kernels.of(x), {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def backward(gy, needs):
        return (kernel.lrn_grad(gy, x, **options),)

    return kernel.lrn(x, **options), backward


@differentiable
def lcn(x: Array, *, size: int = 9, eps: float = 1e-8) -> Forward:
    """Local contrast normalisation: subtract the mean of the neighbourhood, then divide by its deviation.

        v = x − blur(x),   σ = √blur(v²),   y = v / d,   d = max(σ, mean of σ over the map, eps)

    blur is a Gaussian average over a size×size window and all channels; it is symmetric, and so its own adjoint.
    Backward undoes the steps in turn:

    1. the division gives gv = gy/d and, summed over the channels that share d, gd = −Σ_c gy·v/d²;
    2. the maximum hands gd to σ where σ is the larger, else to the mean, which shares it equally among the σ of the
       map; as 2σ·dσ = blur(2v·dv), gv gets v·blur(gσ/σ) on top;
    3. the subtraction gives gx = gv − blur(gv).

    x (N, H, W, C) -> (N, H, W, C); zeros beyond the border. ValueError for an even size.
    Source: Jarrett et al. 2009, section 2.
    """
    _checks.array("lcn", "x", x, "(N, H, W, C)")
    _check_centre("lcn", size)
    k = kernels.of(x)

    def backward(gy, needs):
        return (k.lcn_grad(gy, x, size=size, eps=eps),)

    return k.lcn(x, size=size, eps=eps), backward
