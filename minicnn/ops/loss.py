"""From scores to probabilities, and from probabilities to a loss."""

from __future__ import annotations

import kernels
from kernels import array_module
from minicnn import device
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops import _checks
from minicnn.ops._checks import require


@differentiable
def softmax(x: Array) -> Forward:
    """Turn scores into probabilities over the last axis: p_j = e^{x_j} / Σ_k e^{x_k}.

    A score raises its own probability and lowers all others. With s = Σ e^x and ∂s/∂x_i = e^{x_i}, the quotient rule
    gives ∂p_j/∂x_i = p_j·δ_ij − p_j·p_i. Summed over j with the gradients of the p_j:

        gx_i = Σ_j gy_j·p_j·(δ_ij − p_i) = p_i·(gy_i − Σ_j gy_j·p_j)

    that is, only what exceeds the mean gradient moves a score. x (..., K) -> (..., K).
    """
    _checks.array("softmax", "x", x, "(..., K)")
    k = kernels.of(x)
    p = k.softmax(x)

    def backward(gy, needs):
        return (k.softmax_grad(gy, p),)

    return p, backward


def _check_labels(labels: Array, rows: int, classes: int) -> None:
    """`labels` are class numbers (rows,), or probabilities (rows, classes)."""
    if not hasattr(labels, "dtype"):
        raise TypeError(f"cross_entropy: labels must be an array, got {type(labels).__name__}")
    if labels.dtype.kind == "f":
        needed = (rows, classes)
        message = f"cross_entropy: labels as probabilities must be {needed} like the logits, got {labels.shape}"
        require(labels.shape == needed, message)
        return
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: labels must be integers or probabilities, got {labels.dtype}")
    message = f"cross_entropy: labels must be ({rows},), one for each row of the logits, got shape {labels.shape}"
    require(labels.shape == (rows,), message)
    if device.of(labels) == "cuda":
        return  # to look at the labels, the host would wait for the device at every step
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        i = int(outside.argmax())
        raise ValueError(f"cross_entropy: label {labels[i]} at position {i} is outside the classes 0 to {classes - 1}")


@differentiable
def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0, reduction: str = "mean") -> Forward:
    """How surprised the network is by the labels: loss = −Σ_k q_k·log p_k with p = softmax(logits).

    As log p_k = x_k − log Σ_j e^{x_j}, and the derivative of log Σ e^x by x_i is e^{x_i} / Σ e^x = p_i,

        ∂loss/∂x_i = −q_i + p_i·Σ_k q_k

    With targets q that sum to 1 this is p − q: what the network said, minus what it should have said. The softmax and
    the logarithm belong together: apart, log 0 turns up for a score that is far behind; together it cannot.

    logits (N, K); labels (N,) integers from 0 to K − 1, of any integer dtype, or (N, K) probabilities of the logits'
    dtype, which are constants. `label_smoothing` ε takes (1 − ε)·q + ε/K for q. `reduction` "mean" or "sum" over the
    batch gives a 0-d result, "none" (N,). ValueError for a label outside the classes, with its position.
    Source: label smoothing: Szegedy et al. 2016 (arXiv:1512.00567, 7).
    """
    _checks.array("cross_entropy", "logits", logits, "(N, K)")
    n, classes = logits.shape
    _check_labels(labels, n, classes)
    require(0 <= label_smoothing <= 1, f"cross_entropy: label_smoothing must be from 0 to 1, got {label_smoothing}")
    known = reduction in ("mean", "sum", "none")
    require(known, f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    k = kernels.of(logits)
    losses, p = k.cross_entropy(logits, labels, label_smoothing=label_smoothing)  # (N,), (N, K)

    def backward(gy, needs):
        if needs[1]:
            raise RuntimeError("cross_entropy: labels get no gradient; pass labels.detach()")
        glosses = array_module(gy).broadcast_to(gy / n if reduction == "mean" else gy, (n,))
        return k.cross_entropy_grad(glosses, p, labels, label_smoothing=label_smoothing), None

    y = losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()
    return y, backward
