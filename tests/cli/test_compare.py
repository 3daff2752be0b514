"""`srcli compare` from the command line: what is written, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from srcli.cli import app
from srcli.compare.layers import tint_guesses
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    truth = data.astronaut()[:256, :200]
    for name in ("p", "q"):
        put(tmp_path / "hr" / f"{name}.png", truth)
        put(tmp_path / "lr" / f"{name}.png", truth[::4, ::4])
        put(tmp_path / "a" / f"{name}_x4.png", np.roll(truth, 1, 0))
        put(tmp_path / "b" / f"{name}_x4.webp", np.roll(truth, 2, 0))
        truth = truth[::-1]
    put(tmp_path / "b" / "lonely.png", truth)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page_data(text):
    return json.loads(re.search(r'id="page-data">(.*?)</script>', text)[1])


def test_two_files_make_one_page_with_numbers_and_facts(scene):
    done = call("compare", "a/p_x4.png", "b/p_x4.webp", "-r", "hr/p.png", "--input", "lr/p.png")
    assert (done.exit_code, done.stdout) == (0, "compare.html\n")
    text = (scene / "compare.html").read_text()
    assert [p["name"] for p in page_data(text)["pictures"]] == ["p_x4.png", "p_x4.webp", "reference", "input"]
    assert "PSNR-Y" in text
    assert "rgb2ycbcr" in text
    assert re.findall(r"https?://", text) == []
    assert text.count('<script type="text/plain"') == 4


def test_folders_make_an_index_a_page_each_and_a_sheet(scene):
    done = call(
        "compare", "a", "b", "-r", "hr", "-o", "out", "--sheet", "sheet.png", "--crops", "2", "--crop-side", "64"
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == ["out/index.html", "out/p.html", "out/q.html", "sheet.png"]
    index = (scene / "out" / "index.html").read_text()
    assert index.count("<li>") == 2
    assert "a - b" in index
    with Image.open(scene / "sheet.png") as sheet:
        assert sheet.size == (3 * 68 - 4, 22 + 2 * (64 + 22 + 4))


def test_the_limit_of_pixels_can_be_set(scene):
    done = call("compare", "a/p_x4.png", "b/p_x4.webp", "--max-pixels", "51199")
    assert done.exit_code != 0
    assert "raise --max-pixels" in done.stderr
    assert call("compare", "a/p_x4.png", "b/p_x4.webp", "--max-pixels", "51200").exit_code == 0


def test_a_sheet_alone_writes_no_page(scene):
    assert call("compare", "a/p_x4.png", "b/p_x4.webp", "--sheet", "s.png").stdout == "s.png\n"
    assert not (scene / "compare.html").exists()


def put_map(path, size, **made):
    how = {"is_map": True, "input_sha256": "of-p", "map": {"versions": 2}} | made
    write_picture(Picture(pixels=np.full((*size, 3), 255, np.uint8), grey=True), path, provenance=how)


def test_a_map_beside_a_result_is_a_picture_of_the_page(scene):
    """One that is no map, of another picture or of another size is none."""
    result = Picture(pixels=np.full((40, 30, 3), 90, np.uint8))
    for name in ("ours", "none", "other", "size"):
        write_picture(result, scene / f"{name}.png", provenance={"tool": "srcli", "input_sha256": "of-p"})
    put_map(scene / "ours_map.png", (40, 30))
    put_map(scene / "none_map.png", (40, 30), is_map=False)
    put_map(scene / "other_map.png", (40, 30), input_sha256="of-q")
    put_map(scene / "size_map.png", (20, 30))
    assert call("compare", "ours.png", "none.png", "other.png", "size.png").exit_code == 0
    names = [p["name"] for p in page_data((scene / "compare.html").read_text())["pictures"]]
    assert names == ["ours.png", "none.png", "other.png", "size.png", "ours.png: guessed"]


def test_what_is_certain_is_grey_and_what_is_a_guess_orange():
    tinted = tint_guesses(np.full((1, 2, 3), (30, 60, 90), np.uint8), np.array([[0, 255]], np.uint8))
    assert tinted.tolist() == [[[36, 36, 36], [255, 96, 0]]]


def test_one_picture_against_its_reference(scene):
    assert call("compare", "a/p_x4.png", "-r", "hr/p.png").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("a",), 2, "nothing to compare with"),
        (("a", "b/p_x4.webp"), 2, "cannot be mixed"),
        (("a", "lost"), 2, "cannot be mixed"),
        (("a/p_x4.png", "lost.png"), 2, "lost.png does not exist"),
        (("a/p_x4.png", "b/p_x4.webp", "-o", "a/p_x4.png", "--overwrite"), 2, "is one of the pictures"),
        (("a/p_x4.png", "b/p_x4.webp", "-o", "there.html"), 2, "there.html exists: give --overwrite"),
        (("a/p_x4.png", "b/p_x4.webp", "--sheet", "there.png"), 2, "there.png exists: give --overwrite"),
        (("a/p_x4.png", "b/p_x4.webp", "-o", "there.html/x.html"), 5, "cannot be created"),
        (("a/p_x4.png", "wide.png"), 1, "differ in shape (200x256 and 256x100)"),
        (("a/p_x4.png", "broken.png"), 1, "broken.png"),
        (("a/p_x4.png", "b/p_x4.webp", "-o", "-"), 2, "cannot be written to stdout"),
        (("a/p_x4.png", "b/p_x4.webp", "-o", "b", "--overwrite"), 2, "-o b is a folder"),
        (("a", "b", "-o", "there.html", "--overwrite"), 2, "-o there.html is a file"),
        (("a", "b", "--crops", "0"), 2, "--crops 0 is out of range"),
        (("a/p_x4.png", "b/p_x4.webp", "--sheet", "s.txt"), 2, "does not write '.txt'"),
    ],
)
def test_mistakes_are_one_line(scene, words, code, message):
    put(scene / "wide.png", data.astronaut()[:100, :256])
    put(scene / "there.png", data.astronaut()[:9, :9])
    (scene / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (scene / "there.html").write_text("mine")
    done = call("compare", *words)
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1), done.output
    assert message in done.stderr
    assert (scene / "there.html").read_text() == "mine"


def test_a_picture_that_is_broken_fails_alone(scene):
    (scene / "b" / "p_x4.webp").write_bytes(b"RIFF\x00\x00\x00\x00WEBPnothing")
    done = call("compare", "a", "b", "-o", "out")
    assert done.exit_code == 3
    assert done.stdout.split() == ["out/index.html", "out/q_x4.html"]


def test_what_cannot_be_measured_is_shown_without_numbers(scene):
    put(scene / "hr" / "p.png", data.astronaut()[:512, :400])
    done = call("compare", "a/p_x4.png", "-r", "hr/p.png")
    assert done.exit_code == 0
    assert "p is shown without numbers" in done.stderr


def test_transparency_is_put_on_white_and_sixteen_bits_on_eight(scene):
    from srcli.compare.layers import to_opaque_bytes
    from srcli.imaging.picture import Picture

    pixels = np.array([[[0, 128 * 257, 65535]]], np.uint16)
    assert to_opaque_bytes(Picture(pixels=pixels)).tolist() == [[[0, 128, 255]]]
    half = np.array([[32768]], np.uint16)
    assert to_opaque_bytes(Picture(pixels=pixels, alpha=half)).tolist() == [[[127, 191, 255]]]
