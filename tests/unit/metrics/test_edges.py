"""What is said of edges and detail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d
from skimage import data

from srcli.metrics.edges import compute_full_range_luma, compute_gmsd, gradient_energy
from srcli.metrics.matlab import matlab_bicubic


def gmsd_by_the_paper(result, truth):
    """Xue et al. 2014, step by step: mean of 2x2, every second pixel, Prewitt, similarity, deviation."""

    def magnitude(x):
        half = convolve2d(x, np.full((2, 2), 0.25), mode="full")[1:, 1:][::2, ::2]
        kernel = np.array([[1, 0, -1]] * 3) / 3
        return np.sqrt(sum(convolve2d(half, k, mode="same") ** 2 for k in (kernel, kernel.T)))

    a, b = magnitude(result), magnitude(truth)
    return np.std((2 * a * b + 170) / (a**2 + b**2 + 170), ddof=1)


@pytest.mark.parametrize("shape", [(64, 80), (65, 81)])
def test_gmsd_is_the_papers(shape):
    truth = compute_full_range_luma(data.astronaut()[: shape[0], 200 : 200 + shape[1]])
    noisy = truth + np.random.default_rng(0).standard_normal(shape) * 9
    assert compute_gmsd(noisy, truth) == pytest.approx(gmsd_by_the_paper(noisy, truth), rel=1e-9)
    assert compute_gmsd(truth, truth) == 0


def test_energy_falls_with_blur():
    truth = compute_full_range_luma(data.coffee()[:128, :128])
    soft = matlab_bicubic(matlab_bicubic(truth, (64, 64)), (128, 128))
    assert gradient_energy(soft) < gradient_energy(truth)


def test_gradient_energy_of_a_ramp():
    assert gradient_energy(np.tile(np.arange(8.0) * 3, (8, 1))) == pytest.approx(9)
