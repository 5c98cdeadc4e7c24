"""Every kernel of minicnn in readable array code: the specification that the fast backends are tested against.

It runs on NumPy and on CuPy arrays as it stands. Maps are NHWC, weights HWIO; the letters, the same in all backends:

    N H W C    images, rows, columns, channels of x      KH KW    rows and columns of a window or a filter
    O OH OW    channels, rows, columns of y              G        groups of channels
    x w b y    input, weights, bias, output              gx gw gb gy    the gradient of the loss by each of them

A name that ends in `_grad` goes backward: it takes the upstream gradient gy first, then what its formula needs, and
returns the gradients of its forward kernel's arrays. Results keep the dtype; nothing is mutated but by `*_update`.
A kernel made of others takes them from `kernels.of`, so that a backend's faster part is felt in the whole.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import kernels
from kernels import array_module
from kernels.geometry import Axis, Padding, Pair, pair, windows

# fmt: off
__all__ = [  # noqa: RUF022, by topic
    "im2col", "col2im", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv2d_relu", "bias_grad",
    "linear", "linear_input_grad", "linear_weight_grad",
    "max_pool", "max_pool_grad", "avg_pool", "avg_pool_grad", "global_avg_pool", "global_avg_pool_grad",
    "batch_norm_stats", "batch_norm", "batch_norm_grad", "batch_norm_eval_grad", "batch_norm_update",
    "bn_relu", "bn_relu_grad", "bn_relu_eval_grad",
    "lrn", "lrn_grad", "lcn", "lcn_grad",
    "relu", "relu_grad", "sigmoid", "sigmoid_grad", "tanh", "tanh_grad",
    "concat", "concat_grad", "pad_channels", "pad_channels_grad", "subsample", "subsample_grad",
    "softmax", "softmax_grad", "cross_entropy", "cross_entropy_grad",
    "dropout", "crop_flip_normalise",
    "sgd_update", "rmsprop_update", "adam_update", "ema_update", "sum_update", "cast_update", "together", "square_sum",
]
# fmt: on

Array = Any  # numpy.ndarray or cupy.ndarray
Shape = tuple[int, ...]


# ---- Windows that slide over a map ---------------------------------------------------------------------------------
#
# All of them are read and written tap by tap. Tap (kh, kw) of every window at once is a strided slice of the padded
# map, so KH·KW slices do the work of N·OH·OW windows, and overlapping windows need no scatter.


def _taps(rows: Axis, cols: Axis) -> Iterator[tuple[int, int, tuple[slice, slice, slice]]]:
    """(kh, kw, index) in scan order: padded[index] is tap (kh, kw) of all the windows, (N, OH, OW, C)."""

    def tap(axis: Axis, k: int) -> slice:
        start = k * axis.dilation
        return slice(start, start + (axis.outputs - 1) * axis.stride + 1, axis.stride)

    for kh, kw in itertools.product(range(rows.size), range(cols.size)):
        yield kh, kw, (slice(None), tap(rows, kh), tap(cols, kw))


def _padded(like: Array, shape: Shape, rows: Axis, cols: Axis, value: float = 0.0) -> tuple[Array, Array]:
    """(padded, inside): a map full of `value` that holds every window, and the view of it where x of `shape` lies."""

    def extent(axis: Axis) -> int:  # a window may end before the map's end (stride) or beyond it (padding, ceil)
        return max(axis.before + axis.length, (axis.outputs - 1) * axis.stride + (axis.size - 1) * axis.dilation + 1)

    padded = array_module(like).full((shape[0], extent(rows), extent(cols), shape[3]), value, like.dtype)
    return padded, padded[:, rows.before : rows.before + rows.length, cols.before : cols.before + cols.length]


def im2col(x: Array, size: Pair, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1) -> Array:
    """Lay the window under each output side by side: convolution becomes one matrix product.

    x (N, H, W, C), size KH or (KH, KW) -> (N, OH, OW, KH, KW, C), zeros where a window reaches into the padding.
    """
    rows, cols = windows(x.shape, size, stride, pad, dilation)
    padded, inside = _padded(x, x.shape, rows, cols)
    inside[...] = x
    col = array_module(x).empty((len(x), rows.outputs, cols.outputs, rows.size, cols.size, x.shape[3]), x.dtype)
    for kh, kw, index in _taps(rows, cols):
        col[:, :, :, kh, kw] = padded[index]  # (N, OH, OW, C)
    return col


def col2im(col: Array, x_shape: Shape, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1) -> Array:
    """Add every tap back to the input position it was read from: the adjoint of im2col, <im2col x, c> = <x, col2im c>.

    col (N, OH, OW, KH, KW, C) -> x_shape (N, H, W, C). A position under several windows gets the sum of its taps.
    """
    rows, cols = windows(x_shape, col.shape[3:5], stride, pad, dilation)
    padded, inside = _padded(col, x_shape, rows, cols)
    for kh, kw, index in _taps(rows, cols):
        padded[index] += col[:, :, :, kh, kw]  # (N, OH, OW, C)
    return inside


# ---- Convolution ---------------------------------------------------------------------------------------------------
#
#   y[n, oh, ow, o] = b[o] + Σ_{kh, kw, c} x[n, oh·s − p + kh·d, ow·s − p + kw·d, c] · w[kh, kw, c, o]
#
# With col = im2col(x) as an (N·OH·OW, KH·KW·C) matrix this is y = col @ w + b, and matrix calculus gives the rest:
#
#   gw = colᵀ @ gy        gcol = gy @ wᵀ, then gx = col2im(gcol), the adjoint of the linear map im2col
#
# G groups are G independent products: output channels of group g see the input channels of group g alone.


def _by_group(a: Array, rows: int, groups: int) -> Array:
    """`rows` rows of taps times channels (..., G·C) -> (G, rows, taps·C): a matrix for each group of channels."""
    a = a.reshape(rows, -1, groups, a.shape[-1] // groups)  # (rows, taps, G, C)
    return array_module(a).moveaxis(a, 2, 0).reshape(groups, rows, -1)


def _from_groups(a: Array, shape: Shape) -> Array:
    """(G, rows, taps·C) -> `shape`, the inverse of _by_group."""
    groups, rows, _ = a.shape
    a = a.reshape(groups, rows, -1, shape[-1] // groups)  # (G, rows, taps, C)
    return array_module(a).moveaxis(a, 0, 2).reshape(shape)


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Slide filters over a map: each output is the product of a filter with the window under it.

    x (N, H, W, C), w (KH, KW, C/G, O), b (O,) -> (N, OH, OW, O).
    """
    kh, kw, c, o = w.shape
    col = kernels.of(x).im2col(x, (kh, kw), stride=stride, pad=pad, dilation=dilation)
    n, oh, ow = col.shape[:3]
    # (G, N·OH·OW, KH·KW·C/G) @ (G, KH·KW·C/G, O/G)
    y = _by_group(col, n * oh * ow, groups) @ _by_group(w, kh * kw * c, groups)
    y = _from_groups(y, (n, oh, ow, o))
    return y if b is None else y + b


