"""Colour fields: exact in their own size, the same rows whichever are asked for, and never colour from none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from srcli.imaging.chroma import ChromaField, reduce_picture
from srcli.settings import CHROMA_UPSAMPLINGS, JOINT, NEAREST

RNG = np.random.default_rng(0)


def picture(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    levels = RNG.integers(0, np.iinfo(dtype).max, (height, width, 1), dtype)
    return np.repeat(levels, 3, 2)


def field_of(height: int, width: int) -> np.ndarray:
    return RNG.normal(0, 30, (height, width, 2)).astype(np.float32)


def enlarged(field: ChromaField, pixels: np.ndarray, rows: slice) -> np.ndarray:
    lightness = reduce_picture(pixels, (pixels.shape[1], pixels.shape[0]))[..., 0]
    return field.rows(lightness[rows], rows)


@pytest.mark.parametrize("method", CHROMA_UPSAMPLINGS)
def test_in_its_own_size_a_field_is_the_colour_that_was_given(method):
    pixels, ab = picture(24, 17), field_of(24, 17)
    got = enlarged(ChromaField.fit(ab, pixels, method), pixels, slice(0, 24))
    np.testing.assert_allclose(got, ab, atol=1e-3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_nearest_is_torch_s(height, width, small_height, small_width):
    pixels, ab = picture(height, width), field_of(small_height, small_width)
    got = ChromaField.fit(ab, pixels, NEAREST).rows(np.zeros((height, width), np.float32), slice(0, height))
    want = interpolate(torch.from_numpy(ab).permute(2, 0, 1)[None], (height, width))[0].permute(1, 2, 0)
    np.testing.assert_array_equal(got, want)


@given(
    st.integers(2, 40), st.integers(1, 40), st.sampled_from(CHROMA_UPSAMPLINGS), st.sampled_from([np.uint8, np.uint16])
)
def test_rows_are_the_same_however_they_are_asked_for(height, width, method, dtype):
    pixels = picture(height, width, dtype)
    field = ChromaField.fit(field_of(8, 8), pixels, method)
    whole = enlarged(field, pixels, slice(0, height))
    for row in range(height):
        np.testing.assert_allclose(enlarged(field, pixels, slice(row, row + 1)), whole[row : row + 1], atol=1e-3)


def test_no_colour_stays_no_colour():
    pixels = picture(30, 50)
    assert not enlarged(ChromaField.fit(np.zeros((8, 8, 2), np.float32), pixels, JOINT), pixels, slice(0, 30)).any()


def test_colour_turns_where_luminance_does():
    """An edge between two pixels of the field lies where the picture has it, to the pixel."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :29], pixels[:, 29:] = 60, 180
    truth = np.zeros((64, 64, 2), np.float32)
    truth[:, :29], truth[:, 29:] = 40, -40
    small = truth.reshape(8, 8, 8, 8, 2).mean((1, 3))
    off = {
        method: np.abs(enlarged(ChromaField.fit(small, pixels, method), pixels, slice(0, 64)) - truth).mean()
        for method in CHROMA_UPSAMPLINGS
    }
    assert off[JOINT] < off[NEAREST] / 4
