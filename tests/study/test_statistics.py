"""Intervals and verdicts, on numbers whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minicnn.study.claim import STEPS, Part
from minicnn.study.report import judge
from minicnn.study.statistics import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Interval,
    correlation,
    exact,
    interval,
    t_quantile,
    together,
    verdict,
)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (30, 2.04227), (1000, 1.96234)]
)
def test_quantiles_are_those_of_the_printed_table(freedom, quantile):
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-5)


def test_an_interval_by_hand():
    found = interval([1.0, 2.0, 4.5])  # mean 2.5, standard deviation 1.80278
    assert found == pytest.approx((2.5, 2.5 - 4.30265 * 1.80278 / 3**0.5, 2.5 + 4.30265 * 1.80278 / 3**0.5), rel=1e-4)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    found = [interval(rng.normal(1.0, 3.0, 4).tolist()) for _ in range(2000)]
    share = np.mean([low < 1.0 < high for _, low, high in found])
    assert share == pytest.approx(0.95, abs=0.015)


def test_one_seed_decides_nothing():
    assert interval([7.0]) == (7.0, -math.inf, math.inf)
    assert verdict(interval([7.0]), above=0) == UNDECIDED


def test_equal_differences_are_no_certainty():
    """Two seeds that differ by the same one image in 100: the next one may differ by none."""
    assert verdict(interval([1.0, 1.0]), above=0) == UNDECIDED
    assert verdict(interval([1.0, 1.0], resolution=1.0), above=0) == UNDECIDED
    assert verdict(interval([1.0, 1.0], resolution=0.1), above=0) == HOLDS


@pytest.mark.parametrize(
    ("found", "region", "expected"),
    [
        (Interval(2, 1, 3), {"above": 0}, HOLDS),
        (Interval(2, -1, 5), {"above": 0}, UNDECIDED),
        (Interval(-2, -3, -1), {"above": 0}, FAILS),
        (Interval(-1, -2, 0), {"above": 0}, FAILS),
        (Interval(0.1, -0.2, 0.4), {"below": 0.5}, HOLDS),
        (Interval(0.4, 0.2, 0.6), {"below": 0.5}, UNDECIDED),
        (Interval(0.9, 0.6, 1.2), {"below": 0.5}, FAILS),
        (Interval(1, 0.5, 1.5), {"above": 0, "below": 2}, HOLDS),
        (Interval(1.8, 1.5, 2.1), {"above": 0, "below": 2}, UNDECIDED),
        (Interval(3, 2, 4), {"above": 0, "below": 2}, FAILS),
        (exact(18 / 25), {"below": 1}, HOLDS),
        (exact(1.0), {"below": 1}, FAILS),
    ],
)
def test_a_verdict_follows_from_where_the_interval_lies(found, region, expected):
    assert verdict(found, **region) == expected


def test_a_claim_needs_all_its_parts():
    assert together([HOLDS, HOLDS]) == HOLDS
    assert together([HOLDS, UNDECIDED]) == UNDECIDED
    assert together([HOLDS, UNDECIDED, FAILS]) == FAILS
    assert together([]) == UNDECIDED


PART = Part("b − a", "test_error", {"b": 1, "a": -1}, above=0)


def errors(*values):
    return {seed: {"test_error": value, STEPS: {"test_error": 0.1}} for seed, value in enumerate(values)}


def test_differences_are_paired_by_seed():
    """Arms that vary wildly from seed to seed, but together: only the pairs tell them apart."""
    judged = judge(PART, {"a": errors(10.0, 30.0, 20.0), "b": errors(11.1, 31.0, 20.9)})
    assert judged.values == pytest.approx([1.1, 1.0, 0.9])
    assert judged.verdict == HOLDS


def test_a_seed_that_one_arm_has_not_finished_does_not_count():
    judged = judge(PART, {"a": errors(10.0, 30.0, 20.0), "b": errors(11.1, 31.0)})
    assert judged.values == pytest.approx([1.1, 1.0])
    assert judge(PART, {"a": errors(10.0), "b": {}}).interval is None


def test_a_difference_of_differences():
    part = Part("", "test_error", {"a": 1, "b": -1, "c": -1, "d": 1}, below=0)
    judged = judge(part, {"a": errors(1.0, 1.2), "b": errors(5.0, 5.1), "c": errors(3.0, 3.1), "d": errors(2.0, 2.3)})
    assert judged.values == pytest.approx([-5.0, -4.7])


def test_rank_correlation():
    assert correlation([1, 2, 3, 4], [10, 20, 25, 90]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation([1, 1, 1], [1, 2, 3]) == 0
