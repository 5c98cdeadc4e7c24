"""From scores to probabilities, and from probabilities to a loss."""

from __future__ import annotations

from typing import Any

import kernels
from kernels import array_module
from minicnn.autograd import differentiable
from minicnn.ops._checks import require


@differentiable
def softmax(x: Any) -> Any:
    """Turn scores into probabilities over the last axis: p = e^x / Σ e^x.

    A score raises its own probability and lowers all others: ∂p_j/∂x_i = p_j·(δ_ij − p_i). Summed over j with gy_j,
    gx = p·(gy − Σ gy·p). x (..., K) -> (..., K).
    """
    k = kernels.of(x)
    y = k.softmax(x)

    def backward(gy, needs):
        return (k.softmax_grad(gy, y),)

    return y, backward


def _check_labels(logits: Any, labels: Any) -> None:
    require(logits.ndim == 2, f"cross_entropy: logits must be (N, K), got shape {logits.shape}")
    n, classes = logits.shape
    if labels.dtype.kind == "f":
        require(
            labels.shape == logits.shape,
            f"cross_entropy: labels as probabilities must be {logits.shape} like the logits, got {labels.shape}",
        )
        return
    require(labels.dtype.kind in "iu", f"cross_entropy: labels must be integers or probabilities, got {labels.dtype}")
    require(
        labels.shape == (n,), f"cross_entropy: labels must be ({n},), one for each row of logits, got {labels.shape}"
    )
    outside = (labels < 0) | (labels >= classes)
    if n and bool(outside.any()):
        place = int(outside.argmax())
        raise ValueError(
            f"cross_entropy: label {int(labels[place])} at position {place} is outside the {classes} classes, "
            f"0 to {classes - 1}"
        )


@differentiable
def cross_entropy(logits: Any, labels: Any, *, label_smoothing: float = 0.0, reduction: str = "mean") -> Any:
    """How surprised the network is by the labels: loss = −Σ_k q_k·log p_k with p = softmax(logits).

    As log p_k = x_k − log Σ e^x, and the derivative of log Σ e^x by x_i is p_i, ∂loss/∂x_i = p_i·Σ q − q_i. With
    targets q that sum to 1 this is p − q: what the network said, minus what it should have said. The softmax and the
    logarithm belong together: apart, log 0 would turn up for a score that is far behind, together it cannot.

    logits (N, K); labels (N,) integers from 0 to K − 1, of any integer dtype, or (N, K) probabilities of the logits'
    dtype. `label_smoothing` ε takes (1 − ε)·q + ε/K for q. `reduction` "mean" or "sum" over the batch gives a 0-d
    result, "none" (N,). ValueError for a label outside the classes, with its position.
    Source: label smoothing: Szegedy et al. 2016 (arXiv:1512.00567, 7).
    """
    _check_labels(logits, labels)
    require(0 <= label_smoothing <= 1, f"cross_entropy: label_smoothing must be from 0 to 1, got {label_smoothing}")
    require(
        reduction in ("mean", "sum", "none"),
        f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {reduction!r}",
    )
    k = kernels.of(logits)
    losses, p = k.cross_entropy(logits, labels, label_smoothing=label_smoothing)  # (N,), (N, K)
    n = len(losses)

    def backward(gy, needs):
        share = gy / n if reduction == "mean" else gy  # of each row's loss
        share = array_module(gy).broadcast_to(share, (n,))
        return k.cross_entropy_grad(share, p, labels, label_smoothing=label_smoothing), None

    return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[reduction](), backward
