"""Masks in a batch: each counts for its own picture, and none is taken for a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.batch.settings import InputOptions, SidePictures, recipe_of_picture
from srcli.errors import InputError
from tests.batch.fakes import Watcher, draw, go


def scratch(path: Path, row: int = 2) -> Path:
    mask = np.zeros((8, 12), np.uint8)
    mask[row] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def album(folder: Path) -> Path:
    for number, name in enumerate(("a", "b", "sub/a")):
        draw(folder / "in" / f"{name}.tif", seed=number)
    return folder / "in"


def mend(folder: Path, **more: object) -> Watcher:
    masks, out = str(folder / "masks"), str(folder / "out")
    return go(folder / "in", recursive=True, mask=masks, path=out, **more)


def test_a_mask_counts_for_its_own_picture_alone(tmp_path: Path) -> None:
    album(tmp_path)
    scratch(tmp_path / "masks" / "a.png")
    assert mend(tmp_path).report.done == 3
    scratch(tmp_path / "masks" / "b.png")
    again = mend(tmp_path)
    assert {o.source.name: o.status for o in again.outcomes if o.status == "done"} == {"b.tif": "done"}
    scratch(tmp_path / "masks" / "a.png", row=5)
    assert [o.source.name for o in mend(tmp_path).outcomes if o.status == "done"] == ["a.tif"]
    assert mend(tmp_path).report.skipped == 3
    (tmp_path / "masks" / "b.png").unlink()
    assert [o.source.name for o in mend(tmp_path).outcomes if o.status == "done"] == ["b.tif"]


def test_the_journal_does_not_grow_with_the_masks(tmp_path: Path) -> None:
    album(tmp_path)
    for number in range(30):
        scratch(tmp_path / "masks" / f"{number}.png")
    mend(tmp_path)
    assert "29.png" not in (tmp_path / "out" / ".srcli-journal.jsonl").read_text()


def test_a_result_says_of_itself_that_it_was_made_with_its_mask(tmp_path: Path) -> None:
    album(tmp_path)
    mask = scratch(tmp_path / "masks" / "a.png")
    one = {"mask": str(mask), "path": str(tmp_path / "a.tif"), "journal": False}
    assert go(tmp_path / "in" / "a.tif", **one).fate() == {"a.tif": "done"}
    assert go(tmp_path / "in" / "a.tif", **one).fate() == {"a.tif": "skipped"}
    scratch(mask, row=5)
    assert go(tmp_path / "in" / "a.tif", **one).fate() == {"a.tif": "exists"}


def test_a_tree_of_pictures_has_a_tree_of_masks(tmp_path: Path) -> None:
    """Albums often count their pictures anew."""
    album(tmp_path)
    scratch(tmp_path / "masks" / "sub" / "a.png")
    heard = mend(tmp_path)
    assert heard.notes == [
        f"no mask in {tmp_path / 'masks'} for {tmp_path / 'in' / 'a.tif'} and 1 more of 3 pictures: not repaired"
    ]
    go(tmp_path / "in", recursive=True, path=str(tmp_path / "plain"))
    same = [(tmp_path / "out" / n).read_bytes() == (tmp_path / "plain" / n).read_bytes() for n in NAMES]
    assert same == [True, True, False]


NAMES = ("a_x2.tif", "b_x2.tif", "sub/a_x2.tif")


def test_pictures_without_a_mask_are_said_once_and_are_no_failure(tmp_path: Path) -> None:
    album(tmp_path)
    (tmp_path / "masks").mkdir()
    heard = mend(tmp_path)
    assert heard.report.exit_code == 0
    assert [note.split(" for ")[1] for note in heard.notes] == [
        f"{tmp_path / 'in' / 'a.tif'} and 2 more of 3 pictures: not repaired"
    ]
    for name in ("a", "b", "sub/a"):
        scratch(tmp_path / "masks" / f"{name}.png")
    assert mend(tmp_path).notes == []


@pytest.mark.parametrize("mask", ["masks", "masks/a.png"])
def test_masks_below_an_input_folder_are_no_inputs(tmp_path: Path, mask: str) -> None:
    folder = album(tmp_path)
    scratch(folder / "masks" / "a.png")
    heard = go(folder, recursive=True, mask=str(folder / mask), path=str(tmp_path / "out"))
    assert sorted(o.source.name for o in heard.outcomes) == ["a.tif", "a.tif", "b.tif"]
    assert heard.report.exit_code == 0
    assert heard.left_out == 1


def test_a_mask_among_the_inputs_is_refused(tmp_path: Path) -> None:
    mask = scratch(tmp_path / "a.png")
    for name in (mask, tmp_path):
        with pytest.raises(InputError, match="itself an input"):
            InputOptions(inputs=(str(name),), mask=str(name))
    assert InputOptions(inputs=("x",), mask=str(tmp_path)).sides_for(mask, tmp_path).mask is None


def test_a_mask_that_cannot_be_read_is_not_none(tmp_path: Path) -> None:
    """Or else what was done without one would count as done with it."""
    assert recipe_of_picture("r", SidePictures()) == "r"
    sides = (SidePictures(mask=tmp_path / "gone.png"), SidePictures(mask=scratch(tmp_path / "a.png")))
    assert len({"r", *(recipe_of_picture("r", side) for side in sides)}) == 3


def test_a_picture_counts_by_what_it_is_for(tmp_path: Path) -> None:
    path = scratch(tmp_path / "a.png")
    sides = (SidePictures(mask=path), SidePictures(hint=path), SidePictures(reference=path))
    assert len({recipe_of_picture("r", side) for side in sides}) == 3
