"""PyTorch's functions on maps in our layout: NHWC, weights HWIO, paddings side by side."""

from __future__ import annotations

import pytest

from tests.device import host
from tests.kernels.cases import constants

torch = pytest.importorskip("torch")
F = torch.nn.functional


def from_array(a):
    """PyTorch's tensor of an array on any device."""
    return torch.from_numpy(host(a))


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def conv2d(x, w, b=None, stride=1, pad=((0, 0), (0, 0)), dilation=1, groups=1):
    (top, bottom), (left, right) = pad
    padded = F.pad(nchw(x), (left, right, top, bottom))
    return nhwc(F.conv2d(padded, w.permute(3, 2, 0, 1).contiguous(), b, stride, 0, dilation, groups))


def max_pool(x, size, stride, pad, ceil):
    return nhwc(F.max_pool2d(nchw(x), size, stride, (pad[0][0], pad[1][0]), ceil_mode=ceil))


def avg_pool(x, size, stride, pad, ceil, count_pad=False):
    return nhwc(F.avg_pool2d(nchw(x), size, stride, (pad[0][0], pad[1][0]), ceil, count_pad))


def batch_norm(x, gamma, beta, eps=1e-5):
    return nhwc(F.batch_norm(nchw(x), None, None, gamma, beta, training=True, eps=eps))


def batch_norm_eval(x, gamma, beta):
    mean, var = (from_array(a) for a in constants(x.detach().numpy()))
    return nhwc(F.batch_norm(nchw(x), mean, var, gamma, beta, training=False))
