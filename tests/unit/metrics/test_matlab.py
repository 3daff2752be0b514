"""imresize and rgb2ycbcr. The ramps' values are derived by hand from Keys' kernel, a = -1/2.

Reduced to a quarter, distances are odd eighths of the stretched kernel, whose values in 1/512 are
493.5, 372.5, 199.5, 46.5, -24.5, -37.5, -22.5, -3.5. Both sides sum to 2048. A ramp keeps its value where all
taps lie inside; mirrored index -n holds n - 1 where the ramp has -n, so its weight enters 2n - 1 times too often.
"""

from __future__ import annotations

import numpy as np
import pytest

from srcli.metrics.matlab import matlab_bicubic, matlab_y, reduce_bicubic

FIRST = 1.5 - 287 / 2048  # 199.5 + 3 * 46.5 - 5 * 24.5 - 7 * 37.5 - 9 * 22.5 - 11 * 3.5 = -287
SECOND = 5.5 - 33 / 2048  # -22.5 - 3 * 3.5 = -33


def test_a_ramp_reduced_to_a_quarter():
    ramp = np.arange(16.0)
    want = [FIRST, SECOND, 15 - SECOND, 15 - FIRST]
    np.testing.assert_allclose(matlab_bicubic(np.tile(ramp, (4, 1)), (4, 1))[0], want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(matlab_bicubic(ramp[:, None], (1, 4))[:, 0], want, rtol=0, atol=1e-12)


def test_a_ramp_enlarged_to_twice():
    """Weights at a quarter: 55.5, 14.5, -4.5, -1.5 in 1/64."""
    ramp = np.arange(8.0)[None]
    left = [-6 / 64, 11.5 / 64, 46.5 / 64, 1.25, 1.75]
    got = matlab_bicubic(ramp, (16, 1))[0]
    np.testing.assert_allclose(got[:5], left, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got[::-1][:5], 7 - np.array(left), rtol=0, atol=1e-12)


def test_integer_levels_are_rounded_once_halves_up_and_clipped():
    ramp = np.tile(np.arange(16, dtype=np.uint8) * 16, (4, 1))
    want = np.floor(np.array([FIRST, SECOND, 15 - SECOND, 15 - FIRST]) * 16 + 0.5)
    assert matlab_bicubic(ramp, (4, 1))[0].tolist() == want.tolist()
    step = np.repeat(np.array([[0, 255]], np.uint8), 8, 1)
    assert matlab_bicubic(step, (64, 1)).min() == 0
    assert matlab_bicubic(step.astype(float), (64, 1)).min() < 0
    wide = matlab_bicubic(ramp.astype(np.uint16) * 257, (4, 1))
    assert wide.dtype == np.uint16
    assert abs(int(wide[0, 0]) - FIRST * 16 * 257) <= 0.5


@pytest.mark.parametrize("size", [(3, 5), (7, 4), (40, 9), (13, 13)])
def test_a_flat_picture_stays_flat(size):
    flat = np.full((13, 13, 3), 77, np.uint8)
    assert (matlab_bicubic(flat, size) == 77).all()


def test_channels_and_axes_are_independent():
    picture = np.random.default_rng(0).uniform(0, 255, (24, 36, 3))
    whole = matlab_bicubic(picture, (9, 8))
    each = np.stack([matlab_bicubic(picture[..., c], (9, 8)) for c in range(3)], -1)
    np.testing.assert_allclose(whole, each, rtol=1e-12)
    turned = matlab_bicubic(picture.swapaxes(0, 1), (8, 9)).swapaxes(0, 1)
    np.testing.assert_allclose(whole, turned, rtol=1e-12)


def test_a_test_set_is_cropped_to_a_multiple_first():
    picture = np.random.default_rng(1).integers(0, 256, (35, 30, 3), np.uint8)
    assert np.array_equal(reduce_bicubic(picture, 4), matlab_bicubic(picture[:32, :28], (7, 8)))


def test_luma_of_black_white_and_the_primaries():
    colors = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_allclose(matlab_y(colors), [16, 235, 81.481, 144.553, 40.966])
