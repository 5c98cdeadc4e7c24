"""From the differences between two arms to a verdict: everything that a study concludes, it concludes here.

Each seed gives one difference, for both arms see the same images in the same order. If the differences are d₁ … dₙ,
their mean lies within t·s/√n of the true one with a confidence of 95 %, where s is their standard deviation and t the
quantile of Student's distribution with n − 1 degrees of freedom (Student 1908, "The probable error of a mean"). A claim
is a region in which the difference should lie, such as "above 0": it holds if the whole interval lies inside, it does
not hold if the whole interval lies outside, and otherwise these seeds cannot tell.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)  # of Gaussian quadrature on [-1, 1]
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided at this size"


class Interval(NamedTuple):
    """A mean, and between which values the true one is to be expected."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], *, resolution: float = 0.0, confidence: float = CONFIDENCE) -> Interval:
    """The mean of independent values and its t interval; ±∞ where nothing is known of their spread.

    That is so of one value alone, and of equal ones. But where `resolution` is the step in which they are counted, such
    as one image of those that were classified, rounding to it has a spread of step/√12, which is then the least.
    """
    mean = float(np.mean(values))
    spread = max(float(np.std(values, ddof=1)), resolution / math.sqrt(12)) if len(values) > 1 else 0.0
    if spread == 0:
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile((1 + confidence) / 2, len(values) - 1) * spread / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def exact(value: float) -> Interval:
    """The interval of what has been counted, not sampled."""
    return Interval(value, value, value)


def verdict(found: Interval, above: float = -math.inf, below: float = math.inf) -> str:
    """Whether a quantity with that interval lies between `above` and `below`, neither included."""
    if above < found.low and found.high < below:
        return HOLDS
    if found.high <= above or below <= found.low:
        return FAILS
    return UNDECIDED


def together(verdicts: Sequence[str]) -> str:
    """A claim of several parts holds if all of them do; one that does not is enough for it not to."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and all(verdict == HOLDS for verdict in verdicts) else UNDECIDED


@functools.cache
def t_quantile(p: float, freedom: int) -> float:
    """The value below which Student's t with so many degrees of freedom stays with probability 1/2 <= p < 1."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # bisection: t = √freedom · tan(angle)
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, freedom) < p else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _t_below(angle: float, freedom: int) -> float:
    """P(T < √freedom · tan(angle)): with this substitution the density of T becomes cos(angle)^(freedom − 1)."""
    integral = angle / 2 * float(WEIGHTS @ np.cos(angle / 2 * (NODES + 1)) ** (freedom - 1))
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return 0.5 + constant * integral


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation: 1 where b rises whenever a does, −1 where it falls; 0 if either is constant."""
    ranks = [_ranks(np.asarray(values, float)) for values in (a, b)]
    x, y = (r - r.mean() for r in ranks)
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value in their order; equal values share the mean of their places."""
    return np.array([((values < value).sum() + (values <= value).sum() - 1) / 2 for value in values])
