"""`--frames all`: every page or frame of a file is a picture of its own, from naming to resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest
from PIL import Image

from srcli.batch.journal.previous_runs import summarize_journal
from srcli.errors import InputError
from srcli.imaging.read import count_frames, read_picture
from tests.batch.fakes import draw, go
from tests.unit.imaging.builders import noise, saved, tiff

PAGES = [noise(6 + page, 9)[:, ::-1] // (page + 1) for page in range(3)]


def scan(path: Path) -> Path:
    """Three pages of different sizes, with an artist and a resolution."""
    first, *rest = map(Image.fromarray, PAGES)
    tags = Image.Exif()
    tags[0x13B] = "Ada"
    first.save(path, save_all=True, append_images=rest, exif=tags, dpi=(300, 300))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_each_page_is_made_once_and_keeps_its_metadata(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    scan(source / "scan.tif")
    draw(source / "photo.png")
    (source / "anim.gif").write_bytes(
        saved(Image.new("L", (8, 5)), "GIF", save_all=True, append_images=[Image.new("L", (8, 5), 9)])
    )
    heard = go(source, path=str(out), frames="all")
    pages = [f"scan_p00{page}_x2.tif" for page in (1, 2, 3)]
    assert names(out) == ["anim_p001_x2.png", "anim_p002_x2.png", "photo_x2.png", *pages]
    assert (heard.report.done, heard.report.exit_code, heard.total) == (6, 0, 6)
    for page, name in zip(PAGES, pages, strict=True):
        made = read_picture(out / name)
        assert made.pixels.shape == (2 * len(page), 18, 3)
        assert (made.pixels[1::2, 1::2] == page).all(), "each is made of its own page"
        assert made.metadata.dpi == (300, 300)
    assert b"Ada" in read_picture(out / pages[0]).metadata.exif
    (out / pages[1]).unlink()
    again = go(source, path=str(out), frames="all")
    assert (again.report.done, again.report.skipped) == (1, 5)
    assert [outcome.target.name for outcome in again.outcomes if outcome.status == "done"] == [pages[1]]
    assert summarize_journal(out).done == 6
    assert go(source, path=str(out), frames="all", seed=1).report.done == 6, "our own results make way"


def test_a_single_file_gives_numbered_names(tmp_path: Path) -> None:
    heard = go(scan(tmp_path / "scan.tif"), path=str(tmp_path / "new.png"), frames="all")
    assert heard.report.done == 3
    assert names(tmp_path) == ["new_p001.png", "new_p002.png", "new_p003.png", "scan.tif"]
    with pytest.raises(InputError, match="takes one picture"):
        go(tmp_path / "scan.tif", path="-", frames="all")


def test_a_file_that_cannot_be_counted_fails_for_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + bytes(9))
    scan(tmp_path / "b.tif")
    heard = go(tmp_path, frames="all")
    assert (heard.report.failed, heard.report.done) == (1, 3)


def test_previews_and_masks_of_a_tiff_are_no_pages(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(noise(5, 6), pages=3, subfile=1))
    (tmp_path / "b.tif").write_bytes(tiff(noise(5, 6), pages=3))
    assert (count_frames(tmp_path / "a.tif"), count_frames(tmp_path / "b.tif")) == (1, 3)


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True}), ("PNG", {}), ("AVIF", {"quality": 100})])
def test_frames_of_animations(kind, options, tmp_path):
    frames = [Image.new("RGB", (16, 8), (value, 0, 255 - value)) for value in (0, 120, 240)]
    path = tmp_path / "a"
    path.write_bytes(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert count_frames(path) == 3
    for number, frame in enumerate(frames, 1):
        found = read_picture(path, frames="all", frame=number).pixels
        assert np.abs(found.astype(int) - np.asarray(frame)).max() < 6


def test_a_page_of_floats_is_its_own(tmp_path: Path) -> None:
    path, values = str(tmp_path / "a.tif"), (0.25, 0.75)
    spec, out = oiio.ImageSpec(5, 4, 1, "float"), oiio.ImageOutput.create(path)
    for number, value in enumerate(values):
        assert out.open(path, spec, "AppendSubimage" if number else "Create")
        assert out.write_image(np.full((4, 5, 1), value, np.float32))
    out.close()
    for number, value in enumerate(values, 1):
        found = read_picture(Path(path), frames="all", frame=number)
        assert (found.pixels == round(value * 65535)).all()
        assert not any("first of" in note for note in found.notes)
