"""Damage that the user has marked, filled in from around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import PictureError
from srcli.imaging.color import compute_luminance
from srcli.imaging.picture import Picture, PixelArray

GROWN = 5  # pixels across: a scratch's edge is softer than the stroke over it
RADIUS = 4.0  # how far away the filling is taken from


def inpaint_damage(picture: Picture, mask: Picture) -> Picture:
    """The picture without what is light in the mask. Where the mask is transparent, it marks nothing."""
    if (mask.width, mask.height) != (picture.width, picture.height):
        sizes = f"{mask.width}x{mask.height}, the picture {picture.width}x{picture.height}"
        raise PictureError(f"the mask is {sizes}: paint it over the picture in its own size", "mask")
    light = _high(compute_luminance(mask.pixels), mask)
    if mask.alpha is not None:
        light &= _high(mask.alpha, mask)
    if light.all():
        raise PictureError("the mask is light all over: paint damage white, the rest black", "mask")
    if not light.any():
        return picture
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (GROWN, GROWN))
    return replace(picture, pixels=_filled(picture.pixels, cv2.dilate(light.astype(np.uint8), kernel)))


def _high(plane: NDArray[Any], mask: Picture) -> NDArray[np.bool_]:
    return np.asarray(plane > np.iinfo(mask.pixels.dtype).max // 2)


def _filled(pixels: PixelArray, holes: NDArray[np.uint8]) -> PixelArray:
    """Channel by channel, as OpenCV has it for 16 bits."""
    planes = (np.ascontiguousarray(plane) for plane in np.moveaxis(pixels, 2, 0))
    filled: PixelArray = np.stack([cv2.inpaint(plane, holes, RADIUS, cv2.INPAINT_TELEA) for plane in planes], 2)
    return filled
