"""What metrics are given, and that every one of the registry tells right from wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import data

from srcli.errors import InputError, PictureError
from srcli.metrics.matlab import matlab_bicubic, reduce_bicubic
from srcli.metrics.registry import HIGHER, LOWER, METRICS, SOURCE, TRUTH, choose_metrics
from srcli.metrics.sample import Sample, crop_to_common_size


@pytest.fixture(scope="module")
def truth():
    return data.astronaut()[:240, 120:360]


@pytest.fixture(scope="module")
def source(truth):
    return reduce_bicubic(truth, 4)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.name)
def test_each_metric_prefers_the_better_picture(metric, truth, source):
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    good, bad = ((truth + noise * sigma).clip(0, 255) for sigma in (2, 20))
    better, worse = (metric.measure(Sample(picture, truth, source, 4)) for picture in (good, bad))
    if metric.better == HIGHER:
        assert better > worse
    elif metric.better == LOWER:
        assert better < worse
    else:
        assert abs(better - 1) < abs(worse - 1)


def test_the_border_is_left_out(truth):
    spoiled = truth.copy()
    spoiled[:4], spoiled[:, -4:] = 0, 255
    for name in ("psnr-y", "psnr"):
        assert math.isinf(METRICS[name].measure(Sample(spoiled, truth, border=4)))
        assert METRICS[name].measure(Sample(spoiled, truth, border=3)) < 40


def test_the_worst_deviation_is_found_where_it_is(truth, source):
    spoiled = truth.copy()
    spoiled[80:88, 160:168] = 255 - spoiled[80:88, 160:168]
    deviation = Sample(spoiled, source=source).deviation
    assert deviation.place[0] in (40, 41)
    assert deviation.place[1] in (20, 21)
    assert Sample(truth, source=source).deviation.worst <= 0.5 + 1e-3  # but for the source's own rounding


def test_a_few_rows_too_many_are_cropped_and_more_is_an_error(truth):
    result, same = crop_to_common_size(truth[:-3, :-8], truth)
    assert np.array_equal(result, same)
    with pytest.raises(PictureError, match="compare pictures of one size"):
        crop_to_common_size(truth[:-9], truth)


def test_consistency_sees_the_whole_result_whatever_the_truth_lacks(truth, source):
    larger = Sample(truth, truth[:-3], source)
    assert larger.deviation == Sample(truth, source=source).deviation


def test_without_names_all_that_can_be_found_is_chosen():
    assert {m.needs for m in choose_metrics((), frozenset({TRUTH}))} == {TRUTH, None}
    assert {m.needs for m in choose_metrics((), frozenset({TRUTH, SOURCE}))} == {TRUTH, SOURCE, None}
    assert [m.name for m in choose_metrics(("ssim", "psnr"), frozenset({TRUTH}))] == ["ssim", "psnr"]


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(InputError, match="`metric` 'lips' is unknown"):
        choose_metrics(("lips",), frozenset({TRUTH}))
    with pytest.raises(InputError, match="needs the reference: give --reference"):
        choose_metrics(("psnr",), frozenset({SOURCE}))


def test_bicubic_enlargement_scores_as_published_programs_have_it():
    """The whole chain: reduced and enlarged x4 by MATLAB's bicubic, on Y, border 4."""
    truth = data.chelsea()[:300, :448]
    result = matlab_bicubic(reduce_bicubic(truth, 4), (448, 300))
    y = np.array([65.481, 128.553, 24.966])
    error = ((result - truth.astype(float)) @ y / 255)[4:-4, 4:-4]
    assert METRICS["psnr-y"].measure(Sample(result, truth, border=4)) == pytest.approx(
        10 * math.log10(255**2 / (error**2).mean())
    )