def conv2d_input_grad(
    gy: Array, w: Array, x_shape: Shape, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1, groups: int = 1
) -> Array:
    """gx of conv2d: every output sends its gradient back through the filter to the window that it saw.

    gy (N, OH, OW, O), w (KH, KW, C/G, O) -> x_shape (N, H, W, C).
    """
    n, oh, ow, _ = gy.shape
    kh, kw, c, _ = w.shape
    # (G, N·OH·OW, O/G) @ (G, O/G, KH·KW·C/G)
    gcol = _by_group(gy, n * oh * ow, groups) @ _by_group(w, kh * kw * c, groups).swapaxes(1, 2)
    gcol = _from_groups(gcol, (n, oh, ow, kh, kw, x_shape[3]))
    return kernels.of(gy).col2im(gcol, x_shape, stride=stride, pad=pad, dilation=dilation)


def conv2d_weight_grad(
    gy: Array, x: Array, w_shape: Shape, *, stride: Pair = 1, pad: Padding = 0, dilation: Pair = 1, groups: int = 1
) -> Array:
    """gw of conv2d: each weight collects input times output gradient over all the places where it was used.

    gy (N, OH, OW, O), x (N, H, W, C) -> w_shape (KH, KW, C/G, O).
    """
    n, oh, ow, _ = gy.shape
    col = kernels.of(x).im2col(x, w_shape[:2], stride=stride, pad=pad, dilation=dilation)
    # (G, KH·KW·C/G, N·OH·OW) @ (G, N·OH·OW, O/G)
    gw = _by_group(col, n * oh * ow, groups).swapaxes(1, 2) @ _by_group(gy, n * oh * ow, groups)
    return _from_groups(gw, w_shape)


