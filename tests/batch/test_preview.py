"""The file of --preview takes no other file's place, and hinders no run that is resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srcli.batch.planning.inputs import FoundFile
from srcli.batch.planning.plan import BatchPlan
from srcli.batch.planning.preflight import check_preview_file
from srcli.errors import InputError, MachineError
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture
from tests.batch.fakes import draw, go, settings_for


def earlier(path: Path) -> Path:
    """A preview that an earlier run left."""
    write_picture(Picture(pixels=np.zeros((8, 8, 3), np.uint8)), path, provenance={"tool": "srcli", "preview": True})
    return path


def test_a_preview_of_an_earlier_run_is_in_nobody_s_way(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    look = earlier(tmp_path / "look.png")
    assert go(tmp_path, preview=str(look)).fate() == {"a.png": "done"}


@pytest.mark.parametrize(
    ("name", "why", "more"),
    [
        ("a.png", "is itself an input", {"on_exists": "overwrite"}),
        ("masks/a.png", "is itself an input", {"on_exists": "overwrite"}),
        ("a_x2.png", "is where a result is written", {"on_exists": "overwrite"}),
        ("photo.png", "exists and was not written by --preview: choose another name or --overwrite", {}),
        ("look.bmp", "is not the name of a picture file", {}),
        ("", "is not the name of a picture file", {}),
        ("look.png", "leave out --workers and --ray", {"workers": 2}),
        ("look.png", "leave out --workers and --ray", {"ray": "auto"}),
    ],
)
def test_no_file_is_lost_to_a_preview(tmp_path: Path, name: str, why: str, more: dict[str, object]) -> None:
    source, masks = draw(tmp_path / "a.png"), draw(tmp_path / "masks" / "a.png").parent
    draw(tmp_path / "photo.png", seed=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with pytest.raises(InputError, match=why):
        go(source, preview=name and str(tmp_path / name), mask=str(masks), **more)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_a_file_that_may_be_replaced_is_none_of_its_business(tmp_path: Path) -> None:
    source, photo = draw(tmp_path / "a.png"), draw(tmp_path / "photo.png")
    assert go(source, preview=str(photo), on_exists="overwrite").fate() == {"a.png": "done"}


def test_a_folder_that_takes_no_files_is_said_before_the_run(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.png")
    with pytest.raises(MachineError, match="is not a folder: give another --preview"):
        go(source, preview=str(source / "look.png"))


def test_a_folder_that_cannot_be_read_has_no_mask(tmp_path: Path) -> None:
    closed = BatchPlan([FoundFile(tmp_path, tmp_path, 0, problem=("unreadable", "closed"))])
    asked = settings_for(tmp_path, mask=str(draw(tmp_path / "masks" / "a.png").parent))
    look = tmp_path / "look.png"
    check_preview_file(look, asked, closed, lambda path: None)
    assert closed.claim(look, tmp_path / "a.png") == look
