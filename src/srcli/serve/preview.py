"""A small picture of a running job: the finished blocks of the result over the input."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.imaging.picture import Picture
from srcli.sampling.tiling import Tile

if TYPE_CHECKING:
    from torch import Tensor

PREVIEW_SIDE = 640  # pixels of the longer side


class GrowingPreview:
    """Updated block by block, or step by step, by the worker thread; other threads get it as a JPEG file."""

    def __init__(self, picture: Picture) -> None:
        share = min(1.0, PREVIEW_SIDE / max(picture.width, picture.height))
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        self._pixels = _shrink_levels(picture.pixels, size)
        self._lock = threading.Lock()

    def add(self, levels: NDArray[Any], box: Tile, whole: tuple[int, int]) -> None:
        """Add a block of the result; `whole` is the result's width and height."""
        height, width = self._pixels.shape[:2]
        across, down = width / whole[0], height / whole[1]
        left, right = (round(x * across) for x in (box.left, box.left + box.width))
        top, bottom = (round(y * down) for y in (box.top, box.top + box.height))
        if right > left and bottom > top:
            small = _shrink_levels(levels, (right - left, bottom - top))
            with self._lock:
                self._pixels[top:bottom, left:right] = small

    def show_expected(self, expected: Tensor) -> bool:
        """Show what a sampler expects of the whole picture. Returns whether that can be shown."""
        from srcli.sampling.rough_preview import estimate_levels  # after the server's start: it loads torch

        levels = estimate_levels(expected)
        if levels is None:
            return False
        size = self._pixels.shape[1::-1]
        enlarged = np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        with self._lock:
            self._pixels = enlarged
        return True

    def encode(self) -> bytes:
        with self._lock:
            pixels = self._pixels.copy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        return file.getvalue()


def _shrink_levels(levels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    small = np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_AREA))
    return small if small.dtype == np.uint8 else (small >> 8).astype(np.uint8)
