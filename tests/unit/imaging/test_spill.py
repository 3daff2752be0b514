"""Arrays that live in a file, and pictures that are written from them."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest
from PIL import Image

from srcli.errors import MachineError
from srcli.imaging import pillow_writer, spill
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture
from srcli.sampling.blocks import cut_blocks


def filled(shape, dtype=np.uint8):
    array = spill.allocate_in_file(shape, dtype)
    array[:] = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return array


def test_small_arrays_stay_in_memory():
    assert spill.allocate_array((3, 4), np.uint8).flags.owndata
    assert not spill.allocate_array((3, 4), np.uint8, large=12).flags.owndata


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_was_forgotten_is_still_there(dtype):
    array = spill.allocate_in_file((300, 200, 3), dtype)
    values = np.random.default_rng(1).random(array.shape) * 200
    array[:] = values
    spill.evict_pages(array)
    spill.evict_pages(array[20:30])
    assert np.array_equal(array, values.astype(dtype))


def test_forgetting_an_array_in_memory_does_nothing():
    array = np.arange(6).reshape(2, 3)
    spill.evict_pages(array[1:])
    assert array.sum() == 15


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system gives back whole arrays alone")
def test_what_has_passed_is_given_back_and_the_rest_stays():
    array = spill.allocate_reclaimable((1024, 2048), np.uint8)
    array[:] = 7
    spill.evict_pages(array)
    spill.reclaim_start(array, 512 * 2048)
    assert (array[512:] == 7).all()
    assert not array[:512].any()


def test_what_has_passed_of_a_small_array_stays():
    array = spill.allocate_reclaimable((10, 10), np.uint8)
    array[:] = 7
    spill.reclaim_start(array, 50)
    assert (array == 7).all()


def test_a_disk_without_room_is_an_error_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(MachineError, match=f"{tmp_path}.*set TMPDIR"):
        spill.allocate_in_file((1 << 30, 1 << 30), np.uint8)


def test_the_file_is_gone_from_its_folder_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    array = filled((40, 30, 3))
    assert os.listdir(tmp_path) == []
    assert array.any()


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", np.uint8), ("png", np.uint16), ("tif", np.uint8), ("jpg", np.uint8)]
)
@pytest.mark.parametrize("alpha", [False, True])
def test_a_spilled_picture_is_written_like_one_in_memory(suffix, dtype, alpha, tmp_path, monkeypatch):
    pixels = filled((150, 97, 3), dtype)
    clear = pixels[..., 0].copy() if alpha else None
    write_picture(Picture(pixels=pixels.copy(), alpha=clear), tmp_path / f"a.{suffix}")
    monkeypatch.setattr(pillow_writer, "SPILL_BYTES", 1)
    write_picture(Picture(pixels=pixels, alpha=clear), tmp_path / f"b.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as one, Image.open(tmp_path / f"b.{suffix}") as other:
        assert one.mode == other.mode
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_blocks_cover_a_very_large_picture_in_reading_order():
    pieces = [block.inner for block in cut_blocks(7500, 7500, 256, 40)]
    assert pieces == sorted(pieces)
    assert sum(tile.height * tile.width for tile in pieces) == 7500**2