def conv2d_relu(
    x: Array,
    w: Array,
    b: Array | None = None,
    residual: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """= relu(conv2d(x, w, b) + residual), in one pass where a backend can.

    residual (N, OH, OW, O); None adds nothing.
    """
    k = kernels.of(x)
    y = k.conv2d(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    return k.relu(y if residual is None else y + residual)


def _channel_sum(a: Array) -> Array:
    """(..., C) -> (C,), axis by axis: short sums of short sums lose far less in float32 than one long sum."""
    while a.ndim > 1:
        a = a.sum(axis=-2)
    return a


def bias_grad(gy: Array) -> Array:
    """gb of conv2d and linear: b[o] is added everywhere, so it collects gy from everywhere. (..., O) -> (O,)."""
    return _channel_sum(gy)


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """Every output sees every input: y = x @ w + b. x (N, in), w (in, out), b (out,) -> (N, out)."""
    y = x @ w
    return y if b is None else y + b


def linear_input_grad(gy: Array, w: Array) -> Array:
    """gx of linear: gy (N, out) @ wᵀ (out, in) -> (N, in)."""
    return gy @ w.T


def linear_weight_grad(gy: Array, x: Array) -> Array:
    """gw of linear: xᵀ (in, N) @ gy (N, out) -> (in, out)."""
    return x.T @ gy


# ---- Pooling -------------------------------------------------------------------------------------------------------


def max_pool(
    x: Array, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False
) -> tuple[Array, Array]:
    """Keep the largest value of each window, and remember which it was.

    x (N, H, W, C) -> y and winners, both (N, OH, OW, C). The winner is the tap kh·KW + kw of the first maximum in scan
    order, uint8 if KH·KW <= 256, else int32. Padding is −inf. A NaN wins, of several the last, as in PyTorch; in a
    window of nothing but −inf the winner is tap 0.
    """
    rows, cols = windows(x.shape, size, stride, pad, ceil=ceil)
    xp = array_module(x)
    padded, inside = _padded(x, x.shape, rows, cols, value=-math.inf)
    inside[...] = x
    y = xp.full((len(x), rows.outputs, cols.outputs, x.shape[3]), -math.inf, x.dtype)
    winners = xp.zeros(y.shape, xp.uint8 if rows.size * cols.size <= 256 else xp.int32)
    for kh, kw, index in _taps(rows, cols):
        candidate = padded[index]  # (N, OH, OW, C)
        wins = (candidate > y) | xp.isnan(candidate)
        y = xp.where(wins, candidate, y)
        winners = xp.where(wins, winners.dtype.type(kh * cols.size + kw), winners)
    return y, winners


def max_pool_grad(
    gy: Array,
    winners: Array,
    x_shape: Shape,
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
) -> Array:
    """gx of max_pool: the winner of a window gets its whole gradient, the others none.

    y = x[winner], so ∂y/∂x is 1 there and 0 elsewhere; an input that wins several windows gets the sum.
    """
    rows, cols = windows(x_shape, size, stride, pad, ceil=ceil)
    padded, inside = _padded(gy, x_shape, rows, cols)
    for kh, kw, index in _taps(rows, cols):
        padded[index] += array_module(gy).where(winners == kh * cols.size + kw, gy, 0)  # (N, OH, OW, C)
    return inside


def _window_elements(like: Array, rows: Axis, cols: Axis, count_pad: bool) -> Array:
    """By how much each window's sum is divided, (OH, OW, 1); what `ceil` adds beyond the padding never counts."""

    def elements(axis: Axis) -> Array:
        low, high = (-axis.before, axis.length + axis.after) if count_pad else (0, axis.length)
        starts = [i * axis.stride - axis.before for i in range(axis.outputs)]
        counts = [min(start + axis.size, high) - max(start, low) for start in starts]
        return array_module(like).asarray(counts, like.dtype)

    return elements(rows)[:, None, None] * elements(cols)[:, None]


def avg_pool(
    x: Array, size: Pair, *, stride: Pair | None = None, pad: Padding = 0, ceil: bool = False, count_pad: bool = False
) -> Array:
    """Replace each window by its mean.

    x (N, H, W, C) -> (N, OH, OW, C). `count_pad` False divides by the real elements of the window, True by all the
    elements of the window inside the padded map.
    """
    rows, cols = windows(x.shape, size, stride, pad, ceil=ceil)
    padded, inside = _padded(x, x.shape, rows, cols)
    inside[...] = x
    total = sum(padded[index] for _, _, index in _taps(rows, cols))  # (N, OH, OW, C)
    return total / _window_elements(x, rows, cols, count_pad)


def avg_pool_grad(
    gy: Array,
    x_shape: Shape,
    size: Pair,
    *,
    stride: Pair | None = None,
    pad: Padding = 0,
    ceil: bool = False,
    count_pad: bool = False,
) -> Array:
    """gx of avg_pool: each element of a window gets the same share, gy / elements."""
    rows, cols = windows(x_shape, size, stride, pad, ceil=ceil)
    share = gy / _window_elements(gy, rows, cols, count_pad)  # (N, OH, OW, C)
    padded, inside = _padded(gy, x_shape, rows, cols)
    for _, _, index in _taps(rows, cols):
        padded[index] += share
    return inside


def global_avg_pool(x: Array) -> Array:
    """The mean of each channel over the whole map: (N, H, W, C) -> (N, C)."""
    return x.mean(axis=(1, 2))


def global_avg_pool_grad(gy: Array, x_shape: Shape) -> Array:
    """gx of global_avg_pool: each of the H·W positions gets gy / (H·W). gy (N, C) -> x_shape (N, H, W, C)."""
    xp = array_module(gy)
    share = gy[:, None, None, :] / (x_shape[1] * x_shape[2])  # (N, 1, 1, C)
    return xp.ascontiguousarray(xp.broadcast_to(share, x_shape))


# ---- Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2) ----------------------------
#
#   x̂ = (x − mean) / √(var + eps)        y = gamma·x̂ + beta        mean, var over the M = N·H·W values of a channel
#
# With Σ over a channel, gbeta = Σ gy and ggamma = Σ gy·x̂. Where mean and var are constants, gx = gamma/√(var + eps)·gy.
# In training they are functions of x. Adding a constant to a channel, or scaling it, then leaves x̂ as it is, so gx has
# no component along 1 or along x̂. The two are orthogonal and Σ 1² = Σ x̂² = M; taking both components out of gy gives
#
#   gx = gamma/√(var + eps) · (gy − Σ gy / M − x̂ · Σ (gy·x̂) / M)
#
# (eps makes Σ x̂² slightly smaller than M, yet differentiating mean and var term by term gives this formula exactly).


def batch_norm_stats(x: Array) -> tuple[Array, Array]:
    """(mean, var) of each channel over all other axes, (C,) each; var is biased: divided by M.

    In two passes: E[x²] − E[x]² would cancel in float32 wherever the mean is large beside the deviation.
    """
    m = x.size // x.shape[-1]
    mean = _channel_sum(x) / m
    return mean, _channel_sum((x - mean) ** 2) / m


def batch_norm(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, eps: float = 1e-5) -> Array:
    """Give each channel mean beta and deviation gamma. x (..., C), the others (C,) -> (..., C)."""
    y = (x - mean) * (gamma / array_module(x).sqrt(var + eps)) + beta
    return y.astype(x.dtype, copy=False)  # of float16 maps statistics and parameters may be float32


def batch_norm_grad(
    gy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(gx, ggamma, gbeta) of batch_norm in training, where mean and var were computed from x."""
    m = x.size // x.shape[-1]
    inv_std = 1 / array_module(x).sqrt(var + eps)  # (C,)
    xhat = (x - mean) * inv_std  # (..., C)
    ggamma, gbeta = _channel_sum(gy * xhat), _channel_sum(gy)  # (C,)
    gx = gamma * inv_std * (gy - gbeta / m - xhat * (ggamma / m))
    return gx.astype(x.dtype, copy=False), ggamma.astype(gamma.dtype, copy=False), gbeta.astype(gamma.dtype, copy=False)


def batch_norm_eval_grad(
    gy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(gx, ggamma, gbeta) of batch_norm in evaluation, where mean and var are constants."""
    inv_std = 1 / array_module(x).sqrt(var + eps)  # (C,)
    gx, ggamma, gbeta = gy * (gamma * inv_std), _channel_sum(gy * (x - mean)) * inv_std, _channel_sum(gy)
    return gx.astype(x.dtype, copy=False), ggamma.astype(gamma.dtype, copy=False), gbeta.astype(gamma.dtype, copy=False)


def batch_norm_update(
    running_mean: Array, running_var: Array, mean: Array, var: Array, *, count: int, momentum: float = 0.1
) -> None:
    """Move the running statistics, in place, towards those of a batch: running = (1 − momentum)·running + momentum·new.

    `count` is the M that var was divided by; the running variance takes the unbiased var·M/(M − 1).
    """
    running_mean *= 1 - momentum
    running_mean += momentum * mean
    running_var *= 1 - momentum
    running_var += momentum * count / max(count - 1, 1) * var


def bn_relu(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, residual: Array | None = None, *, eps: float = 1e-5
) -> Array:
    """= relu(batch_norm(x, ...) + residual), in one pass where a backend can."""
    k = kernels.of(x)
    y = k.batch_norm(x, gamma, beta, mean, var, eps=eps)
    return k.relu(y if residual is None else y + residual)


def bn_relu_grad(
    gy: Array, y: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array, Array]:
    """(gx, ggamma, gbeta, gresidual) of bn_relu in training; gresidual is gy where y > 0, a fresh array."""
    k = kernels.of(x)
    gresidual = k.relu_grad(gy, y)
    return *k.batch_norm_grad(gresidual, x, gamma, mean, var, eps=eps), gresidual


def bn_relu_eval_grad(
    gy: Array, y: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array, Array]:
    """(gx, ggamma, gbeta, gresidual) of bn_relu in evaluation; gresidual is gy where y > 0, a fresh array."""
    k = kernels.of(x)
    gresidual = k.relu_grad(gy, y)
    return *k.batch_norm_eval_grad(gresidual, x, gamma, mean, var, eps=eps), gresidual


# ---- Local response normalisation (Krizhevsky et al. 2012, section 3.3) --------------------------------------------
#
#   s_i = k + alpha Σ_{|j − i| <= size//2} x_j²        y_i = x_i · s_i^(−beta)        i, j: channels of one position
#
# x_i acts on its own y_i directly, and through s_j on every y_j whose window holds i: the same channels, as windows of
# odd size are symmetric. ∂s_j/∂x_i = 2·alpha·x_i and ∂y_j/∂s_j = −beta·y_j/s_j, hence
#
#   gx_i = gy_i · s_i^(−beta) − 2·alpha·beta · x_i Σ_{|j − i| <= size//2} gy_j · y_j / s_j


def _neighbour_sum(a: Array, size: int) -> Array:
    """The sum over the `size` channels around each channel, fewer at the ends: (..., C) -> (..., C)."""
    c = a.shape[-1]
    padded = kernels.of(a).pad_channels(a, size // 2, size // 2)  # (..., C + size − 1)
    return sum(padded[..., j : j + c] for j in range(size))


def lrn(x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Array:
    """Let a strong response damp those of the neighbouring channels. x (..., C) -> (..., C); `size` is odd.

    `alpha` multiplies the sum, as in the paper; Caffe and PyTorch multiply the mean: theirs is size·alpha.
    """
    return x * (k + alpha * _neighbour_sum(x * x, size)) ** -beta


def lrn_grad(gy: Array, x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Array:
    """gx of lrn; s is computed again, which is cheaper than to keep it."""
    s = k + alpha * _neighbour_sum(x * x, size)
    scale = s**-beta
    return gy * scale - 2 * alpha * beta * x * _neighbour_sum(gy * x * scale / s, size)


# ---- Local contrast normalisation (Jarrett et al. 2009, section 2) -------------------------------------------------
#
#   v = x − Σ w·x        σ = √(Σ w·v²)        y = v / d,  d = max(mean of σ over the map, σ, eps)
#
# Σ runs over a size x size window and over all channels; w is a Gaussian that sums to 1 over both, so Σ w·a is the blur
# of a's mean over the channels. Beyond the border lie zeros. Backward, from y to x:
#
#   gd = −Σ_channels gy·v / d²        goes to σ itself where σ > mean, else to the mean, that is equally to all σ
#   gv = gy/d + v/C · blur(gσ/σ)      since σ² = blur(mean of v²), and a symmetric blur is its own adjoint
#   gx = gv − blur(mean of gv)        the adjoint of v = x − blur(mean of x)


def _blur(a: Array, size: int) -> Array:
    """Gaussian blur of maps (N, H, W), zeros beyond the border; deviation size/4, as Torch 7 had it."""
    bell = [math.exp(-0.5 * ((i - size // 2) / (size / 4)) ** 2) for i in range(size)]
    weights = [g / sum(bell) for g in bell]
    _, h, w = a.shape
    half = (size // 2, size // 2)
    padded = array_module(a).pad(a, ((0, 0), half, half))  # (N, H + size − 1, W + size − 1)
    rows = sum(g * padded[:, i : i + h] for i, g in enumerate(weights))  # (N, H, W + size − 1)
    return sum(g * rows[:, :, i : i + w] for i, g in enumerate(weights))  # (N, H, W)


def _contrast(x: Array, size: int) -> tuple[Array, Array, Array]:
    """v (N, H, W, C), σ (N, H, W) and the mean of σ over each map (N, 1, 1)."""
    v = x - _blur(x.mean(axis=-1), size)[..., None]
    sigma = array_module(x).sqrt(_blur((v * v).mean(axis=-1), size))
    return v, sigma, sigma.mean(axis=(1, 2), keepdims=True)


def lcn(x: Array, *, size: int = 9, eps: float = 1e-8) -> Array:
    """Subtract the local mean, then divide by the local deviation. x (N, H, W, C) -> (N, H, W, C); `size` is odd.

    Where a map is flatter than its own mean deviation it is divided by that instead, so that noise is not blown up.
    """
    xp = array_module(x)
    v, sigma, mean = _contrast(x, size)
    return v / xp.maximum(xp.maximum(sigma, mean), eps)[..., None]


def lcn_grad(gy: Array, x: Array, *, size: int = 9, eps: float = 1e-8) -> Array:
    """gx of lcn, by the formulas above; where eps or σ = 0 decides, nothing flows to σ."""
    xp = array_module(x)
    v, sigma, mean = _contrast(x, size)
    d = xp.maximum(xp.maximum(sigma, mean), eps)  # (N, H, W)
    gd = xp.where(d > eps, -(gy * v).sum(axis=-1) / d**2, 0)
    to_mean = xp.where(sigma > mean, 0, gd).mean(axis=(1, 2), keepdims=True)  # (N, 1, 1)
    gsigma = xp.where(sigma > mean, gd, 0) + to_mean
    ratio = xp.where(sigma > 0, gsigma / xp.where(sigma > 0, sigma, 1), 0)
    gv = gy / d[..., None] + v * _blur(ratio, size)[..., None] / x.shape[-1]
    return gv - _blur(gv.mean(axis=-1), size)[..., None]


# ---- Activations: every gradient is written in terms of the output y, so that x need not be kept -------------------


def relu(x: Array) -> Array:
    """max(x, 0); a NaN stays a NaN."""
    return array_module(x).maximum(x, 0)


def relu_grad(gy: Array, y: Array) -> Array:
    """gx of relu: gy where y > 0, else 0."""
    return array_module(gy).where(y > 0, gy, 0)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), written with e^−|x|, which cannot overflow."""
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, 1) / (1 + e)


def sigmoid_grad(gy: Array, y: Array) -> Array:
    """gx of sigmoid: dy/dx = y·(1 − y)."""
    return gy * (y * (1 - y))


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return array_module(x).tanh(x)


def tanh_grad(gy: Array, y: Array) -> Array:
    """gx of tanh: dy/dx = 1 − y²."""
    return gy * (1 - y * y)


# ---- Moving channels and positions about: the gradients undo the move ----------------------------------------------


def concat(*xs: Array, axis: int = -1) -> Array:
    """Join maps along an axis: by default their channels."""
    return array_module(xs[0]).concatenate(xs, axis=axis)


def concat_grad(gy: Array, sizes: tuple[int, ...], *, axis: int = -1) -> tuple[Array, ...]:
    """The gradient of each input of concat: its piece of gy; `sizes` are the inputs' lengths along the axis."""
    return tuple(array_module(gy).split(gy, list(itertools.accumulate(sizes))[:-1], axis=axis))


def pad_channels(x: Array, before: int, after: int) -> Array:
    """Add channels of zeros: (..., C) -> (..., before + C + after). ResNet's option A (arXiv:1512.03385, 4.2)."""
    return array_module(x).pad(x, ((0, 0),) * (x.ndim - 1) + ((before, after),))


def pad_channels_grad(gy: Array, before: int, after: int) -> Array:
    """gx of pad_channels: the channels that were there before."""
    return gy[..., before : gy.shape[-1] - after]


def subsample(x: Array, stride: Pair) -> Array:
    """Keep every stride-th row and column: (N, H, W, C) -> (N, ⌈H/s⌉, ⌈W/s⌉, C). ResNet's option A."""
    sh, sw = pair(stride)
    return x[:, ::sh, ::sw].copy()


def subsample_grad(gy: Array, x_shape: Shape, stride: Pair) -> Array:
    """gx of subsample: gy at the positions that were kept, 0 elsewhere."""
    sh, sw = pair(stride)
    gx = array_module(gy).zeros(x_shape, gy.dtype)
    gx[:, ::sh, ::sw] = gy
    return gx


# ---- Softmax and cross-entropy -------------------------------------------------------------------------------------
#
#   p = e^x / Σ e^x        loss = −Σ_k q_k log p_k        q: the target distribution
#
# ∂p_j/∂x_i = p_j·(δ_ij − p_i), hence softmax: gx = p·(gy − Σ gy·p). As log p_k = x_k − log Σ e^x,
# ∂loss/∂x_i = −q_i + p_i Σ_k q_k: with targets that sum to 1, the famous p − q. The maximum is subtracted from x
# first: p is the same and no exponential overflows.


def _log_softmax(x: Array) -> Array:
    xp = array_module(x)
    z = x - x.max(axis=-1, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis=-1, keepdims=True))


def softmax(x: Array) -> Array:
    """Turn scores into probabilities over the last axis: positive, and they sum to 1."""
    xp = array_module(x)
    e = xp.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_grad(gy: Array, y: Array) -> Array:
    """gx of softmax, from its output y."""
    return y * (gy - (gy * y).sum(axis=-1, keepdims=True))


def _targets(labels: Array, p: Array, label_smoothing: float) -> Array:
    """q (N, K): one-hot rows, or the probabilities given, mixed with the uniform distribution (arXiv:1512.00567, 7)."""
    classes = p.shape[-1]
    q = labels if labels.ndim == 2 else labels[:, None] == array_module(labels).arange(classes)
    return (1 - label_smoothing) * q.astype(p.dtype) + label_smoothing / classes


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """How surprised the softmax of the scores is by the labels.

    logits (N, K); labels (N,) integers below K or (N, K) probabilities -> losses (N,) and p = softmax(logits) (N, K).
    """
    xp = array_module(logits)
    log_p = _log_softmax(logits)
    q = _targets(labels, logits, label_smoothing)
    losses = -(q * xp.where(q > 0, log_p, 0)).sum(axis=-1)  # 0·log 0 = 0
    return losses, xp.exp(log_p)


def cross_entropy_grad(glosses: Array, p: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """glogits of cross_entropy: (N, K), from the gradients (N,) of the losses and the p that it returned."""
    q = _targets(labels, p, label_smoothing)
    return glosses[:, None] * (p * q.sum(axis=-1, keepdims=True) - q)


# ---- Dropout (Srivastava et al. 2014) ------------------------------------------------------------------------------

_WORD = 2**32 - 1


def _philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Four random words for each counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers").

    The words of the counter are uint64 arrays below 2**32, or Python integers; so are those of the result.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def dropout(x: Array, p: float, key: tuple[int, int, int]) -> Array:
    """Set each element to 0 with probability p, and scale the others by 1/(1 − p): the expectation stays x.

    0 <= p < 1. The mask depends on key = (seed, layer, step) and on the element's position in C order alone, so the
    gradient is the same function of gy. Four elements share a counter (block, layer, step); each takes a word's high
    24 bits as a fraction u, and is kept where u >= p.
    """
    if p == 0:
        return x.copy()
    xp = array_module(x)
    seed, layer, step = key
    block = xp.arange(-(-x.size // 4), dtype=xp.uint64)
    words = _philox((block & _WORD, block >> 32, layer, step), (seed & _WORD, seed >> 32))
    words = xp.stack(words, axis=-1).reshape(-1)[: x.size].reshape(x.shape)
    kept = (words >> 8) >= math.ceil(p * 2**24)  # u >= p, in integers
    return xp.where(kept, x / (1 - p), 0)


# ---- Pictures ------------------------------------------------------------------------------------------------------


def crop_flip_normalise(
    x: Array, corners: Array, mirrored: Array, mean: Array, std: Array, *, size: int, dtype: Any
) -> Array:
    """A window of each picture, mirrored or not, as numbers for a network: uint8 (N, H, W, C) -> (N, S, S, C).

    y = (pixel/255 − mean) / std, by channel. The window of S = `size` pixels squared begins at row and column `corners`
    (N, 2), and may reach beyond the picture, where all is black; it is mirrored left to right where `mirrored` (N,)
    says so. mean and std (C,). The result has the floating-point `dtype`; a half is rounded to at the end.
    """
    xp = array_module(x)
    wide = xp.promote_types(dtype, xp.float32)
    n, h, w, _ = x.shape
    rows, columns = corners[:, :1] + xp.arange(size), corners[:, 1:] + xp.arange(size)  # (N, S)
    columns = xp.where(mirrored[:, None], columns[:, ::-1], columns)
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]  # (N, S, S)
    picture, rows, columns = xp.arange(n)[:, None, None], rows.clip(0, h - 1), columns.clip(0, w - 1)
    pixels = xp.where(inside[..., None], x[picture, rows[:, :, None], columns[:, None, :]], 0)  # (N, S, S, C)
    mean, std = mean.astype(wide), std.astype(wide)
    return (pixels.astype(wide) * (1 / (255 * std)) - mean / std).astype(dtype, copy=False)


# ---- Optimiser updates, in place -----------------------------------------------------------------------------------
#
# `factor`, an array (), multiplies the gradient; where it is 0 nothing is changed at all. So a device that finds a NaN
# among gradients leaves the step out by itself, and the host need not know.


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within the block updates may wait for its end, where a backend can make those of all arrays at once.

    Here each is made as it comes. `sum_update` never waits.
    """
    yield


def sgd_update(
    w: Array,
    g: Array,
    velocity: Array,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    factor: Array | None = None,
) -> None:
    """Step down the slope, with inertia: v = m·v + g, w −= lr·v; Nesterov looks ahead: w −= lr·(g + m·v).

    g includes the decay weight_decay·w. `velocity` may be None without momentum.
    """
    if factor is not None:
        if factor == 0:
            return
        g = g * factor
    g = g + weight_decay * w
    if momentum:
        velocity *= momentum
        velocity += g
        g = g + momentum * velocity if nesterov else velocity
    w -= lr * g


def rmsprop_update(
    w: Array,
    g: Array,
    square: Array,
    velocity: Array,
    *,
    lr: float,
    decay: float = 0.9,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    eps_inside: bool = False,
    factor: Array | None = None,
) -> None:
    """Divide each gradient by its recent size (Tieleman and Hinton 2012): square is a running mean of g².

    `eps_inside` takes √(square + eps), TensorFlow's and Inception's, else √square + eps, PyTorch's.
    `velocity` may be None without momentum.
    """
    if factor is not None:
        if factor == 0:
            return
        g = g * factor
    xp = array_module(w)
    g = g + weight_decay * w
    square *= decay
    square += (1 - decay) * g * g
    step = g / (xp.sqrt(square + eps) if eps_inside else xp.sqrt(square) + eps)
    if momentum:
        velocity *= momentum
        velocity += step
        step = velocity
    w -= lr * step


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    step: int,
    factor: Array | None = None,
) -> None:
    """Step by the running mean of g over the root of the running mean of g² (Kingma and Ba 2015, arXiv:1412.6980).

    `step` counts from 1: both means start at 0, and 1 − beta^step corrects that. `decoupled` shrinks w directly
    instead of adding weight_decay·w to g: AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """
    if factor is not None:
        if factor == 0:
            return
        g = g * factor
    if decoupled:
        w *= 1 - lr * weight_decay
    else:
        g = g + weight_decay * w
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    mean, square = m / (1 - beta1**step), v / (1 - beta2**step)
    w -= lr * mean / (array_module(w).sqrt(square) + eps)


def ema_update(average: Array, w: Array, *, decay: float) -> None:
    """Let the average follow the weights: average = decay·average + (1 − decay)·w."""
    average *= decay
    average += (1 - decay) * w


def sum_update(total: Array, g: Array) -> None:
    """Add one more contribution to a gradient: total += g."""
    total += g


def cast_update(copy: Array, w: Array) -> None:
    """Let a copy in another dtype follow the weights: copy = w, rounded."""
    copy[...] = w


def square_sum(*arrays: Array) -> Array:
    """Σ a² over all elements of all arrays, () in float64: the root of it is the joint norm of gradients."""
    xp = array_module(arrays[0])
    return xp.asarray(sum((a.astype("float64") ** 2).sum() for a in arrays))
