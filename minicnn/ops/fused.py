"""Two or three ops in one pass: less traffic to memory, the same numbers. Only layers call these.

The derivations are those of the parts, in norm.py, conv.py and activation.py. `disabled()` takes the parts instead.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import kernels
from kernels.geometry import Padding, Pair
from minicnn.autograd import Tensor, differentiable
from minicnn.ops._checks import require
from minicnn.ops.activation import relu
from minicnn.ops.conv import check_convolution, conv2d
from minicnn.ops.norm import Running, batch_norm, batch_statistics, check_batch_norm

_enabled: contextvars.ContextVar[bool] = contextvars.ContextVar("fusion", default=True)


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Within the block, fused ops of this thread run as the composition that their docstring names."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


@differentiable
def _bn_relu(
    x: Any,
    gamma: Any,
    beta: Any,
    residual: Any = None,
    *,
    running: Running | None,
    momentum: float,
    eps: float,
    training: bool,
) -> Any:
    check_batch_norm("bn_relu", x, gamma, beta, running, training)
    require(
        residual is None or residual.shape == x.shape,
        f"bn_relu: residual must have the shape of x, {x.shape}, got {getattr(residual, 'shape', None)}",
    )
    k = kernels.of(x)
    mean, var = batch_statistics(x, running, momentum, training)
    y = k.bn_relu(x, gamma, beta, mean, var, residual, eps=eps)

    def backward(gy, needs):
        grad = k.bn_relu_grad if training else k.bn_relu_eval_grad
        return grad(gy, y, x, gamma, mean, var, eps=eps)

    return y, backward


def bn_relu(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor | None = None,
    *,
    running: Running | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    training: bool = True,
) -> Tensor:
    """= relu(batch_norm(x, gamma, beta) + residual), with the gradient of the residual too."""
    options = {"running": running, "momentum": momentum, "eps": eps, "training": training}
    if _enabled.get():
        return _bn_relu(x, gamma, beta, residual, **options)
    y = batch_norm(x, gamma, beta, **options)
    return relu(y if residual is None else y + residual)


@differentiable
def _conv_relu(x: Any, w: Any, b: Any = None, *, stride: Pair, pad: Padding, dilation: Pair, groups: int) -> Any:
    check_convolution("conv_relu", x, w, b, stride, pad, dilation, groups)
    k, options = kernels.of(x), {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    y = k.conv2d_relu(x, w, b, **options)
    x_shape, w_shape = x.shape, w.shape

    def backward(gy, needs):
        g = k.relu_grad(gy, y)
        gx = k.conv2d_input_grad(g, w, x_shape, **options) if needs[0] else None
        gw = k.conv2d_weight_grad(g, x, w_shape, **options) if needs[1] else None
        gb = k.bias_grad(g) if needs[2] else None
        return gx, gw, gb

    return y, backward


def conv_relu(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """= relu(conv2d(x, w, b))."""
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return _conv_relu(x, w, b, **options) if _enabled.get() else relu(conv2d(x, w, b, **options))
