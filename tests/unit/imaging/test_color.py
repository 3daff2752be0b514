"""Colour from one picture, luminance from another: kept to the last bit, and else as the official program does it."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.cases import Case, each_group
from tests.unit.imaging.builders import noise

from srcli.imaging.color import compute_luminance, transplant_luma
from srcli.imaging.resize import resize_array


def official(generated: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The official post-processing: the result in the original's size, in YUV, its Y replaced."""
    generated = cv2.resize(generated, original.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    yuv = cv2.cvtColor(generated, cv2.COLOR_RGB2YUV)
    yuv[..., 0] = cv2.cvtColor(original, cv2.COLOR_RGB2YUV)[..., 0]
    return cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_luminance_is_kept_to_the_last_bit(dtype):
    colour, original = noise(200, 200, dtype), noise(200, 200, dtype)[::-1]
    assert (compute_luminance(transplant_luma(colour, original)) == compute_luminance(original)).all()


@pytest.mark.parametrize("saturation", [0.0, 0.37, 1.5, 4.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_luminance_is_kept_at_any_saturation(dtype, saturation):
    colour, original = noise(200, 200, dtype), noise(200, 200, dtype)[::-1]
    made = transplant_luma(colour, original, saturation)
    assert (compute_luminance(made) == compute_luminance(original)).all()
    assert (np.ptp(made, 2).max() > 0) == (saturation > 0)


@given(st.tuples(*[st.integers(0, 255)] * 6))
def test_luminance_is_kept_for_every_pair_of_colours(levels):
    colour, original = (np.array(part, np.uint8).reshape(1, 1, 3) for part in (levels[:3], levels[3:]))
    assert compute_luminance(transplant_luma(colour, original)) == compute_luminance(original)


def test_it_is_opencvs_luminance():
    pixels = noise(100, 100)
    assert (compute_luminance(pixels) == cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV)[..., 0]).all()


def test_grey_is_its_own_luminance():
    grey = np.repeat(np.arange(65536, dtype=np.uint16)[None, :, None], 3, 2)
    assert (compute_luminance(grey) == grey[..., 0]).all()


def test_a_picture_keeps_its_own_colours():
    pixels = noise(50, 50)
    assert (transplant_luma(pixels, pixels) == pixels).all()


def test_the_hue_survives_where_the_colour_is_too_strong():
    strong, light = np.array([[[255, 0, 0]]], np.uint8), np.full((1, 1, 3), 200, np.uint8)
    got = transplant_luma(strong, light)[0, 0].astype(int)
    assert got[0] > got[1]
    assert abs(got[1] - got[2]) <= 1


@each_group("pasd", "i_color_post*", lambda case: case.groups("generated_u8"))
def test_against_the_official_program(case: Case, part: str) -> None:
    given = {name: value.numpy() for name, value in case.under(part).items()}
    generated, original, want = (given[f"{name}_u8"] for name in ("generated", "original_gray", "output"))
    assert (official(generated, original) == want).all()
    sized = cv2.resize(generated, original.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    got = transplant_luma(sized, original)
    assert (compute_luminance(got) == compute_luminance(original)).all()
    inside = ((want > 0) & (want < 255)).all(-1)
    assert np.abs(got.astype(int) - want)[inside].max() <= 2


def test_sizes_are_the_callers_business():
    small = noise(8, 8)
    assert transplant_luma(resize_array(small, (16, 16)), noise(16, 16)).shape == (16, 16, 3)
