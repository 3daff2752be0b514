"""Cut a picture into tiles at its size and at halves of it, so that a browser decodes only what it shows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from srcli.imaging.picture import Pixels8
from srcli.imaging.resize import resize_array

TILE = 512


@dataclass(frozen=True, slots=True)
class PictureTile:
    """One tile as a lossless WebP file; level 0 has the picture's size, each further level half of the one before."""

    level: int
    row: int
    column: int
    data: bytes


def level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Sizes of all levels, down to one that fits into a single tile."""
    sizes = [(width, height)]
    while max(sizes[-1]) > TILE:
        width, height = (-(-side // 2) for side in sizes[-1])
        sizes.append((width, height))
    return sizes


def cut_tiles(pixels: Pixels8) -> Iterator[PictureTile]:
    """All tiles of all levels, of RGB bytes."""
    for level, size in enumerate(level_sizes(pixels.shape[1], pixels.shape[0])):
        pixels = resize_array(pixels, size)
        for row in range(0, size[1], TILE):
            for column in range(0, size[0], TILE):
                part = pixels[row : row + TILE, column : column + TILE]
                yield PictureTile(level, row // TILE, column // TILE, encode_webp(part))


def encode_webp(pixels: Pixels8) -> bytes:
    """Lossless WebP with the lowest effort, which is many times faster and hardly larger."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "WEBP", lossless=True, quality=0, method=0)
    return out.getvalue()
