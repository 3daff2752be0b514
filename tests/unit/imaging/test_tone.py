"""Tones are stretched gently, toned prints stay toned, and what is good or flat is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from srcli.imaging.tone import TONE_BLACK, TONE_WHITE, build_table, correct_tone

SIDE = 96


def draw(low: float, high: float, dtype: type = np.uint8, colors: bool = True) -> np.ndarray:
    """A picture whose tones reach from low to high, each channel with a pattern of its own."""
    rng = np.random.default_rng(0)
    unit = rng.random((SIDE, SIDE, 3)) if colors else np.repeat(rng.random((SIDE, SIDE, 1)), 3, 2)
    return np.rint((low + (high - low) * unit) * np.iinfo(dtype).max).astype(dtype)


def reach(pixels: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(pixels, (1, 99)) / np.iinfo(pixels.dtype).max
    return float(low), float(high)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colors", [True, False])
def test_faded_tones_are_stretched_and_order_is_kept(dtype: type, colors: bool) -> None:
    faded = draw(0.2, 0.8, dtype, colors)
    made, how = correct_tone(faded)
    assert made.dtype == dtype and how["to"] == [[TONE_BLACK, TONE_WHITE]] * 3
    low, high = reach(made)
    assert low < 0.1 and high > 0.9
    for c in range(3):
        order = np.argsort(faded[..., c].ravel(), kind="stable")
        assert (np.diff(made[..., c].ravel()[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_flat_picture_is_left_alone(level: int) -> None:
    flat = np.full((20, 30, 3), level, np.uint8)
    made, how = correct_tone(flat)
    assert made is flat and how == {}


def test_a_good_picture_is_left_alone() -> None:
    good = draw(0.0, 1.0, colors=False)
    assert correct_tone(good)[0] is good


def test_a_foggy_picture_is_stretched_no_more_than_twice() -> None:
    made, _ = correct_tone(draw(0.45, 0.55))
    low, high = reach(made)
    assert high - low < 0.25


def test_a_toned_print_stays_toned() -> None:
    grey = draw(0.2, 0.8, colors=False).astype(float)
    sepia = np.rint(grey * (1.0, 0.85, 0.65)).astype(np.uint8)
    made, how = correct_tone(sepia)
    assert len({tuple(curve) for curve in how["from"]}) == 1
    red, green, blue = (made[..., c].mean() for c in range(3))
    assert red > green + 8 > blue + 16


def test_a_cast_is_weakened_and_not_reversed() -> None:
    picture = draw(0.1, 0.9).astype(float)
    cast = np.rint(picture * (1.0, 0.9, 0.8)).astype(np.uint8)
    made, _ = correct_tone(cast)
    off = cast[..., 0].mean() / cast[..., 2].mean(), made[..., 0].mean() / made[..., 2].mean()
    assert off[0] > off[1] > 1.0


@pytest.mark.parametrize(("black", "white"), [(0.2, 0.8), (0.0, 0.9), (0.01, 0.5), (0.5, 1.0)])
def test_the_curve_can_be_undone(black: float, white: float) -> None:
    """At 16 bits to a level between black and white, and nearly so beyond: nothing is cut off."""
    table = build_table(black, white, np.dtype(np.uint16))
    assert (table[0], table[-1]) == (0, 65535) and (np.diff(table.astype(int)) >= 0).all()
    source = np.arange(65536)
    levels, first = np.unique(table, return_index=True)
    back = np.interp(table, levels, first)
    inside = (source > black * 65535 + 1) & (source < white * 65535 - 1)
    assert np.abs(back - source)[inside].max() <= 1
    assert np.abs(back - source).max() < 150


def test_what_is_transparent_does_not_count() -> None:
    faded = draw(0.3, 0.7)
    faded[: SIDE // 2] = 0
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[: SIDE // 2] = 0
    made, how = correct_tone(faded, alpha)
    assert how["from"][0][0] > 0.2 and reach(made[SIDE // 2 :])[1] > 0.85
