"""Convolution and the fully connected layer: everything in a network that multiplies by weights."""

from __future__ import annotations

import kernels
from kernels.geometry import Padding, Pair
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops import _checks
from minicnn.ops._checks import require


def check_convolution(
    op: str, x: Array, w: Array, b: Array | None, stride: Pair, pad: Padding, dilation: Pair, groups: int
) -> None:
    """What conv2d needs of its arguments; ValueError or TypeError otherwise."""
    _checks.array(op, "x", x, "(N, H, W, C)")
    _checks.array(op, "w", w, "(KH, KW, C/groups, O)")
    _checks.whole(op, "groups", groups, least=1)
    channels, outputs = w.shape[2] * groups, w.shape[3]
    shapes = f"(x: {x.shape}, w: {w.shape}" + (f", groups: {groups})" if groups > 1 else ")")
    require(channels == x.shape[3], f"{op}: w has {channels} input channels but x has {x.shape[3]} {shapes}")
    require(outputs % groups == 0, f"{op}: {groups} groups do not divide the {outputs} output channels of w {shapes}")
    if b is not None:
        _checks.vector(op, "b", b, x, outputs, "output channel")
    _checks.window(op, x.shape, w.shape[:2], stride, pad, dilation)


@differentiable
def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Forward:
    """Slide a bank of filters over the map: each output is the scalar product of a filter with the window under it.

        y[n, oh, ow, o] = b[o] + Σ_{kh, kw, c} x[n, oh·s − p + kh·d, ow·s − p + kw·d, c] · w[kh, kw, c, o]

    Lay the window of each output out as one row: col = im2col(x), a matrix of N·OH·OW rows and KH·KW·C columns. Then
    y = col @ w + b is a matrix product, and its three gradients follow:

    1. w[k, o] multiplies col[i, k] in every row i, so it collects from all of them: gw = colᵀ @ gy.
    2. col[i, k] reaches every output o of its row through w[k, o]: gcol = gy @ wᵀ. But im2col copied each x into all
       the windows that hold it, so x gets the sum over its copies: gx = col2im(gcol), the adjoint of im2col.
    3. b[o] is added at every place: gb = Σ gy over N, OH, OW.

    With G = `groups`, output channels of group g see only the input channels of group g: G products side by side.

    x (N, H, W, C), w (KH, KW, C/groups, O), b (O,) or None -> (N, OH, OW, O), OH = (H + 2p − d·(KH − 1) − 1) // s + 1.
    stride, dilation: int or (h, w); pad: int, (h, w) or ((top, bottom), (left, right)). ValueError where shapes do not
    fit. Source: LeCun et al. 1989; im2col: Chellapilla et al. 2006; groups: Krizhevsky et al. 2012, section 3.5.
    """
    check_convolution("conv2d", x, w, b, stride, pad, dilation, groups)
    k, options = kernels.of(x), {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    x_shape, w_shape = x.shape, w.shape

    def backward(gy, needs):
        gx = k.conv2d_input_grad(gy, w, x_shape, **options) if needs[0] else None
        gw = k.conv2d_weight_grad(gy, x, w_shape, **options) if needs[1] else None
        gb = k.bias_grad(gy) if needs[2] else None
        return gx, gw, gb

    return k.conv2d(x, w, b, **options), backward


@differentiable
def linear(x: Array, w: Array, b: Array | None = None) -> Forward:
    """Every output sees every input: y = x @ w + b, a convolution whose window is the whole map.

    x_ni reaches every output y_no through w_io: gx_ni = Σ_o gy_no·w_io, gx = gy @ wᵀ. w_io is used for every image n:
    gw_io = Σ_n x_ni·gy_no, gw = xᵀ @ gy. b is added to every row: gb = Σ_n gy.

    x (N, in), w (in, out), b (out,) or None -> (N, out). ValueError where shapes do not fit.
    """
    _checks.array("linear", "x", x, "(N, in)")
    _checks.array("linear", "w", w, "(in, out)")
    inputs, outputs = w.shape
    message = f"linear: w has {inputs} inputs but x has {x.shape[1]} (x: {x.shape}, w: {w.shape})"
    require(inputs == x.shape[1], message)
    if b is not None:
        _checks.vector("linear", "b", b, x, outputs, "output")
    k = kernels.of(x)

    def backward(gy, needs):
        gx = k.linear_input_grad(gy, w) if needs[0] else None
        gw = k.linear_weight_grad(gy, x) if needs[1] else None
        gb = k.bias_grad(gy) if needs[2] else None
        return gx, gw, gb

    return k.linear(x, w, b), backward
