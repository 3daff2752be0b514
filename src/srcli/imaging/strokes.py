"""Colour hints of a picture: strokes that the user has drawn, and a reference, both stored at low resolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import PictureError
from srcli.imaging.bands import split_rows
from srcli.imaging.color import compute_luminance, has_color
from srcli.imaging.picture import Picture, PixelArray

GRID = 384  # longer side in pixels of the grid on which colour is computed
DRAWN = 1 / 16  # of the range: larger colour differences from the picture are strokes


def grid_size(width: int, height: int) -> tuple[int, int]:
    """A picture's size (width, height) on the grid."""
    share = min(1.0, GRID / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def add_strokes(picture: Picture, hint: Picture) -> Picture:
    """The picture with the strokes of its hint: the opaque pixels, or on an opaque hint those with other colours."""
    if (hint.width, hint.height) != (picture.width, picture.height):
        sizes = f"{hint.width}x{hint.height}, the picture {picture.width}x{picture.height}"
        raise PictureError(f"the hint is {sizes}: draw strokes over the picture in its own size", "hint")
    drawn = _find_opaque(hint) if _is_transparent(hint) else _find_colored(hint, picture)
    if not drawn.any():
        raise PictureError("the hint has no strokes: draw some in colour, on a copy or on transparency", "hint")
    return replace(picture, strokes=_gather(hint.pixels, drawn))


def add_reference(picture: Picture, reference: Picture) -> Picture:
    """The picture with a reduced reference picture to take colours from."""
    if not has_color(reference.pixels):
        raise PictureError("the reference has no colours: give a coloured picture", "reference")
    size = grid_size(reference.width, reference.height)
    return replace(picture, reference=_to_bytes(cv2.resize(reference.pixels, size, interpolation=cv2.INTER_AREA)))


def _is_transparent(hint: Picture) -> bool:
    return hint.alpha is not None and bool((hint.alpha < np.iinfo(hint.alpha.dtype).max).any())


def _find_opaque(hint: Picture) -> NDArray[np.bool_]:
    alpha = hint.alpha
    assert alpha is not None
    return np.asarray(alpha > np.iinfo(alpha.dtype).max // 2)


def _find_colored(hint: Picture, picture: Picture) -> NDArray[np.bool_]:
    drawn = np.empty((hint.height, hint.width), np.bool_)
    for rows in split_rows(hint.height, hint.width):
        drawn[rows] = np.abs(_chroma(hint.pixels[rows]) - _chroma(picture.pixels[rows])).max(-1) > DRAWN
    return drawn


def _chroma(pixels: PixelArray) -> NDArray[np.float32]:
    """Differences from luminance, for pixels scaled to 0..1."""
    off = pixels.astype(np.int32) - compute_luminance(pixels)[..., None]
    return off.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _gather(pixels: PixelArray, drawn: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(h, w, 4) on the grid: the mean colour of each cell's strokes, and 255 where there are any."""
    height, width = drawn.shape
    columns, rows = grid_size(width, height)
    y, x = np.nonzero(drawn)
    place = (y * rows // height) * columns + x * columns // width
    count = np.bincount(place, minlength=rows * columns)
    colors = _to_bytes(pixels[y, x])
    sums = [np.bincount(place, colors[:, c], minlength=rows * columns) for c in range(3)]
    mean = np.rint(np.stack(sums, 1) / np.maximum(count, 1)[:, None])
    return np.concatenate([mean, 255 * (count > 0)[:, None]], 1).astype(np.uint8).reshape(rows, columns, 4)


def _to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)
