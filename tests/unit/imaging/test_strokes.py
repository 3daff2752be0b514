"""Strokes and references: what counts as drawn, how far it spreads, and that nothing else changes by a bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli.errors import PictureError
from srcli.imaging.color import compute_luminance, transplant_luma
from srcli.imaging.picture import Picture
from srcli.imaging.recolor import recolor
from srcli.imaging.reference import carry_colors
from srcli.imaging.spread import COLORS, group_colors, measure_geodesic_distances
from srcli.imaging.strokes import add_reference, add_strokes, grid_size

RED = np.array([200, 40, 40])


def halves(dtype: type = np.uint8, size: int = 64) -> np.ndarray:
    """A dark and a light half, each with a little grain."""
    levels = np.random.default_rng(0).integers(0, 3, (size, size))
    levels[:, : size // 2] += 60
    levels[:, size // 2 :] += 180
    return np.repeat((levels * (np.iinfo(dtype).max // 255)).astype(dtype)[..., None], 3, 2)


def drawn_on(pixels: np.ndarray, color: np.ndarray = RED, where: tuple = (slice(20, 24), slice(8, 24))) -> np.ndarray:
    copy = pixels.copy()
    copy[where] = color * (np.iinfo(pixels.dtype).max // 255)
    return copy


def clear(pixels: np.ndarray, copy: np.ndarray) -> Picture:
    """The strokes of a copy, on transparency."""
    alpha = (copy != pixels).any(-1) * np.array(np.iinfo(pixels.dtype).max, pixels.dtype)
    return Picture(pixels=copy, alpha=alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("transparent", [False, True], ids=["copy", "transparent"])
def test_a_stroke_colours_its_half_and_leaves_the_other(dtype, transparent):
    pixels = halves(dtype)
    copy = drawn_on(pixels)
    picture = add_strokes(Picture(pixels=pixels), clear(pixels, copy) if transparent else Picture(pixels=copy))
    made = transplant_luma(recolor(pixels, picture.strokes, None), pixels)
    unit = made.astype(float) / np.iinfo(dtype).max
    left = unit[:, :29]
    assert (left[..., 0] - left[..., 2]).min() > 0.3, "red everywhere"
    np.testing.assert_array_equal(made[:, 35:], pixels[:, 35:])
    np.testing.assert_array_equal(compute_luminance(made), compute_luminance(pixels))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(0, 24), st.tuples(*[st.integers(0, 255)] * 3), st.booleans())
def test_no_stroke_crosses_an_edge_and_luminance_never_changes(top, left, color, deep):
    pixels = halves(np.uint16 if deep else np.uint8)
    where = (slice(top, top + 4), slice(left, left + 4))
    hint = clear(pixels, drawn_on(pixels, np.array(color), where))
    if not hint.alpha.any():
        return
    picture = add_strokes(Picture(pixels=pixels), hint)
    made = transplant_luma(recolor(pixels, picture.strokes, None), pixels)
    np.testing.assert_array_equal(made[:, 35:], pixels[:, 35:])
    np.testing.assert_array_equal(compute_luminance(made), compute_luminance(pixels))


def test_a_grey_stroke_takes_colour_away():
    pixels = halves()
    red = transplant_luma(np.broadcast_to(RED.astype(np.uint8), pixels.shape), pixels)
    grey = clear(red, drawn_on(red, np.array([120, 120, 120])))
    made = recolor(red, add_strokes(Picture(pixels=red), grey).strokes, None)
    assert np.ptp(made[:, :29], 2).max() < 12
    np.testing.assert_array_equal(made[:, 35:], red[:, 35:])


def test_thin_strokes_on_a_large_picture_are_seen():
    pixels = np.full((900, 1200, 3), 128, np.uint8)
    strokes = add_strokes(Picture(pixels=pixels), Picture(pixels=drawn_on(pixels, RED, (500, slice(100, 900))))).strokes
    assert strokes.shape[:2] == grid_size(1200, 900)[::-1]
    places = strokes[strokes[..., 3] > 0]
    assert len(places) == 256 and (places[:, :3] == RED).all()


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (Picture(pixels=halves()), "no strokes"),
        (Picture(pixels=halves(), alpha=np.zeros((64, 64), np.uint8)), "no strokes"),
        (Picture(pixels=halves(size=32)), "the hint is 32x32, the picture 64x64"),
    ],
    ids=["copy", "transparent", "size"],
)
def test_a_hint_that_says_nothing_is_refused(hint, said):
    with pytest.raises(PictureError, match=said):
        add_strokes(Picture(pixels=halves()), hint)


def test_a_grey_reference_is_refused():
    with pytest.raises(PictureError, match="no colours"):
        add_reference(Picture(pixels=halves()), Picture(pixels=halves()))


def test_a_reference_gives_its_colours_to_what_is_as_light():
    pixels = halves()
    colored = np.empty_like(pixels)
    colored[:, :32], colored[:, 32:] = (30, 60, 160), (240, 190, 90)
    picture = add_reference(Picture(pixels=pixels), Picture(pixels=colored[:, ::-1]))
    made = recolor(pixels, None, picture.reference).astype(int)
    assert (made[:, :26, 2] > made[:, :26, 0] + 30).all(), "what is dark is blue"
    assert (made[:, 38:, 0] > made[:, 38:, 2] + 30).all(), "what is light is yellow"


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (500, 2)])
def test_small_and_narrow_pictures_are_taken(shape):
    pixels = np.repeat(np.random.default_rng(1).integers(0, 255, (*shape, 1), np.uint8), 3, 2)
    picture = add_strokes(Picture(pixels=pixels), Picture(pixels=np.broadcast_to(RED.astype(np.uint8), pixels.shape)))
    picture = add_reference(picture, Picture(pixels=np.dstack([pixels[..., 0], pixels[..., 0] // 2, pixels[..., 0]])))
    assert recolor(pixels, picture.strokes, picture.reference).shape == pixels.shape


def test_colour_is_looked_at_where_there_is_some():
    """Two places as light as each other get what the reference has where its colour is like theirs."""
    lightness = np.full((40, 40), 50, np.float32)
    ab = np.zeros((40, 40, 2), np.float32)
    ab[:20], ab[20:] = (-20, 0), (20, 0)
    reference = np.empty((40, 40, 3), np.uint8)
    reference[:20], reference[20:] = (60, 130, 90), (170, 100, 110)
    found = carry_colors(lightness, ab, reference)
    assert found[:12, :, 0].max() < -8 and found[28:, :, 0].min() > 8


def test_ways_go_around():
    right, down = np.full((3, 4), 1, np.float32), np.full((2, 5), 1, np.float32)
    right[:2, 1] = 100  # a wall with a gap at the bottom
    start = np.full((1, 3, 5), np.inf, np.float32)
    start[0, 0, 0] = 0
    assert measure_geodesic_distances(down, right, start)[0, 0, 4] == 8


def test_colours_beyond_the_limit_are_joined():
    values = np.random.default_rng(0).uniform(-90, 90, (500, 2)).astype(np.float32)
    colors, labels = group_colors(values)
    assert len(colors) <= COLORS and np.bincount(labels).all()
