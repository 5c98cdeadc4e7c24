"""Softmax and cross-entropy with their gradients (loss.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import array_module, reference
from kernels.cuda.arrays import Array, blocks, contiguous, empty_like, expect, fast, kernels_of

_kernels = kernels_of(__file__)

WARPS = 4  # rows of a block, as in loss.cu


def _rows(kernel: str, like: Array, *arguments: Any) -> None:
    """`kernel` with a warp for each row of `like`, whose last parameters are N and K."""
    k = like.shape[-1]
    n = like.size // k
    _kernels.launch(kernel, blocks(n, WARPS), (32 * WARPS,), *arguments, n, k, T=like.dtype)


def softmax(x: Array) -> Array:
    """Turn scores into probabilities over the last axis: positive, and they sum to 1."""
    if not fast(x):
        return reference.softmax(x)
    y = empty_like(x)
    _rows("softmax", y, contiguous(x), y)
    return y


def softmax_grad(gy: Array, y: Array) -> Array:
    """gx of softmax, from its output y."""
    if not fast(gy, y):
        return reference.softmax_grad(gy, y)
    expect("softmax_grad", gy.shape, y=y)
    gx = empty_like(gy)
    _rows("softmax_grad", gx, contiguous(gy), contiguous(y), gx)
    return gx


def _targets(labels: Array, p: Array) -> tuple[Array | None, Array | None]:
    """(labels, targets) as the kernels take them: class numbers (N,), or probabilities (N, K), and None."""
    expect("cross_entropy", p.shape[: labels.ndim], labels=labels)
    if labels.ndim == 2:
        return None, contiguous(labels).astype(p.dtype, copy=False)
    return contiguous(labels).astype(np.int32, copy=False), None


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """How surprised the softmax of the scores is by the labels.

    logits (N, K); labels (N,) integers below K or (N, K) probabilities -> losses (N,) and p = softmax(logits) (N, K).
    The loss of a label that is no class is NaN.
    """
    if not fast(logits):
        return reference.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    p = empty_like(logits)
    losses = array_module(logits).empty(len(logits), logits.dtype)
    _rows("cross_entropy", p, contiguous(logits), *_targets(labels, p), losses, p, label_smoothing)
    return losses, p


def cross_entropy_grad(glosses: Array, p: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """glogits of cross_entropy: (N, K), from the gradients (N,) of the losses and the p that it returned."""
    if not fast(glosses, p):
        return reference.cross_entropy_grad(glosses, p, labels, label_smoothing=label_smoothing)
    expect("cross_entropy_grad", p.shape[:1], glosses=glosses)
    glogits = empty_like(p)
    arrays = contiguous(glosses), contiguous(p), *_targets(labels, p), glogits
    _rows("cross_entropy_grad", p, *arrays, label_smoothing)
    return glogits
