"""CIE Lab conversion, and enlargement of a small colour field along the edges of a larger picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.picture import PixelArray
from srcli.settings import JOINT, NEAREST

Floats = NDArray[np.float32]
CHROMA_WINDOW = (3, 3)  # of the field's own pixels, in which colour is a line over luminance
FLAT_VARIANCE = 4.0  # variance of L below which a window counts as flat


def levels_to_unit(levels: NDArray[Any]) -> Floats:
    """Convert 8- or 16-bit levels to 0..1."""
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def rgb_to_lab(rgb: Floats) -> Floats:
    """Convert sRGB in 0..1 to L (0..100), a, b. OpenCV deviates from the formula by up to 0.24 in L, 0.5 in a and b."""
    lab: Floats = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2LAB)
    return lab


def lab_to_rgb(lab: Floats) -> Floats:
    """Convert Lab to sRGB, clipped to 0..1."""
    rgb: Floats = cv2.cvtColor(np.ascontiguousarray(lab), cv2.COLOR_LAB2RGB)
    return rgb


def reduce_picture(pixels: PixelArray, size: tuple[int, int]) -> Floats:
    """Lab of the picture reduced to `size` (width, height) by averaging."""
    return rgb_to_lab(levels_to_unit(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)))


@dataclass(frozen=True)
class ChromaField:
    """a and b of a picture of any size: `gain` x L + `offset`, both (h, w, 2) and enlarged smoothly.

    In each small window colour is taken for a line over luminance (a guided filter), so that enlarged colour turns
    where luminance does. At the field's own size it equals the given colour.
    """

    gain: Floats
    offset: Floats
    size: tuple[int, int]  # width and height of the picture
    method: str = JOINT

    @classmethod
    def fit(cls, ab: Floats, pixels: PixelArray, method: str = JOINT) -> ChromaField:
        """The field for colour (h, w, 2) of the picture `pixels`, which `ab` covers edge to edge."""
        height, width = pixels.shape[:2]
        if method == NEAREST:
            return cls(np.zeros_like(ab), ab, (width, height), method)
        small = min(width, ab.shape[1]), min(height, ab.shape[0])
        ab = cv2.resize(ab, small, interpolation=cv2.INTER_AREA)
        lightness = reduce_picture(pixels, small)[..., :1]
        gain = _slope(lightness, ab)
        return cls(gain, ab - gain * lightness, (width, height))

    def rows(self, lightness: Floats, rows: slice) -> Floats:
        """Compute a and b for rows of the picture from their L (`lightness`)."""
        if self.method == NEAREST:
            return _nearest_rows(self.offset, self.size, rows)
        gain, offset = (_smooth_rows(field, self.size, rows) for field in (self.gain, self.offset))
        return gain * lightness[..., None] + offset


def _slope(lightness: Floats, ab: Floats) -> Floats:
    mean_l, mean_ab = _mean(lightness), _mean(ab)
    variance = _mean(lightness**2) - mean_l**2
    covariance = _mean(lightness * ab) - mean_l * mean_ab
    return _mean(covariance / (variance + FLAT_VARIANCE))


def _mean(field: Floats) -> Floats:
    mean: Floats = cv2.blur(field, CHROMA_WINDOW, borderType=cv2.BORDER_REPLICATE)
    return mean.reshape(field.shape)


def _nearest_rows(field: Floats, size: tuple[int, int], rows: slice) -> Floats:
    """Nearest-neighbour indices as torch computes them."""
    height, width = field.shape[:2]
    row = np.arange(rows.start, rows.stop) * height // size[1]
    column = np.arange(size[0]) * width // size[0]
    large: Floats = field[row[:, None], column]
    return large


def _smooth_rows(field: Floats, size: tuple[int, int], rows: slice) -> Floats:
    """Enlarge bilinearly and return some rows; they do not depend on which other rows are requested."""
    height = field.shape[0]
    at = ((np.arange(rows.start, rows.stop) + 0.5) * height / size[1] - 0.5).clip(0, height - 1)
    above = at.astype(int)
    share = (at - above).astype(np.float32)[:, None, None]
    tall = field[above] * (1 - share) + field[np.minimum(above + 1, height - 1)] * share
    wide: Floats = cv2.resize(tall, (size[0], len(at)), interpolation=cv2.INTER_LINEAR)
    return wide
