"""Change a picture's colours by its hints: first by the reference, then by strokes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.bands import split_rows
from srcli.imaging.chroma import ChromaField, Floats, lab_to_rgb, levels_to_unit, reduce_picture, rgb_to_lab
from srcli.imaging.picture import PixelArray
from srcli.imaging.reference import carry_colors
from srcli.imaging.spread import spread_strokes
from srcli.imaging.strokes import grid_size

LEAST_CHANGE = 0.1  # of a and b; smaller changes are ignored


def recolor(picture: PixelArray, strokes: NDArray[np.uint8] | None, reference: NDArray[np.uint8] | None) -> PixelArray:
    """The picture with the colours of its strokes and its reference. Pixels far from both are bit-identical."""
    height, width = picture.shape[:2]
    grid = grid_size(width, height) if strokes is None else (strokes.shape[1], strokes.shape[0])
    lab = reduce_picture(picture, grid)
    lightness, before = np.ascontiguousarray(lab[..., 0]), lab[..., 1:]
    wanted = before if reference is None else carry_colors(lightness, before, reference)
    if strokes is not None:
        values = rgb_to_lab(levels_to_unit(strokes[..., :3]))[..., 1:]
        spread, confidence = spread_strokes(lightness, values, strokes[..., 3] > 0)
        wanted = wanted + confidence * (spread - wanted)
    return _change_colors(picture, wanted - before)


def _change_colors(picture: PixelArray, change: Floats) -> PixelArray:
    """Add the change to a and b, in bands of rows to save memory."""
    field, out, top = ChromaField.fit(change, picture), picture.copy(), np.iinfo(picture.dtype).max
    for rows in split_rows(*picture.shape[:2]):
        lab = rgb_to_lab(levels_to_unit(picture[rows]))
        added = field.rows(lab[..., 0], rows)
        changed = np.abs(added).max(-1) > LEAST_CHANGE
        lab[..., 1:] += added
        out[rows][changed] = np.rint(lab_to_rgb(lab)[changed] * top)
    return out
