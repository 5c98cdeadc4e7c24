"""Softmax and cross-entropy: the reference's code, a few rows at a time and on several threads."""

from __future__ import annotations

import functools

import numpy as np

from kernels import reference
from kernels.cpu.layout import rows_of
from kernels.cpu.memory import empty
from kernels.cpu.pieces import by_pieces


def softmax(x: np.ndarray) -> np.ndarray:
    """e^x / Σ e^x over the last axis."""
    y = empty(x.shape, x.dtype)
    by_pieces(reference.softmax, (rows_of(y),), rows_of(x))
    return y


def softmax_grad(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """gx of softmax, from its output y."""
    gx = empty(y.shape, y.dtype)
    by_pieces(reference.softmax_grad, (rows_of(gx),), rows_of(gy), rows_of(y))
    return gx


def cross_entropy(
    logits: np.ndarray, labels: np.ndarray, *, label_smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """losses (N,) and p (N, K)."""
    losses, p = empty((len(logits),), logits.dtype), empty(logits.shape, logits.dtype)
    of_rows = functools.partial(reference.cross_entropy, label_smoothing=label_smoothing)
    by_pieces(of_rows, (losses, p), logits, labels)
    return losses, p


def cross_entropy_grad(
    glosses: np.ndarray, p: np.ndarray, labels: np.ndarray, *, label_smoothing: float = 0.0
) -> np.ndarray:
    """glogits (N, K)."""
    glogits = empty(p.shape, p.dtype)
    of_rows = functools.partial(reference.cross_entropy_grad, label_smoothing=label_smoothing)
    by_pieces(of_rows, (glogits,), glosses, p, labels)
    return glogits
