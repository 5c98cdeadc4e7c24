"""The kernels of PyTorch that do what ours do: each function prepares operands and returns the call that is timed.

Operands are NumPy arrays in our layout, NHWC and HWIO. They become tensors in one of PyTorch's two layouts of memory
before the clock starts. Gradients are the functions that its autograd calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.minicnn_kernels import labels

Array = np.ndarray
Call = Callable[[], Any]
Layout = torch.memory_format
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
aten = torch.ops.aten


def prepare(kernel: str, operands: tuple[Array, ...], options: dict[str, Any], layout: Layout) -> Call:
    return globals()[kernel](layout, *operands, **options)


def tensor(layout: Layout, array: Array) -> Tensor:
    """Maps (N, H, W, C) become (N, C, H, W) in this layout; all else stays as it is."""
    if array.ndim != 4:
        return torch.from_numpy(array)
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=layout)


def filters(layout: Layout, w: Array) -> Tensor:
    """(KH, KW, C, O) -> (O, C, KH, KW)."""
    return torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=layout)


def nothing(layout: Layout, n: int, h: int, w: int, c: int) -> Tensor:
    """Where a function asks for an array whose shape alone matters."""
    return torch.empty((n, c, h, w), memory_format=layout)


def results(kernel: str, results: Any) -> list[Array]:
    """What a call returned, as NumPy arrays in our layout."""

    def array(result: Tensor) -> Array:
        if kernel == "conv2d_weight_grad":  # (O, C, KH, KW)
            return result.permute(2, 3, 1, 0).numpy()
        if kernel == "linear_weight_grad":
            return result.T.numpy()
        return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).numpy()

    return [array(result) for result in (results if isinstance(results, tuple) else (results,))]


# --- Products ----------------------------------------------------------------------------------------------------


def conv2d(layout: Layout, x: Array, w: Array, *, stride: int, pad: int) -> Call:
    return partial(F.conv2d, tensor(layout, x), filters(layout, w), None, stride, pad)


def conv2d_input_grad(layout: Layout, gy: Array, w: Array, *, x_shape: Any, stride: int, pad: int) -> Call:
    call = _convolution_backward(
        tensor(layout, gy), nothing(layout, *x_shape), filters(layout, w), stride, pad, [True, False, False]
    )
    return lambda: call()[0]


def conv2d_weight_grad(layout: Layout, gy: Array, x: Array, *, w_shape: Any, stride: int, pad: int) -> Call:
    height, width, c, o = w_shape
    w = nothing(layout, o, height, width, c)
    call = _convolution_backward(tensor(layout, gy), tensor(layout, x), w, stride, pad, [False, True, False])
    return lambda: call()[1]


def _convolution_backward(gy: Tensor, x: Tensor, w: Tensor, stride: int, pad: int, wanted: list[bool]) -> Call:
    geometry = [stride, stride], [pad, pad], [1, 1], False, [0, 0], 1
    return partial(aten.convolution_backward, gy, x, w, None, *geometry, wanted)


def linear(layout: Layout, x: Array, w: Array) -> Call:
    return partial(F.linear, torch.from_numpy(x), torch.from_numpy(w).T.contiguous())


def linear_input_grad(layout: Layout, gy: Array, w: Array) -> Call:
    return partial(torch.mm, torch.from_numpy(gy), torch.from_numpy(w).T.contiguous())


def linear_weight_grad(layout: Layout, gy: Array, x: Array) -> Call:
    return partial(torch.mm, torch.from_numpy(gy).T, torch.from_numpy(x))


# --- All else ----------------------------------------------------------------------------------------------------


def batch_norm_stats(layout: Layout, x: Array) -> Call:
    return partial(torch.batch_norm_update_stats, tensor(layout, x), None, None, 0.1)


def bn_relu(layout: Layout, x: Array, gamma: Array, beta: Array, residual: Array | None = None) -> Call:
    normalise = _batch_norm(*(tensor(layout, array) for array in (x, gamma, beta)))
    added = None if residual is None else tensor(layout, residual)

    def call() -> Tensor:
        y = normalise()[0]
        if added is not None:
            y += added
        return y.relu_()

    return call


def bn_relu_grad(layout: Layout, gy: Array, x: Array, gamma: Array, beta: Array, residual: Array | None = None) -> Call:
    upstream, tx, tgamma = (tensor(layout, array) for array in (gy, x, gamma))
    _, mean, inv_std = _batch_norm(tx, tgamma, tensor(layout, beta))()
    y = bn_relu(layout, x, gamma, beta, residual)()

    def call() -> Any:
        g = aten.threshold_backward(upstream, y, 0)
        wanted = [True, True, True]
        return *aten.native_batch_norm_backward(g, tx, tgamma, None, None, mean, inv_std, True, 1e-5, wanted), g

    return call


def _batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Call:
    return partial(torch.native_batch_norm, x, gamma, beta, None, None, True, 0.1, 1e-5)


def lrn(layout: Layout, x: Array, *, size: int, alpha: float, beta: float, k: float) -> Call:
    return partial(F.local_response_norm, tensor(layout, x), size, size * alpha, beta, k)  # its alpha is of the mean


def lrn_grad(layout: Layout, gy: Array, x: Array, **options: Any) -> Call:
    leaf, upstream = tensor(layout, x).requires_grad_(), tensor(layout, gy)
    with torch.enable_grad():
        y = F.local_response_norm(
            leaf, options["size"], options["size"] * options["alpha"], options["beta"], options["k"]
        )
    return lambda: torch.autograd.grad(y, leaf, upstream, retain_graph=True)[0]


def max_pool(layout: Layout, x: Array, *, size: int, stride: int, pad: int) -> Call:
    return partial(F.max_pool2d, tensor(layout, x), size, stride, pad, return_indices=True)


def max_pool_grad(layout: Layout, gy: Array, x: Array, *, size: int, stride: int, pad: int) -> Call:
    upstream, tx = tensor(layout, gy), tensor(layout, x)
    _, winners = F.max_pool2d(tx, size, stride, pad, return_indices=True)
    window = [size, size], [stride, stride], [pad, pad], [1, 1], False
    return partial(aten.max_pool2d_with_indices_backward, upstream, tx, *window, winners)


def avg_pool(layout: Layout, x: Array, *, size: int, stride: int, pad: int) -> Call:
    return partial(F.avg_pool2d, tensor(layout, x), size, stride, pad)


def avg_pool_grad(layout: Layout, gy: Array, x: Array, *, size: int, stride: int, pad: int) -> Call:
    window = [size, size], [stride, stride], [pad, pad], False, True, None
    return partial(aten.avg_pool2d_backward, tensor(layout, gy), tensor(layout, x), *window)


def relu(layout: Layout, x: Array) -> Call:
    return partial(torch.relu, tensor(layout, x))


def relu_grad(layout: Layout, gy: Array, y: Array) -> Call:
    return partial(aten.threshold_backward, tensor(layout, gy), tensor(layout, y), 0)


def concat(layout: Layout, *xs: Array) -> Call:
    return partial(torch.cat, [tensor(layout, x) for x in xs], 1)


def cross_entropy(layout: Layout, logits: Array) -> Call:
    return partial(F.cross_entropy, torch.from_numpy(logits), torch.from_numpy(labels(logits)), reduction="none")


def cross_entropy_grad(layout: Layout, gy: Array, logits: Array) -> Call:
    log_p, targets = F.log_softmax(torch.from_numpy(logits), 1), torch.from_numpy(labels(logits))
    _, total = aten.nll_loss_forward(log_p, targets, None, 0, -100)
    upstream = torch.from_numpy(gy)

    def call() -> Tensor:
        g = aten.nll_loss_backward(upstream, log_p, targets, None, 0, -100, total)
        return aten._log_softmax_backward_data(g, log_p, 1, log_p.dtype)

    return call


def dropout(layout: Layout, x: Array, p: float) -> Call:
    tx = torch.from_numpy(x)
    return lambda: torch.native_dropout(tx, p, True)[0]


def dropout_grad(layout: Layout, gy: Array, p: float) -> Call:
    upstream = torch.from_numpy(gy)
    _, mask = torch.native_dropout(upstream, p, True)
    return partial(aten.native_dropout_backward, upstream, mask, 1 / (1 - p))


def sgd_step(layout: Layout, network: str) -> Call:
    from benchmarks import torch_networks

    classes, side = (10, 32) if network == "resnet20" else (1000, 224)
    model = torch_networks.build(network, classes, side).to(memory_format=layout)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4, fused=True).step
