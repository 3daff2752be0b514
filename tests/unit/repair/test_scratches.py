"""Scratches found in pictures of any size and kind, on a tiny detector, and the file of what was found."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.golden.cases import HERE

from srcli.engines.runtime.device import Device
from srcli.errors import InputError
from srcli.files import name_beside
from srcli.imaging.mask_file import describe_found, encode_mask, mask_of_result, write_mask
from srcli.imaging.picture import Picture
from srcli.models.scratch_detector import fold_norms
from srcli.repair.find_damage import DamageFinder, read_detector, threshold_rows
from srcli.repair.repair_picture import repair_picture
from srcli.settings import Repair

SEARCH = Repair(find_scratches=True, mask_side=64, mask_threshold=0.985)
MORE = replace(SEARCH, mask_threshold=0.6)


@pytest.fixture(scope="module")
def finder() -> DamageFinder:
    network = fold_norms(read_detector(HERE / "scratch" / "tiny" / "model.safetensors"))
    return DamageFinder(network, Device(torch.device("cpu"), torch.float32), {"detector": "0" * 64})


def draw(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, 3)).astype(dtype)


@pytest.mark.parametrize("size", [(1, 1), (700, 3), (9, 2000), (64, 64), (200, 130)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_size_and_depth(finder: DamageFinder, size: tuple[int, int], dtype: type) -> None:
    picture = Picture(pixels=draw(*size, dtype))
    made = repair_picture(picture, SEARCH, finder)
    assert made.pixels.shape == picture.pixels.shape and made.pixels.dtype == dtype
    assert made.damage is None or (made.damage.shape == size and set(np.unique(made.damage)) <= {0, 255})
    assert set(made.repairs["damage"]) >= {"percent", "limit", "filled", "models"}


def test_depth_changes_no_marks(finder: DamageFinder) -> None:
    shallow = draw(90, 130)
    deep = shallow.astype(np.uint16) * 257
    np.testing.assert_array_equal(finder.find(shallow, SEARCH), finder.find(deep, SEARCH))


def test_marks_reach_as_far_as_a_pixel_of_the_network(finder: DamageFinder) -> None:
    """At ten times the network's size a mark is at least 17 pixels wide: 10 and what it was grown by."""
    marks = finder.find(cv2.resize(draw(64, 64), (640, 640), interpolation=cv2.INTER_NEAREST), MORE)
    assert marks.any()
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17))
    np.testing.assert_array_equal(cv2.morphologyEx(marks, cv2.MORPH_OPEN, kernel), marks)


def test_probabilities_are_enlarged_as_opencv_does() -> None:
    small = np.random.default_rng(1).random((7, 9)).astype(np.float32)
    want = cv2.resize(small, (50, 40), interpolation=cv2.INTER_LINEAR) >= 0.4
    assert ((threshold_rows(small, (50, 40), 0.4) > 0) != want).mean() < 0.002


def test_more_than_the_limit_is_marked_and_not_filled(finder: DamageFinder) -> None:
    picture = Picture(pixels=draw(64, 80))
    made = repair_picture(picture, replace(MORE, mask_limit=0), finder)
    assert made.pixels is picture.pixels and made.damage is not None
    assert "too much" in describe_found(made.repairs["damage"], None)
    allowed = repair_picture(picture, replace(MORE, mask_limit=100), finder)
    assert (allowed.pixels != picture.pixels).any()


def test_options_of_the_search_go_with_it() -> None:
    with pytest.raises(InputError, match="`mask_limit` goes with `mask` auto"):
        Repair(mask_limit=3)


def test_a_foreign_mask_stays_and_an_own_one_is_replaced(tmp_path: Path) -> None:
    result = tmp_path / "a_restored.png"
    first, second = (encode_mask(np.full((4, 4), level, np.uint8), {"tool": "srcli"}) for level in (0, 255))
    assert write_mask(result, first, None) == name_beside(result, "_mask")
    assert write_mask(result, first, None) == name_beside(result, "_mask")
    assert write_mask(result, second, None) == tmp_path / "a_restored_mask-2.png"
    known = mask_of_result({"repaired": {"damage": {"sha256": hashlib.sha256(first).hexdigest()}}})
    assert write_mask(result, second, known) == name_beside(result, "_mask")
    assert len(list(tmp_path.iterdir())) == 2
    for strange in (None, {}, {"repaired": 3}, {"repaired": {"damage": {"sha256": 4}}}):
        assert mask_of_result(strange) is None
