"""Restore the tones of faded pictures: stretch contrast and reduce colour casts by invertible curves per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.bands import split_rows
from srcli.imaging.color import compute_luminance
from srcli.imaging.picture import PixelArray

BINS = 256
TAIL = 0.005  # share of the pixels that may lie beyond black and beyond white
TONE_BLACK, TONE_WHITE = 0.02, 0.98  # the new values of black and white; tones beyond are compressed, not clipped
FLAT = 0.05  # pictures with a smaller tonal range are left alone
FULL = 0.75  # pictures with a larger tonal range have not faded; their colour casts, as at night, are intended
MOST_GAIN = 2.0
RISE, MOST_BENT = 0.3, 4.0  # least slope of the ends of a curve, and their highest exponent
BALANCE = 0.5  # weight of a channel's own curve against the common one
MOST_SHIFT = 0.08  # most that a channel's black and white differ from the common ones
TONED = 0.035  # prints with less scatter are toned on purpose

Curves = NDArray[np.float64]  # (3, 2): black and white of each channel


@dataclass(frozen=True, slots=True)
class Tones:
    """Histograms of a picture's channels and luminance, and the scatter of its colours."""

    channels: NDArray[np.int64]  # (3, BINS)
    luminance: NDArray[np.int64]
    scatter: float  # mean distance of colours from the mean colour of their lightness


def correct_tone(pixels: PixelArray, alpha: PixelArray | None = None) -> tuple[PixelArray, dict[str, object]]:
    """The corrected picture, and the black and white of each channel, with which it can be undone. If there is nothing
    to correct, the same picture and an empty dict."""
    curves = choose_curves(measure_tones(pixels, alpha))
    if curves is None:
        return pixels, {}
    tables = [build_table(black, white, pixels.dtype) for black, white in curves]
    out = np.empty_like(pixels)
    for rows in split_rows(*pixels.shape[:2]):
        for channel, table in enumerate(tables):
            out[rows, :, channel] = table[pixels[rows, :, channel]]
    return out, {
        "from": curves.round(4).tolist(),
        "to": [[min(TONE_BLACK, b), max(TONE_WHITE, w)] for b, w in curves.round(4).tolist()],
    }


def measure_tones(pixels: PixelArray, alpha: PixelArray | None) -> Tones:
    """Measure in bands of rows. Fully transparent pixels are ignored."""
    shift = pixels.dtype.itemsize * 8 - 8
    channels, luminance = np.zeros((3, BINS), np.int64), np.zeros(BINS, np.int64)
    sums, squares = np.zeros((3, BINS)), np.zeros((3, BINS))
    for rows in split_rows(*pixels.shape[:2]):
        seen = slice(None) if alpha is None else alpha[rows] > 0
        levels = (pixels[rows] >> shift)[seen].reshape(-1, 3)
        light = compute_luminance(levels)
        luminance += np.bincount(light, minlength=BINS)
        for c in range(3):
            channels[c] += np.bincount(levels[:, c], minlength=BINS)
            off = (levels[:, c] - light).astype(np.float64)
            sums[c] += np.bincount(light, off, BINS)
            squares[c] += np.bincount(light, off**2, BINS)
    spread = squares - sums**2 / np.maximum(luminance, 1)
    return Tones(channels, luminance, float(np.sqrt(spread.sum() / max(1, 3 * luminance.sum())) / (BINS - 1)))


def choose_curves(tones: Tones) -> Curves | None:
    """Black and white of each channel; None if the picture is flat or has not faded."""
    if not tones.luminance.sum():
        return None
    common = _find_ends(tones.luminance)
    width = common[1] - common[0]
    if not FLAT <= width < FULL:
        return None
    if width * MOST_GAIN < TONE_WHITE - TONE_BLACK:  # widened evenly, so that a foggy picture stays a little foggy
        lack = (TONE_WHITE - TONE_BLACK) / MOST_GAIN - width
        common = common + np.array([-lack * common[0] / (1 - width), lack * (1 - common[1]) / (1 - width)])
    curves = np.tile(common, (3, 1))
    if tones.scatter > TONED:
        own = np.array([_find_ends(channel) for channel in tones.channels])
        curves += np.clip(BALANCE * (own - common), -MOST_SHIFT, MOST_SHIFT)
    return curves if (curves[:, 1] - curves[:, 0] >= FLAT).all() else None


def _find_ends(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The values in 0..1 beyond which there is only the share TAIL of the pixels."""
    total = counts.cumsum() / counts.sum()
    low, high = np.searchsorted(total, TAIL), np.searchsorted(total, 1 - TAIL)
    return np.array([low, high]) / (BINS - 1)


def build_table(black: float, white: float, dtype: np.dtype[np.unsignedinteger]) -> PixelArray:
    """The lookup table: linear between black and white, and curved beyond them, so that nothing is clipped."""
    top = np.iinfo(dtype).max
    x, low, high = np.arange(top + 1) / top, min(TONE_BLACK, black), max(TONE_WHITE, white)
    slope = (high - low) / (white - black)
    y = low + slope * (x - black)
    if black > 0:
        y[x < black] = low * _bend(x[x < black] / black, slope * black / low)
    if white < 1:
        y[x > white] = 1 - (1 - high) * _bend((1 - x[x > white]) / (1 - white), slope * (1 - white) / (1 - high))
    return np.asarray(np.rint(y * top).clip(0, top), dtype)


def _bend(part: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    """A strictly increasing curve from 0 to 1 with this slope at 1, as far as MOST_BENT allows."""
    return np.asarray(RISE * part + (1 - RISE) * part ** np.clip((slope - RISE) / (1 - RISE), 1, MOST_BENT))
