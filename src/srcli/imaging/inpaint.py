"""Damage that is marked, filled in from around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import PictureError
from srcli.imaging.color import compute_luminance
from srcli.imaging.patch_fill import fill_from_patches
from srcli.imaging.picture import Picture, PixelArray
from srcli.settings import PATCHES, Fill

GROWTH = 2  # pixels on all sides: a scratch's edge is softer than the stroke over it
RADIUS = 4.0  # how far away a smooth filling is taken from
FILL_PART, FILL_CONTEXT = 512, 96  # pixels a side that are filled at once, and that are looked at around them

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


def fill_damage(pixels: PixelArray, marks: Marks, method: Fill = PATCHES) -> PixelArray:
    """The picture with marked places, and a little around them, filled in. Part by part, so that it takes little
    memory; what is filled is there to be taken from for the next part."""
    holes, out = grow_marks(marks, GROWTH), pixels.copy()
    if holes.all():
        holes = marks.copy()
    while holes.any() and not holes.all():
        _fill_parts(out, holes, method)
    return out


def _fill_parts(out: PixelArray, holes: Marks, method: Fill) -> None:
    """Fill every part in which something is left to fill from; others wait for what their neighbours become."""
    height, width = holes.shape
    for top in range(0, height, FILL_PART):
        for left in range(0, width, FILL_PART):
            inner = slice(top, top + FILL_PART), slice(left, left + FILL_PART)
            outer = _around(top, height), _around(left, width)
            if holes[inner].any() and not holes[outer].all():
                filled = _fill_part(out[outer], holes[outer], method, (top, left))
                kept = filled[top - outer[0].start :, left - outer[1].start :][:FILL_PART, :FILL_PART]
                marked = holes[inner] > 0
                out[inner][marked] = kept[marked]
                holes[inner] = 0


def _around(start: int, length: int) -> slice:
    return slice(max(0, start - FILL_CONTEXT), min(length, start + FILL_PART + FILL_CONTEXT))


def _fill_part(pixels: PixelArray, holes: Marks, method: Fill, place: tuple[int, int]) -> PixelArray:
    """From patches, or smoothly where there is too little to take them from. One channel does for a grey picture."""
    grey = bool((np.ptp(pixels, 2) == 0).all())
    shown = pixels[..., :1] if grey else pixels
    if method == PATCHES:
        top = np.float32(np.iinfo(pixels.dtype).max)
        filled = fill_from_patches(shown.astype(np.float32) / top, holes > 0, place)
        if filled is not None:
            levels = np.rint(filled.clip(0, 1) * top).astype(pixels.dtype)
            return np.broadcast_to(levels, pixels.shape)
    planes = (np.ascontiguousarray(plane) for plane in np.moveaxis(shown, 2, 0))
    smooth = np.stack([cv2.inpaint(plane, holes, RADIUS, cv2.INPAINT_TELEA) for plane in planes], 2)
    return np.broadcast_to(smooth, pixels.shape)
