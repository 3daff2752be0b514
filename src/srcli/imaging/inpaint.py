"""Fill marked damage from its surroundings."""

from __future__ import annotations

from collections.abc import Callable
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

GROWTH = 2  # pixels that marks are grown on all sides, since the edges of scratches are soft
RADIUS = 4.0  # in pixels, of OpenCV's inpainting
FILL_PART, FILL_CONTEXT = 512, 96  # side in pixels of a part that is filled at once, and of the context around it

Marks = NDArray[np.uint8]  # (H, W): 255 where there is damage, 0 elsewhere
OnPart = Callable[[int, int], None]  # parts done, total


def mark_damage(picture: Picture, mask: Picture) -> Picture:
    """Mark the light and opaque parts of the mask as damaged in the picture."""
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
    """Dilate the marks by this many pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(marks, kernel), np.uint8)


def ignore_part(done: int, total: int) -> None:
    """Ignore progress."""


def fill_damage(pixels: PixelArray, marks: Marks, method: Fill = PATCHES, on_part: OnPart = ignore_part) -> PixelArray:
    """Fill the marks, grown by GROWTH. Parts are filled one after the other, to save memory; a filled part can be the
    source of the next."""
    holes, out = grow_marks(marks, GROWTH), pixels.copy()
    if holes.all():
        holes = marks.copy()
    left = [place for place in _list_parts(*holes.shape) if holes[_cut_part(*place)].any()]
    total = len(left)
    on_part(0, total)
    while left and not holes.all():
        for place in left.copy():
            if _fill_from_context(out, holes, method, place):
                left.remove(place)
                on_part(total - len(left), total)
    return out


def _list_parts(height: int, width: int) -> list[tuple[int, int]]:
    return [(top, left) for top in range(0, height, FILL_PART) for left in range(0, width, FILL_PART)]


def _cut_part(top: int, left: int) -> tuple[slice, slice]:
    return slice(top, top + FILL_PART), slice(left, left + FILL_PART)


def _fill_from_context(out: PixelArray, holes: Marks, method: Fill, place: tuple[int, int]) -> bool:
    """Fill a part, unless its surroundings are all damaged: then it waits until its neighbours are filled."""
    inner = _cut_part(*place)
    outer = _add_context(place[0], holes.shape[0]), _add_context(place[1], holes.shape[1])
    if holes[outer].all():
        return False
    filled = _fill_part(out[outer], holes[outer], method, place)
    kept = filled[place[0] - outer[0].start :, place[1] - outer[1].start :][:FILL_PART, :FILL_PART]
    marked = holes[inner] > 0
    out[inner][marked] = kept[marked]
    holes[inner] = 0
    return True


def _add_context(start: int, length: int) -> slice:
    return slice(max(0, start - FILL_CONTEXT), min(length, start + FILL_PART + FILL_CONTEXT))


def _fill_part(pixels: PixelArray, holes: Marks, method: Fill, place: tuple[int, int]) -> PixelArray:
    """Fill from patches, or by OpenCV if there is too little to copy from. Grey pictures are filled in one channel."""
    grey = bool((np.ptp(pixels, 2) == 0).all())
    channels = pixels[..., :1] if grey else pixels
    if method == PATCHES:
        top = np.float32(np.iinfo(pixels.dtype).max)
        filled = fill_from_patches(channels.astype(np.float32) / top, holes > 0, place)
        if filled is not None:
            levels = np.rint(filled.clip(0, 1) * top).astype(pixels.dtype)
            return np.broadcast_to(levels, pixels.shape)
    planes = (np.ascontiguousarray(plane) for plane in np.moveaxis(channels, 2, 0))
    smooth = np.stack([cv2.inpaint(plane, holes, RADIUS, cv2.INPAINT_TELEA) for plane in planes], 2)
    return np.broadcast_to(smooth, pixels.shape)
