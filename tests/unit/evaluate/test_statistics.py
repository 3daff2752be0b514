"""Means, medians and the paired bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srcli.evaluate.statistics import mean_of_known, median_of_known, paired_difference


def test_what_could_not_be_found_is_left_out():
    assert mean_of_known([1.0, math.nan, 4.0]) == 2.5
    assert median_of_known([1.0, math.nan, 2.0, 9.0]) == 2.0
    assert math.isnan(mean_of_known([math.nan]))
    assert math.isnan(median_of_known([]))


def test_the_interval_of_a_bootstrap_is_that_of_the_normal_law_for_many_pictures():
    rng = np.random.default_rng(5)
    second = rng.normal(30, 3, 400)
    gaps = rng.normal(0.2, 1, 400)
    found = paired_difference(list(second + gaps), list(second))
    reach = 1.96 * gaps.std() / math.sqrt(400)
    assert found is not None
    assert found.mean == pytest.approx(gaps.mean())
    assert (found.low, found.high) == pytest.approx((gaps.mean() - reach, gaps.mean() + reach), abs=0.01)


def test_the_interval_is_the_same_every_time_and_pairs_count():
    first, second = [30.0, 20.0, 25.0, 28.0], [29.0, 19.0, 24.0, 27.0]
    found = paired_difference(first, second)
    assert found == paired_difference(first, second)
    assert found is not None
    assert (found.mean, found.low, found.high) == (1, 1, 1)


def test_one_picture_gives_no_interval_and_infinite_numbers_no_difference():
    assert paired_difference([1.0], [2.0]) is None
    found = paired_difference([math.inf, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert found is not None
    assert (found.pictures, found.mean) == (2, 1.5)
