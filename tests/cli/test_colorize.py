"""colorize with DDColor from the command line, on tiny weights: every kind of picture, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.conftest import COLOR, QUICK, Srcli
from tests.golden.cases import HERE

from srcli.imaging.color import compute_luminance
from srcli.imaging.read import read_picture
from srcli.weights.open import load_state

MODEL = HERE / "ddcolor" / "tiny" / "model.safetensors"
SR3 = HERE / "sr3" / "tiny" / "sr3_tiny.safetensors"
TINY = ("--engine", "ddcolor", "--process-size", 64, "--dtype", "float32", "--threads", 1)
RUN = (*TINY, "--adapter", MODEL)


def grey(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    unit = (x / max(1, width - 1) + np.sin(y / 3) ** 2) / 2
    return np.rint(unit * np.iinfo(dtype).max).astype(dtype)


def write(path: Path, levels: np.ndarray, mode: str | None = None) -> Path:
    made = Image.fromarray(levels)
    (made.convert(mode) if mode else made).save(path)
    return path


PICTURES = {
    "grey8": (grey(40, 56), "grey8.png"),
    "grey16": (grey(40, 56, np.uint16), "grey16.png"),
    "tiny": (grey(1, 3), "tiny.png"),
    "panorama": (grey(20, 700), "panorama.png"),
    "tall": (grey(300, 9), "tall.png"),
    "cmyk": (grey(40, 56), "cmyk.tif"),
    "alpha": (grey(40, 56), "alpha.png"),
    "colour": (np.dstack([grey(40, 56), grey(40, 56).T[:40, :40].repeat(2, 1)[:, :56], grey(40, 56)]), "colour.png"),
}
MODES = {"cmyk": "CMYK", "alpha": "LA"}


@pytest.mark.parametrize("kind", PICTURES)
def test_luminance_is_kept_to_the_last_bit(srcli: Srcli, tmp_path: Path, kind: str) -> None:
    levels, name = PICTURES[kind]
    path, out = write(tmp_path / name, levels, MODES.get(kind)), tmp_path / "out.png"
    done = srcli("colorize", path, "-o", out, *RUN, "--saturation", 0.8)
    assert done.exit_code == 0, done.output
    source, made = read_picture(path), read_picture(out)
    assert made.pixels.dtype == source.pixels.dtype
    if kind != "cmyk":  # the profile-less CMYK source comes back in another space
        np.testing.assert_array_equal(compute_luminance(made.pixels), compute_luminance(source.pixels))
    assert (made.alpha is None) == (source.alpha is None)
    assert np.ptp(made.pixels, 2).max() > 0
    assert ("has colours" in done.stderr) == (kind == "colour")


def test_black_stays_black(srcli: Srcli, tmp_path: Path) -> None:
    path, out = write(tmp_path / "black.png", np.zeros((30, 40), np.uint8)), tmp_path / "out.png"
    assert srcli("colorize", path, "-o", out, *RUN).exit_code == 0
    assert read_picture(out).pixels.max() < 5  # a blue that is too dark to have a luminance


def test_no_saturation_is_the_picture_itself(srcli: Srcli, tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.png", grey(33, 21)), tmp_path / "out.png"
    assert srcli("colorize", path, "-o", out, *RUN, "--saturation", 0).exit_code == 0
    np.testing.assert_array_equal(read_picture(out).pixels, read_picture(path).pixels)


@pytest.mark.parametrize("wrapped", [True, False], ids=["params", "plain"])
def test_a_pickle_is_converted_once(srcli: Srcli, tmp_path: Path, photo: Path, wrapped: bool) -> None:
    state, pickle = load_state(MODEL), tmp_path / "ddcolor.pth"
    torch.save({"params": state} if wrapped else state, pickle)
    words = ("colorize", photo, *TINY, "--adapter", pickle, "--overwrite")
    refused = srcli(*words)
    assert (refused.exit_code, "--allow-pickle" in refused.stderr) == (4, True)
    assert srcli(*words, "--allow-pickle").exit_code == 0
    assert srcli(*words).exit_code == 0


@pytest.mark.parametrize(
    ("code", "said", "options"),
    [
        (4, "of widths 8, 12, 16, 24: leave out --variant large", (*RUN, "--variant", "large")),
        (2, "choose one of tiny, large, artistic", (*RUN, "--variant", "huge")),
        (
            4,
            "holds no DDColor network",
            (*TINY, "--adapter", SR3),
        ),
        (2, "--steps means nothing to the ddcolor engine", (*RUN, "--steps", 4)),
        (2, "--prompt means nothing to the ddcolor engine", (*RUN, "--prompt", "a red dress")),
        (2, "--saturation 9 is out of range", (*RUN, "--saturation", 9)),
        (2, "--chroma-upsampling means nothing to the pasd engine", (*COLOR, *QUICK, "--chroma-upsampling", "joint")),
    ],
)
def test_what_does_not_fit_is_one_line(srcli: Srcli, photo: Path, code: int, said: str, options: tuple) -> None:
    done = srcli("colorize", photo, *options)
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1), done.stderr
    assert said in done.stderr


def test_the_file_says_which_engine_it_is_for(srcli: Srcli, photo: Path) -> None:
    done = srcli("colorize", photo, "--adapter", MODEL, "--explain", "--json")
    assert '"engine": "ddcolor"' in done.stdout, done.output


def test_only_colorize_has_colour_to_strengthen(srcli: Srcli, photo: Path) -> None:
    assert srcli("upscale", photo, "--saturation", 2).exit_code == 2


def strokes_on(path: Path, size: tuple[int, int] | None = None) -> Path:
    """A copy with one red stroke."""
    with Image.open(path) as picture:
        copy = picture.convert("RGB").resize(size or picture.size)
    copy.paste((200, 30, 30), (2, 4, 20, 8))
    hint = path.with_name(f"{path.stem}-hint.png")
    copy.save(hint)
    return hint


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strokes_need_no_weights(srcli: Srcli, tmp_path: Path, dtype: type) -> None:
    path, out = write(tmp_path / "a.png", grey(40, 56, dtype)), tmp_path / "out.png"
    hint = strokes_on(write(tmp_path / "b.png", grey(40, 56)))
    done = srcli("colorize", path, "-o", out, "--hint", hint, "--device", "cpu", "--offline")
    assert done.exit_code == 0, done.output
    source, made = read_picture(path), read_picture(out)
    np.testing.assert_array_equal(compute_luminance(made.pixels), compute_luminance(source.pixels))
    assert made.pixels.dtype == dtype and np.ptp(made.pixels, 2).max() > 0
    assert b"strokes" in out.read_bytes() and b"manual" in out.read_bytes()


def test_strokes_go_over_a_network_s_answer(srcli: Srcli, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", grey(40, 56))
    hint, reference = strokes_on(path), strokes_on(write(tmp_path / "r.png", grey(20, 30)))
    made = []
    for words in ((), ("--hint", hint), ("--reference", reference), ("--hint", hint, "--reference", reference)):
        assert srcli("colorize", path, "-o", tmp_path / "out.png", *RUN, *words, "--overwrite").exit_code == 0
        made.append(read_picture(tmp_path / "out.png").pixels.tobytes())
    assert len(set(made)) == 4


@pytest.mark.parametrize(
    ("code", "said", "options"),
    [
        (1, "no strokes", ("--hint", "a.png")),
        (1, "the hint is 30x20, the picture 56x40", ("--hint", "small")),
        (1, "the reference has no colours", ("--reference", "r.png")),
        (2, "no such hint gone.png", ("--hint", "gone.png")),
        (2, "adds no colour itself: give --hint or --reference", ("--engine", "manual")),
        (4, "srcli models pull ddcolor-tiny", ("--device", "cpu", "--offline")),
    ],
)
def test_what_leads_nowhere_is_one_line(
    srcli: Srcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str, options: tuple
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "in.png", grey(40, 56))
    write(tmp_path / "a.png", grey(40, 56))
    write(tmp_path / "r.png", grey(20, 30))
    strokes_on(path, (30, 20)).rename(tmp_path / "small")
    done = srcli("colorize", path, *options)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("using", "0%"))]
    assert (done.exit_code, len(lines)) == (code, 1), done.stderr
    assert said in lines[0]
