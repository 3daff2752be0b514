"""The nearest picture that reduces to the source."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from srcli.metrics.matlab import matlab_bicubic, reduce_bicubic
from srcli.metrics.similarity import compute_psnr
from srcli.sampling import consistency
from srcli.sampling.consistency import make_consistent


@pytest.fixture
def truth():
    return np.asarray(data.astronaut()[:160, 140:340] * 0.8 + 20, np.uint8)


@pytest.mark.parametrize("size", [(50, 40), (66, 53), (130, 104), (140, 30)])
def test_the_reduced_result_is_the_source_within_a_level(truth, size):
    source = matlab_bicubic(truth, size)
    result = np.roll(truth, 3, 1) // 2 + 30
    left = make_consistent(result, source)
    assert left <= 1
    assert np.abs(matlab_bicubic(result, size).astype(int) - source).max() <= 1


def test_bands_change_no_result(truth, monkeypatch):
    source = reduce_bicubic(truth, 4)
    whole, banded = truth // 2, truth // 2
    make_consistent(whole, source)
    monkeypatch.setattr(consistency, "split_rows", lambda h, w: [slice(i, min(i + 7, h)) for i in range(0, h, 7)])
    make_consistent(banded, source)
    assert np.array_equal(whole, banded)


def test_the_truth_is_left_as_it_is_and_a_guess_comes_nearer_to_it(truth):
    source = reduce_bicubic(truth, 4)
    kept = truth.copy()
    assert make_consistent(kept, source) <= 1
    assert np.array_equal(kept, truth)
    guess = matlab_bicubic(source, truth.shape[1::-1])
    better = guess.copy()
    make_consistent(better, source)
    assert compute_psnr(better, truth) > compute_psnr(guess, truth)


def test_no_other_consistent_picture_is_nearer(truth):
    """Adding what vanishes when it is reduced only moves away: the change has no part in the null space."""
    source = reduce_bicubic(truth, 4)
    start = np.asarray(np.roll(truth, 2, 0), np.uint16) * 257
    result = start.copy()
    make_consistent(result, np.asarray(source, np.uint16) * 257)
    change = result.astype(float) - start
    noise = np.random.default_rng(1).standard_normal(change.shape)
    size = (source.shape[1], source.shape[0])
    for _ in range(60):  # project the noise onto the null space
        noise -= matlab_bicubic(matlab_bicubic(noise, size), change.shape[1::-1])
    inner = slice(12, -12)  # where edges' mirrored samples play no part
    cosine = (
        (change * noise)[inner, inner].sum()
        / np.linalg.norm(change[inner, inner])
        / np.linalg.norm(noise[inner, inner])
    )
    assert abs(cosine) < 0.01


def test_sixteen_bits_are_met_at_their_own_depth(truth):
    source = np.asarray(reduce_bicubic(truth, 4), np.uint16) * 200 + 3000
    result = np.asarray(truth, np.uint16) * 150
    assert make_consistent(result, source) <= 1
    assert result.dtype == np.uint16


def test_a_source_that_no_picture_reduces_to_is_met_as_nearly_as_can_be():
    source = np.asarray(np.indices((12, 12)).sum(0) % 2 * 255, np.uint8)[..., None].repeat(3, 2)
    result = matlab_bicubic(source, (48, 48))
    before = compute_psnr(matlab_bicubic(result, (12, 12)), source)
    assert make_consistent(result, source) > 10
    assert compute_psnr(matlab_bicubic(result, (12, 12)), source) > before + 2
