"""PSNR, SSIM and MS-SSIM against other programs' and against what must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srcli.metrics.matlab import matlab_bicubic, matlab_y
from srcli.metrics.similarity import compute_psnr, compute_ssim, crop_border, ms_ssim


@pytest.fixture(scope="module")
def pair():
    """A photograph's part, and the same reduced and enlarged again."""
    truth = data.astronaut()[:256, 100:300]
    small = matlab_bicubic(truth, (50, 64))
    return matlab_bicubic(small, (200, 256)), truth


def test_psnr_and_ssim_are_those_of_scikit_image(pair):
    result, truth = (crop_border(matlab_y(picture), 4) for picture in pair)
    assert compute_psnr(result, truth) == pytest.approx(
        peak_signal_noise_ratio(truth, result, data_range=255), abs=1e-9
    )
    theirs = structural_similarity(
        truth, result, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert compute_ssim(result, truth) == pytest.approx(theirs, abs=1e-6)


def test_on_rgb_channels_are_averaged(pair):
    result, truth = pair
    assert compute_psnr(result, truth) == pytest.approx(peak_signal_noise_ratio(truth, result), abs=1e-9)
    theirs = structural_similarity(
        truth,
        result,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
    )
    assert compute_ssim(result, truth) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("plane", ["y", "rgb"])
def test_all_three_are_those_of_torchmetrics(pair, plane):
    """Its SSIM also counts windows that reach beyond the edge, over reflected pixels; the paper's lie inside."""
    from torchmetrics.functional import image

    result, truth = (matlab_y(p)[..., None] if plane == "y" else p.astype(float) for p in pair)
    ours, theirs = (torch.from_numpy(p).permute(2, 0, 1)[None] for p in (result, truth))
    assert compute_psnr(result, truth) == pytest.approx(
        image.peak_signal_noise_ratio(ours, theirs, data_range=255.0).item(), abs=1e-4
    )
    _, local = image.structural_similarity_index_measure(ours, theirs, data_range=255.0, return_full_image=True)
    assert compute_ssim(result.squeeze(), truth.squeeze()) == pytest.approx(
        local[..., 5:-5, 5:-5].mean().item(), abs=1e-4
    )
    whole = image.multiscale_structural_similarity_index_measure(ours, theirs, data_range=255.0)
    assert ms_ssim(result.squeeze(), truth.squeeze()) == pytest.approx(whole.item(), abs=1e-4)


def test_equal_pictures(pair):
    _, truth = pair
    assert math.isinf(compute_psnr(truth, truth))
    assert compute_ssim(truth, truth) == ms_ssim(truth, truth) == pytest.approx(1)


def test_ms_ssim_needs_room_for_five_scales(pair):
    result, truth = (matlab_y(picture) for picture in pair)
    assert math.isnan(ms_ssim(result[:175], truth[:175]))
    assert 0 < ms_ssim(result[:176, :176], truth[:176, :176]) < 1


def test_ms_ssim_forgives_what_vanishes_at_a_distance(pair):
    """Fine noise of one strength costs less than a coarse pattern of the same."""
    _, truth = (matlab_y(picture) for picture in pair)
    fine = np.random.default_rng(3).standard_normal(truth.shape) * 12
    coarse = matlab_bicubic(fine[:16, :16] / fine[:16, :16].std() * 12, truth.shape[::-1])
    coarse *= 12 / coarse.std()
    assert ms_ssim(truth + fine, truth) > compute_ssim(truth + fine, truth)
    assert ms_ssim(truth + fine, truth) - compute_ssim(truth + fine, truth) > ms_ssim(
        truth + coarse, truth
    ) - compute_ssim(truth + coarse, truth)


def test_a_border_is_left_out_on_all_sides():
    picture = np.arange(48).reshape(6, 8)
    assert crop_border(picture, 2).tolist() == [[18, 19, 20, 21], [26, 27, 28, 29]]
    assert crop_border(picture, 0).shape == (6, 8)
