"""Regularisation by noise: dropout."""

from __future__ import annotations

import kernels
from minicnn.autograd import Array, Forward, differentiable
from minicnn.ops import _checks
from minicnn.ops._checks import require
from minicnn.random import Generator


@differentiable
def dropout(x: Array, p: float, *, rng: Generator, training: bool = True) -> Forward:
    """Zero each value with probability p, so that no unit can rely on another being there.

        y = x·m / (1 − p),   m = 0 with probability p, else 1

    The factor keeps the expectation at x, so that nothing has to change in evaluation. For a given mask y is linear in
    x: gx = gy·m / (1 − p), the same function with the same mask. The mask is a function of rng's (seed, layer, step)
    and the element's position, so backward computes it again instead of keeping it.

    x of any shape; 0 ≤ p < 1; `rng` is a `minicnn.Generator`, which goes on by one step. `training=False` is the
    identity and draws nothing. ValueError for another p, TypeError for another rng.
    Source: Srivastava et al. 2014; the factor stands in training ("inverted").
    """
    _checks.array("dropout", "x", x, "(...)")
    require(0 <= p < 1, f"dropout: p must be at least 0 and below 1, got {p}")
    if not isinstance(rng, Generator):
        raise TypeError(f"dropout: rng must be a minicnn.Generator, got {type(rng).__name__}")
    if not training:
        return x, lambda gy, needs: (gy, None)
    k, key = kernels.of(x), rng.draw()

    def backward(gy, needs):
        return k.dropout(gy, p, key), None

    return k.dropout(x, p, key), backward
