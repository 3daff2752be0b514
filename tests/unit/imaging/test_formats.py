"""The table of formats: a row is all that a format needs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.batch.fakes import go
from tests.toy import text_format

from srcli.api import Result, read_source
from srcli.errors import PictureError
from srcli.imaging.formats import FORMATS, check_format_limits, suffix_for, usual_suffix
from srcli.imaging.read import read_size

TOY = b"TOY 3 2\n" + b" ".join(b"%d" % level for level in range(18))
ROWS = list(FORMATS.values())


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture of a format that one row adds, here and in reading processes."""
    monkeypatch.setitem(FORMATS, "TOY", text_format.ROW)
    (tmp_path / "site").mkdir()
    source = Path(text_format.__file__).read_text(encoding="utf-8")
    (tmp_path / "site" / "sitecustomize.py").write_text(f"{source}\nregister()\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.toy").write_bytes(TOY)
    return tmp_path / "in" / "a.toy"


def test_a_format_of_one_row_goes_through_the_api(toy):
    picture = read_source(toy)
    assert picture.pixels.ravel().tolist() == list(range(18)) and picture.lossless and read_size(toy) == (3, 2)
    Result(picture, {"tool": "test"}).save(toy.with_name("b.toy"))
    assert toy.with_name("b.toy").read_bytes() == TOY


def test_a_format_of_one_row_goes_through_a_batch(toy):
    heard = go(toy.parent, path=str(toy.parents[1] / "out"))
    assert heard.fate() == {"a.toy": "done"}
    assert any("read as words" in note for note in heard.notes)
    assert read_source(toy.parents[1] / "out" / "a_x2.toy").pixels.shape == (4, 6, 3)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_make_sense(row):
    re.compile(row.magic)
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in row.suffixes + row.other_suffixes)
    assert suffix_for(f"a{row.suffixes[0]}") == usual_suffix(row)
    assert row.write or not (row.alpha or row.deep or row.cmyk or row.quality), "a column of writing says nothing"
    assert (row.quality is None) == (row.lossless is True) or row.write is None


def test_no_suffix_is_of_two_formats():
    suffixes = [suffix for row in ROWS for suffix in row.suffixes + row.other_suffixes]
    assert len(suffixes) == len(set(suffixes))


def test_a_bitmap_has_a_limit_of_bytes():
    check_format_limits(FORMATS["BMP"], 30_000, 40_000)
    with pytest.raises(PictureError, match="cannot hold"):
        check_format_limits(FORMATS["BMP"], 40_000, 40_000)
