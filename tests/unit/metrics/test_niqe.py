"""NIQE against numbers that another program (BasicSR 1.4.2) finds for the same luma."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import data

from srcli.metrics.matlab import matlab_y
from srcli.metrics.niqe import compute_niqe, fit_aggd, load_model


@pytest.mark.parametrize(("name", "want"), [("chelsea", 2.689315), ("coffee", 4.079430), ("astronaut", 2.990512)])
def test_photographs_have_the_numbers_of_another_program(name, want):
    y = matlab_y(getattr(data, name)())[4:-4, 4:-4]
    assert compute_niqe(y) == pytest.approx(want, abs=1e-3)


def test_noise_has_the_number_of_another_program():
    noise = (np.random.default_rng(0).random((200, 300, 3)) * 255).astype(np.uint8)
    assert compute_niqe(matlab_y(noise)[4:-4, 4:-4]) == pytest.approx(32.329598, abs=1e-3)


def test_a_gaussians_shape_and_widths_are_found():
    """Shape 2 is a Gaussian, whose width is its deviation times the square root of 2. A side is as likely as wide."""
    rng = np.random.default_rng(0)
    size = np.abs(rng.standard_normal((2, 500, 500)))
    skewed = np.where(rng.random((500, 500)) < 0.75, -3 * size[1], size[1])
    even = np.where(rng.random((500, 500)) < 0.5, -size[0], size[0])
    shape, left, right = fit_aggd(np.stack([even, skewed]))
    np.testing.assert_allclose(shape, [2, 2], rtol=0.01)
    np.testing.assert_allclose(left, np.sqrt([2, 18]), rtol=0.01)
    np.testing.assert_allclose(right, np.sqrt([2, 2]), rtol=0.01)


def test_rounding_on_flat_ground_has_no_say():
    """Levels that no binary fraction is: their mean differs from them in the last place."""
    y = matlab_y(data.chelsea())[:192, :288]
    y[:96, :96] = 40
    assert compute_niqe(y) == compute_niqe(y.copy(order="F"))
    flat = np.full((96, 96), 40.0)
    assert np.isnan(fit_aggd(np.zeros((1, 8, 8)))[0]).all()
    assert math.isnan(compute_niqe(np.tile(flat, (2, 2))))


@pytest.mark.parametrize("shape", [(95, 400), (96, 191)])
def test_one_block_is_too_little(shape):
    assert math.isnan(compute_niqe(np.random.default_rng(0).uniform(0, 255, shape)))


def test_the_model_is_one_of_36_features():
    mean, covariance = load_model()
    assert mean.shape == (36,)
    assert covariance.shape == (36, 36)
    assert np.array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0
