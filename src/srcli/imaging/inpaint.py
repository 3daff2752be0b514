"""Damage that is marked, filled in from around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import PictureError
from srcli.imaging.color import compute_luminance
from srcli.imaging.picture import Picture, PixelArray

GROWTH = 2  # pixels on all sides: a scratch's edge is softer than the stroke over it
RADIUS = 4.0  # how far away the filling is taken from

Marks = NDArray[np.uint8]  # (H, W): 255 where there is damage, 0 elsewhere


def mark_damage(picture: Picture, mask: Picture) -> Picture:
    """The picture with what is light in the mask marked as damaged. Where the mask is transparent, it marks nothing."""
    if (mask.width, mask.height) != (picture.width, picture.height):
        sizes = f"{mask.width}x{mask.height}, the picture {picture.width}x{picture.height}"
        raise PictureError(f"the mask is {sizes}: paint it over the picture in its own size", "mask")
    light = _high(compute_luminance(mask.pixels), mask)
    if mask.alpha is not None:
        light &= _high(mask.alpha, mask)
    if light.all():
        raise PictureError("the mask is light all over: paint damage white, the rest black", "mask")
    return replace(picture, damage=np.where(light, np.uint8(255), np.uint8(0))) if light.any() else picture


def _high(plane: NDArray[Any], mask: Picture) -> NDArray[np.bool_]:
    return np.asarray(plane > np.iinfo(mask.pixels.dtype).max // 2)


def grow_marks(marks: Marks, radius: int) -> Marks:
    """The marks, this many pixels wider on all sides."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(marks, kernel), np.uint8)


def fill_damage(pixels: PixelArray, marks: Marks) -> PixelArray:
    """The picture with marked places, and a little around them, filled in. Channel by channel, as OpenCV has it for 16
    bits."""
    holes = grow_marks(marks, GROWTH)
    planes = (np.ascontiguousarray(plane) for plane in np.moveaxis(pixels, 2, 0))
    filled: PixelArray = np.stack([cv2.inpaint(plane, holes, RADIUS, cv2.INPAINT_TELEA) for plane in planes], 2)
    return filled
