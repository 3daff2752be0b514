"""Combines the colour of one picture with the luminance of another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.bands import split_rows
from srcli.imaging.picture import PixelArray

# BT.601 in 14-bit fixed point, as OpenCV has it. The weights sum to 2**14, so grey is its own luminance.
_WEIGHTS = (4899, 9617, 1868)
_SHIFT = 14
SEEN_PART = 25  # channels differ visibly above the range divided by this


def compute_luminance(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """BT.601 luminance of (..., 3) RGB levels, rounded to a level."""
    red, green, blue = (pixels[..., c].astype(np.int32) * weight for c, weight in enumerate(_WEIGHTS))
    return (red + green + blue + (1 << _SHIFT - 1)) >> _SHIFT


def transplant_luma(colour: PixelArray, original: PixelArray, saturation: float = 1.0) -> PixelArray:
    """Combine the colours of one picture, times `saturation`, with the exact luminance of another.

    Where a colour cannot be that light or dark, it is paled just enough. (The official way clips, which moves
    the luminance.)
    """
    out = np.empty_like(original)
    for rows in split_rows(*original.shape[:2]):
        chroma = _chroma(colour[rows], saturation)
        out[rows] = _transplanted(chroma, compute_luminance(original[rows]), np.iinfo(original.dtype).max)
    return out


def has_color(pixels: PixelArray) -> bool:
    """Whether any pixel has visible colour; the slight tints of a grey JPEG do not count."""
    least = np.iinfo(pixels.dtype).max / SEEN_PART
    return any(bool((np.ptp(pixels[rows], -1) > least).any()) for rows in split_rows(*pixels.shape[:2]))


def _chroma(colour: NDArray[Any], saturation: float) -> NDArray[np.int32]:
    """Differences from luminance, corrected so that their own luminance is exactly 0."""
    chroma: NDArray[np.int32] = colour.astype(np.int32) - compute_luminance(colour)[..., None]
    if saturation == 1:
        return chroma
    scaled: NDArray[np.int32] = np.rint(chroma * np.float32(saturation)).astype(np.int32)
    scaled -= compute_luminance(scaled)[..., None]
    return scaled


def _transplanted(chroma: NDArray[np.int32], luma: NDArray[np.int32], top: int) -> NDArray[Any]:
    target = luma[..., None]
    shifted: NDArray[Any] = target + chroma
    outside = ((shifted < 0) | (shifted > top)).any(-1)
    if outside.any():
        shifted[outside] = _paled(chroma[outside], target[outside], top)
    return shifted


def _paled(chroma: NDArray[Any], luma: NDArray[Any], top: int) -> NDArray[Any]:
    """Desaturate colours until they are in range, then correct the rounding error of the luminance."""
    room = np.where(chroma > 0, top - luma, luma)
    share = np.min(room / np.maximum(np.abs(chroma), 1), -1, keepdims=True, initial=1.0)
    colour: NDArray[Any] = luma + np.rint(chroma * share).astype(np.int32)
    colour += luma - compute_luminance(colour)[..., None]
    lost = ((colour < 0) | (colour > top)).any(-1)
    colour[lost] = luma[lost]
    return colour
