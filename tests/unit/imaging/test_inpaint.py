"""Marked damage goes; all else stays to the last bit."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from srcli.batch.reading.reader import PictureReader
from srcli.batch.settings import InputOptions
from srcli.errors import InputError, PictureError
from srcli.imaging import inpaint
from srcli.imaging.inpaint import GROWTH, fill_damage, mark_damage
from srcli.imaging.picture import Picture
from srcli.repair.repair_picture import repair_picture
from srcli.settings import Fill, Repair

SIDE = 64


def inpaint_damage(picture: Picture, mask: Picture) -> Picture:
    return repair_picture(mark_damage(picture, mask), Repair(), None)


def slope(dtype: type = np.uint8) -> np.ndarray:
    """A picture that is easy to go on with: levels that rise from left to right, each channel by its own."""
    top = np.iinfo(dtype).max // 4
    return np.stack([np.tile(np.linspace(top, (2 + c // 2) * top, SIDE), (SIDE, 1)) for c in range(3)], 2).astype(dtype)


def scratch() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE, 3), np.uint8)
    mask[10:50, 30:33] = 255
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_marked_is_filled_and_nothing_else_touched(dtype: type) -> None:
    whole = slope(dtype)
    marked = scratch()[..., 0] > 0
    spoiled = whole.copy()
    spoiled[marked] = np.iinfo(dtype).max
    result = inpaint_damage(Picture(pixels=spoiled), Picture(pixels=scratch())).pixels
    assert result.dtype == dtype
    assert np.abs(result.astype(float) - whole)[marked].max() < 0.03 * np.iinfo(dtype).max
    far = np.ones((SIDE, SIDE), bool)
    far[10 - GROWTH : 50 + GROWTH, 30 - GROWTH : 33 + GROWTH] = False
    assert np.array_equal(result[far], whole[far])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pieces_of_the_picture_go_on_with_its_pattern(dtype: type) -> None:
    """Where a smooth filling is grey."""
    top, side = np.iinfo(dtype).max, 120
    y, x = np.mgrid[0:side, 0:side]
    stripes = np.repeat(((x + y) % 8 < 4)[..., None] * dtype(top), 3, 2)
    marks = np.zeros((side, side), np.uint8)
    marks[20:100, 55:62] = 255
    off = {}
    for method in get_args(Fill):
        filled = fill_damage(np.where(marks[..., None] > 0, dtype(top // 2), stripes), marks, method)
        assert filled.dtype == dtype
        off[method] = np.abs(filled.astype(float) - stripes)[marks > 0].mean() / top
    assert off["patches"] < 0.05 < 0.2 < off["smooth"]


def test_a_filling_is_the_same_each_time_and_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (90, 130, 3)).astype(np.uint8)
    marks = np.zeros((90, 130), np.uint8)
    marks[:, 60:64] = marks[40:43] = 255
    monkeypatch.setattr(inpaint, "FILL_PART", 64)
    monkeypatch.setattr(inpaint, "FILL_CONTEXT", 24)
    once, again = fill_damage(picture, marks), fill_damage(picture, marks)
    np.testing.assert_array_equal(once, again)
    far = inpaint.grow_marks(marks, GROWTH) == 0
    np.testing.assert_array_equal(once[far], picture[far])


@pytest.mark.parametrize("method", ["patches", "smooth"])
def test_a_corner_larger_than_a_part_is_filled_from_what_lies_beyond(
    monkeypatch: pytest.MonkeyPatch, method: Fill
) -> None:
    monkeypatch.setattr(inpaint, "FILL_PART", 32)
    monkeypatch.setattr(inpaint, "FILL_CONTEXT", 8)
    pixels, marks = np.full((140, 120, 3), 90, np.uint8), np.zeros((140, 120), np.uint8)
    marks[:100, :80], pixels[:100, :80] = 255, 255
    told: list[tuple[int, int]] = []
    filled = fill_damage(pixels, marks, method, lambda done, total: told.append((done, total)))
    assert np.abs(filled.astype(int) - 90).max() < 20  # of 165
    assert told == [(done, 12) for done in range(13)]


def test_a_mask_that_would_grow_over_everything_does_not_grow() -> None:
    pixels, marks = np.full((40, 40, 3), 255, np.uint8), np.full((40, 40), 255, np.uint8)
    marks[0, 0], pixels[0, 0] = 0, 90
    assert np.abs(fill_damage(pixels, marks).astype(int) - 90).max() < 20  # of 165


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 5), (12, 12)])
def test_small_and_nearly_lost_pictures_are_filled_smoothly(size: tuple[int, int]) -> None:
    picture, marks = np.full((*size, 3), 90, np.uint8), np.zeros(size, np.uint8)
    marks[:, ::2] = 255
    assert fill_damage(picture, marks).shape == picture.shape


def test_a_black_mask_changes_nothing() -> None:
    picture = Picture(pixels=slope())
    assert inpaint_damage(picture, Picture(pixels=np.zeros_like(scratch()))) is picture


def test_a_layer_of_white_strokes_on_nothing_is_a_mask_too() -> None:
    picture, strokes = Picture(pixels=scratch() // 2 + slope() // 2), Picture(pixels=scratch())
    layer = Picture(pixels=np.full_like(scratch(), 255), alpha=scratch()[..., 0])
    assert np.array_equal(inpaint_damage(picture, layer).pixels, inpaint_damage(picture, strokes).pixels)


@pytest.mark.parametrize(
    ("mask", "says"), [(scratch()[:40], "64x40, the picture 64x64"), (np.full_like(scratch(), 255), "light all over")]
)
def test_a_mask_that_cannot_be_meant_is_one_line(mask: np.ndarray, says: str) -> None:
    with pytest.raises(PictureError, match=says):
        inpaint_damage(Picture(pixels=slope()), Picture(pixels=mask))


def test_the_reader_mends_by_a_file_and_by_a_folder(tmp_path: Path) -> None:
    """In a folder of masks each picture has the one of its name, or none."""
    spoiled = slope()
    spoiled[scratch() > 0] = 255
    for name in ("a", "b"):
        Image.fromarray(spoiled).save(tmp_path / f"{name}.tif")
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(scratch()).save(masks / "a.png")
    options = InputOptions(inputs=("x",), mask=str(masks))
    for source, name, changed in (
        (options, "a", True),
        (options, "b", False),
        (_single(options, masks), "b", True),
    ):
        reader = PictureReader(source)
        try:
            path = tmp_path / f"{name}.tif"
            picture = reader.read(path, sides=source.sides_for(path, tmp_path))
        finally:
            reader.close()
        assert (picture.damage is not None) == changed
        assert (repair_picture(picture, Repair(), None).pixels[30, 31] < 250).all() == changed


def _single(options: InputOptions, masks: Path) -> InputOptions:
    return replace(options, mask=str(masks / "a.png"))


def test_a_mask_that_is_not_there_stops_the_run_before_it_begins() -> None:
    with pytest.raises(InputError, match="no such mask"):
        InputOptions(inputs=("x",), mask="nowhere.png")
