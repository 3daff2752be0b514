"""Transfer colours from another picture by luminance and texture (Welsh, Ashikhmin, Mueller 2002)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.chroma import Floats, levels_to_unit, rgb_to_lab

MATCHING_SIDE = 192  # longer side in pixels of the picture that is matched
SAMPLES = 600  # of the reference
ALIKE = 8  # similar samples whose mean colour is used
TEXTURE = 5, 17  # sides in pixels of the windows for the deviation of L
SMOOTHING_WINDOW, SMOOTHING_SLACK = (13, 13), 16.0  # window and regularization of the guided filter
LEAST_CHROMA = 2.0  # least mean |a|, |b| of a picture whose own colours are used for matching
MATCHED_AT_ONCE = 4096  # pixels


def carry_colors(lightness: Floats, ab: Floats, reference: NDArray[np.uint8]) -> Floats:
    """a and b for a picture with this L, and this colour if it has any, from similar pixels of the reference."""
    share = min(1.0, MATCHING_SIDE / max(lightness.shape))
    size = max(1, round(lightness.shape[1] * share)), max(1, round(lightness.shape[0] * share))
    small, known = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (lightness, ab))
    lab = rgb_to_lab(levels_to_unit(reference))
    chroma = lab[..., 1:] if float(np.abs(known).mean()) > LEAST_CHROMA else lab[..., :0]
    wanted = describe_places(small, known[..., : chroma.shape[2]])
    chosen = np.linspace(0, lab[..., 0].size - 1, min(SAMPLES, lab[..., 0].size)).astype(int)
    offered = describe_places(lab[..., 0], chroma)[chosen]
    matched = match_places(wanted, offered, lab[..., 1:].reshape(-1, 2)[chosen])
    large: Floats = cv2.resize(matched.reshape(*small.shape, 2), lightness.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return _smooth(lightness, large)


def describe_places(lightness: Floats, ab: Floats) -> Floats:
    """Features of each pixel: L, texture and colour, each normalized to mean 0 and deviation 1 over the picture."""
    local = [cv2.blur(lightness, (side, side)) for side in TEXTURE]
    squares = [cv2.blur(lightness**2, (side, side)) for side in TEXTURE]
    texture = [np.sqrt(np.maximum(s - m**2, 0)) for s, m in zip(squares, local, strict=True)]
    planes = np.stack([lightness, *(np.log1p(plane) for plane in texture), *np.moveaxis(ab, 2, 0)], 2)
    places = planes.reshape(-1, planes.shape[2])
    scaled: Floats = ((places - places.mean(0)) / (places.std(0) + 1e-3)).astype(np.float32)
    return scaled


def match_places(wanted: Floats, offered: Floats, colors: Floats) -> Floats:
    """For each pixel the mean colour of the ALIKE most similar samples."""
    count, out = min(ALIKE, len(offered)), np.empty((len(wanted), 2), np.float32)
    for begin in range(0, len(wanted), MATCHED_AT_ONCE):
        part = wanted[begin : begin + MATCHED_AT_ONCE]
        far = (offered**2).sum(1) - 2 * part @ offered.T
        alike = np.argpartition(far, count - 1, 1)[:, :count]
        out[begin : begin + MATCHED_AT_ONCE] = colors[alike].mean(1)
    return out


def _smooth(lightness: Floats, ab: Floats) -> Floats:
    """A guided filter (He et al. 2010), with L as the guide."""

    def mean(x: Floats) -> Floats:
        blurred: Floats = cv2.blur(x, SMOOTHING_WINDOW, borderType=cv2.BORDER_REPLICATE)
        return blurred.reshape(x.shape)

    guide = lightness[..., None]
    mean_l, mean_ab = mean(guide), mean(ab)
    gain = (mean(guide * ab) - mean_l * mean_ab) / (mean(guide**2) - mean_l**2 + SMOOTHING_SLACK)
    return mean(gain) * guide + mean(mean_ab - gain * mean_l)
