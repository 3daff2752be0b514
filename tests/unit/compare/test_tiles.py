"""Tiles: every pixel in one of them, exactly, and halves for views from afar."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from srcli.compare.tiles import TILE, cut_tiles, level_sizes


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((1, 1), [(1, 1)]),
        ((512, 512), [(512, 512)]),
        ((513, 20), [(513, 20), (257, 10)]),
        ((1300, 1030), [(1300, 1030), (650, 515), (325, 258)]),
    ],
)
def test_levels_are_halves_down_to_one_tile(size, levels):
    assert level_sizes(*size) == levels


def test_tiles_hold_every_pixel_exactly():
    picture = np.random.default_rng(0).integers(0, 256, (700, 1030, 3), np.uint8)
    whole = np.zeros_like(picture)
    tiles = list(cut_tiles(picture))
    for tile in tiles:
        if tile.level == 0:
            part = np.asarray(Image.open(io.BytesIO(tile.data)))
            top, left = tile.row * TILE, tile.column * TILE
            whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    assert np.array_equal(whole, picture)
    assert [(tile.row, tile.column) for tile in tiles if tile.level == 2] == [(0, 0)]
