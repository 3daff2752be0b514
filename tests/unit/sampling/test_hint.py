"""Levels are the same numbers in 0..1, whenever and in whatever pieces they are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srcli.sampling.hint import pixels_to_tensor, to_unit_float
from srcli.sampling.tiling import Tile


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_is_its_share_of_the_most(dtype):
    most = np.iinfo(dtype).max
    pixels = np.arange(most + 1, dtype=dtype).reshape(-1, 64, 1).repeat(3, 2)
    pixels.flags.writeable = False
    hint = pixels_to_tensor(pixels)
    assert np.array_equal(to_unit_float(hint)[0, 1].numpy(), pixels[:, :, 1].astype(np.float32) / np.float32(most))
    tile = Tile(1, 3, 2, 5)
    both = torch.cat([tile.crop(hint), tile.crop(hint)])
    assert torch.equal(to_unit_float(both), torch.cat([tile.crop(to_unit_float(hint))] * 2))
    assert torch.equal(to_unit_float(to_unit_float(hint)), to_unit_float(hint))


def test_nothing_is_copied():
    pixels = np.zeros((4, 5, 3), np.uint8)
    hint = pixels_to_tensor(pixels)
    pixels[2, 3, 1] = 7
    assert hint[0, 1, 2, 3] == 7
