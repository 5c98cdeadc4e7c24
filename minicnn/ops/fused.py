"""Two or three ops in one pass: less traffic to memory, the same numbers. Only layers call these.

The derivations are those of the parts, in norm.py, conv.py and activation.py. `disabled()` takes the parts instead.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import kernels
from kernels.geometry import Padding, Pair, windows
from minicnn.autograd import Array, Forward, Tensor, differentiable
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


def fuses(
    composition: Callable[..., Tensor], *, statistics: tuple[str, ...] = ()
) -> Callable[[Callable[..., Forward]], Callable[..., Tensor]]:
    """Decorate a function as an op that does in one pass what `composition`, its `op.composition`, does in several."""

    def decorate(f: Callable[..., Forward]) -> Callable[..., Tensor]:
        in_one_pass = differentiable(f, statistics=statistics)

        @functools.wraps(f)
        def op(*args: Any, **options: Any) -> Tensor:
            return in_one_pass(*args, **options) if _enabled.get() else composition(*args, **options)

        op.composition = composition  # type: ignore[attr-defined]
        return op

    return decorate


def _relu_of_conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, residual: Tensor | None = None, **options: Any
) -> Tensor:
    y = conv2d(x, w, b, **options)
    return relu(y if residual is None else y + residual)


@fuses(_relu_of_conv)
def conv_relu(
    x: Array,
    w: Array,
    b: Array | None = None,
    residual: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Forward:
    """= relu(conv2d(x, w, b) + residual), with the gradient of the residual too: gy where y > 0.

    The map before the ReLU is never kept: y says where it was positive. `residual` None adds nothing; it has the shape
    of y.
    """
    check_convolution("conv_relu", x, w, b, stride, pad, dilation, groups)
    if residual is not None:
        rows, cols = windows(x.shape, w.shape[:2], stride, pad, dilation)
        y_shape = (len(x), rows.outputs, cols.outputs, w.shape[3])
        require(residual.shape == y_shape, f"conv_relu: residual must be {y_shape} like y, got shape {residual.shape}")
    k, options = kernels.of(x), {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    x_shape, w_shape = x.shape, w.shape
    y = k.conv2d_relu(x, w, b, residual, **options)

    def backward(gy, needs):
        g = k.relu_grad(gy, y)  # what arrives at the convolution, and at the residual
        gx = k.conv2d_input_grad(g, w, x_shape, **options) if needs[0] else None
        gw = k.conv2d_weight_grad(g, x, w_shape, **options) if needs[1] else None
        gb = k.bias_grad(g) if needs[2] else None
        return gx, gw, gb, g if needs[3] else None

    return y, backward


def _relu_of_bn(x: Tensor, gamma: Tensor, beta: Tensor, residual: Tensor | None = None, **options: Any) -> Tensor:
    y = batch_norm(x, gamma, beta, **options)
    return relu(y if residual is None else y + residual)


@fuses(_relu_of_bn, statistics=("gamma", "beta"))
def bn_relu(
    x: Array,
    gamma: Array,
    beta: Array,
    residual: Array | None = None,
    *,
    running: Running | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    training: bool = True,
) -> Forward:
    """= relu(batch_norm(x, gamma, beta) + residual), with the gradient of the residual too: gy where y > 0.

    `residual` None adds nothing; it has the shape of x.
    """
    check_batch_norm("bn_relu", x, gamma, beta, running, training)
    residual_shape = x.shape if residual is None else residual.shape
    require(residual_shape == x.shape, f"bn_relu: residual must be {x.shape} like x, got shape {residual_shape}")
    k = kernels.of(x)
    mean, var = batch_statistics(x, running, momentum, training)
    y = k.bn_relu(x, gamma, beta, mean, var, residual, eps=eps)

    def backward(gy, needs):
        grad = k.bn_relu_grad if training else k.bn_relu_eval_grad
        return grad(gy, y, x, gamma, mean, var, eps=eps)

    return y, backward
