"""Sizes: Pillow's own numbers at 8 bits, full depth at 16, no dark fringe round transparency."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.unit.imaging.builders import noise

from srcli.imaging import resize as module
from srcli.imaging.resize import RESIZE_FILTERS, bleed_colour, resize_array

sides = st.integers(1, 40)


@given(sides, sides, sides, sides, st.sampled_from(sorted(RESIZE_FILTERS)), st.sampled_from([1, 3]))
def test_eight_bits_are_pillows_own(height, width, new_height, new_width, method, channels):
    pixels = noise(height, width, np.uint8, channels)
    size = (new_width, new_height)
    got, want = (
        resize_array(pixels, size, method),
        np.asarray(Image.fromarray(pixels).resize(size, RESIZE_FILTERS[method])),
    )
    assert got.shape == want.shape
    assert (got == want).all()


@given(sides, sides, sides, sides, st.sampled_from(["bilinear", "bicubic", "lanczos"]), st.integers(40, 3000))
def test_sixteen_bits_however_banded(height, width, new_height, new_width, method, band):
    pixels = noise(height, width, np.uint16, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BAND", band)
        got = resize_array(pixels, (new_width, new_height), method)
    exact = Image.fromarray(pixels.astype(np.float32)).resize((new_width, new_height), RESIZE_FILTERS[method])
    assert np.abs(got.astype(int) - np.asarray(exact).clip(0, 65535)).max() <= 1


def test_sixteen_bit_colour_keeps_its_channels_apart():
    pixels = np.full((4, 4, 3), (65535, 0, 300), np.uint16)
    assert (resize_array(pixels, (9, 7)) == (65535, 0, 300)).all()


def test_the_same_size_is_the_same_picture():
    pixels = noise(5, 6)
    assert resize_array(pixels, (6, 5)) is pixels


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
def test_overshoot_is_clipped_not_wrapped(method):
    pixels = np.zeros((8, 8, 3), np.uint16)
    pixels[:, 4:] = 65535
    got = resize_array(pixels, (64, 8), method)
    assert (np.diff(got[0, 20:44, 0].astype(int)) >= 0).all()


def test_no_dark_fringe():
    """A bright disc on transparent black, four times larger: nowhere visible is it darker than it was."""
    y, x = np.mgrid[:24, :24]
    inside = (x - 12) ** 2 + (y - 12) ** 2 < 80
    pixels = np.where(inside[..., None], np.array([220, 180, 160], np.uint8), 0).astype(np.uint8)
    alpha = np.where(inside, 255, 0).astype(np.uint8)
    big, edge = resize_array(bleed_colour(pixels, alpha), (96, 96)), resize_array(alpha, (96, 96))
    assert (big[edge > 0] >= (220, 180, 160)).all()
    assert (resize_array(pixels, (96, 96))[edge > 0] < 100).any()  # as it would be without


def test_bleeding_takes_the_nearest_colour_and_leaves_the_visible_alone():
    pixels = noise(9, 9)
    alpha = np.where(np.arange(9) < 4, 255, 0).astype(np.uint8) * np.ones((9, 1), np.uint8)
    got = bleed_colour(pixels, alpha)
    assert (got[:, :4] == pixels[:, :4]).all()
    assert (got[:, 4:] == pixels[:, 3:4]).all()


@pytest.mark.parametrize("level", [0, 1, 255])
def test_bleeding_without_a_border_does_nothing(level):
    pixels = noise(4, 4)
    assert bleed_colour(pixels, np.full((4, 4), level, np.uint8)) is pixels
