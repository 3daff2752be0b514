"""Resize arrays, without a whole picture in floating point."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.imaging.bands import split_rows

SamePixels = TypeVar("SamePixels", bound=NDArray[Any])

RESIZE_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_REACH = {"nearest": 1, "bilinear": 1, "bicubic": 2, "lanczos": 3}
_BAND = 1 << 21


def resize_array(pixels: SamePixels, size: tuple[int, int], method: str = "bicubic") -> SamePixels:
    """Resize to (width, height). 8 bits are identical to Pillow's result; 16 bits are kept."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if pixels.dtype == np.uint8:
        # Not in bands: Pillow chooses the order of its two passes by the sizes, which changes the last bit.
        return pillow_to_array(Image.fromarray(pixels).resize(size, RESIZE_FILTERS[method]))  # type: ignore[return-value]
    out = np.empty((size[1], size[0], *pixels.shape[2:]), pixels.dtype)
    for rows in split_rows(size[1], max(size[0], width), _BAND):
        out[rows] = resize_rows(pixels, size, rows, method)
    return out  # type: ignore[return-value]


def pillow_to_array(picture: Image.Image) -> NDArray[Any]:
    """Pillow's pixels as an array, copied in bands: `asarray` would need three times the memory."""
    width, height = picture.size
    first = np.asarray(picture.crop((0, 0, width, 1)))
    out = np.empty((height, *first.shape[1:]), first.dtype)
    for rows in split_rows(height, width):
        out[rows] = np.asarray(picture.crop((0, rows.start, width, rows.stop)))
    return out


def resize_rows(pixels: NDArray[np.uint16], size: tuple[int, int], rows: slice, method: str) -> NDArray[np.uint16]:
    """Some rows of the result, from the rows of the source that influence them."""
    height, width = pixels.shape[:2]
    top, bottom = rows.start, rows.stop
    scale = height / size[1]
    reach = math.ceil(_REACH[method] * max(scale, 1)) + 1
    first = max(0, math.floor(top * scale) - reach)
    last = min(height, math.ceil(bottom * scale) + reach)
    part, shape = pixels[first:last], (size[0], bottom - top)
    box = (0.0, top * scale - first, float(width), bottom * scale - first)
    planes = part[..., None] if part.ndim == 2 else part
    wide = [_plane(planes[..., c], shape, box, method) for c in range(planes.shape[-1])]
    return wide[0] if part.ndim == 2 else np.stack(wide, -1)


def _plane(
    plane: NDArray[Any], shape: tuple[int, int], box: tuple[float, float, float, float], method: str
) -> NDArray[np.uint16]:
    picture = Image.fromarray(plane.astype(np.float32)).resize(shape, RESIZE_FILTERS[method], box)
    return np.asarray(np.rint(np.asarray(picture).clip(0, 65535)), np.uint16)


def bleed_colour(pixels: SamePixels, alpha: NDArray[Any]) -> SamePixels:
    """Give fully transparent pixels the nearest visible colour, against dark fringes at edges after resizing."""
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    _, nearest = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV numbers the visible pixels in its own order; find the pixel of each label.
    colours = np.zeros((int(nearest.max()) + 1, 3), pixels.dtype)
    visible = ~hidden
    colours[nearest[visible]] = pixels[visible]
    out = pixels.copy()
    out[hidden] = colours[nearest[hidden]]
    return out
