"""--mask auto from the command line, on a tiny detector: what is written, what is filled, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.conftest import Srcli
from tests.golden.cases import HERE

from srcli.imaging.provenance import read_provenance
from srcli.imaging.read import read_picture
from srcli.weights.open import load_state

DETECTOR = HERE / "scratch" / "tiny" / "model.safetensors"
PASD_PART = HERE / "ddcolor" / "tiny" / "model.safetensors"
RUN = ("--engine", "builtin", "--device", "cpu", "--dtype", "float32", "--threads", 1, "--offline")
AUTO = (*RUN, "--mask", "auto", "--mask-model", DETECTOR, "--mask-side", 64)
FEW = (*AUTO, "--mask-threshold", 0.985)  # random weights mark a few percent of a picture
MANY = (*AUTO, "--mask-threshold", 0.1)


def mend(srcli: Srcli, photo: Path, *words: object) -> tuple[str, Path]:
    done = srcli("restore-old-photo", photo, "-o", photo.with_name("out.png"), *words)
    assert done.exit_code == 0, done.output
    return done.stderr, photo.with_name("out_mask.png")


def test_what_was_found_is_filled_told_and_written(srcli: Srcli, photo: Path) -> None:
    said, mask = mend(srcli, photo, *FEW)
    assert "% was taken for scratches and filled, see" in said and str(mask) in said
    marks = read_picture(mask)
    assert (marks.width, marks.height, marks.grey) == (56, 40, True)
    assert set(np.unique(marks.pixels)) == {0, 255}
    made = read_provenance(photo.with_name("out.png"))["repaired"]["damage"]
    assert made["filled"] and made["percent"] == pytest.approx(100 * (marks.pixels > 0).mean(), abs=0.01)
    assert made["file"] == mask.name and made["sha256"] == marks.sha256
    assert any(name.startswith("model") for name in made["models"])


def test_how_to_fill_means_nothing_without_a_mask(srcli: Srcli, photo: Path) -> None:
    done = srcli("restore-old-photo", photo, *RUN, "--fill", "smooth")
    assert (done.exit_code, done.stderr) == (2, "srcli: --fill smooth goes with --mask: give both\n")


def test_the_mask_can_be_given_back(srcli: Srcli, photo: Path) -> None:
    _, mask = mend(srcli, photo, *FEW)
    found = read_picture(photo.with_name("out.png")).pixels
    mend(srcli, photo, *RUN, "--mask", mask, "--overwrite")
    np.testing.assert_array_equal(read_picture(photo.with_name("out.png")).pixels, found)


def test_much_is_marked_and_not_filled_unless_allowed(srcli: Srcli, photo: Path) -> None:
    said, mask = mend(srcli, photo, *MANY)
    plain = read_picture(photo.with_name("out.png")).pixels
    assert "too much to be filled unseen" in said and "raise --mask-limit 25" in said and mask.exists()
    assert not read_provenance(photo.with_name("out.png"))["repaired"]["damage"]["filled"]
    said, _ = mend(srcli, photo, *MANY, "--mask-limit", 100, "--overwrite")
    assert "and filled" in said
    assert (read_picture(photo.with_name("out.png")).pixels != plain).any()


def test_an_edited_mask_stays(srcli: Srcli, photo: Path) -> None:
    _, mask = mend(srcli, photo, *FEW)
    Image.new("L", (56, 40), 255).save(mask)
    edited = mask.read_bytes()
    said, _ = mend(srcli, photo, *FEW, "--overwrite")
    assert mask.read_bytes() == edited and "out_mask-2.png" in said


def test_a_batch_resumes_and_leaves_masks_out(srcli: Srcli, photo: Path) -> None:
    folder = photo.parent
    (folder / "b.png").write_bytes(photo.read_bytes() + b"")
    first = srcli("restore-old-photo", folder, *FEW, "--json")
    assert first.exit_code == 0, first.output
    assert (folder / "photo_restored_mask.png").exists()
    again = srcli("restore-old-photo", folder, *FEW, "--json")
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert {e.get("status") for e in events if e.get("event") == "picture"} <= {"skipped"}
    back = srcli("restore-old-photo", folder, *RUN, "--mask", folder, "-o", folder / "again", "--json")
    assert (back.exit_code, "no mask in" in back.output) == (2, False), back.output


def test_masks_beside_results_are_found_by_their_names(srcli: Srcli, photo: Path) -> None:
    out = photo.parent / "out"
    assert srcli("restore-old-photo", photo, *FEW, "-o", f"{out}/").exit_code == 0
    again = srcli("restore-old-photo", photo, *RUN, "--mask", out, "-o", f"{photo.parent}/again/")
    assert again.exit_code == 0 and "no mask" not in again.stderr
    made = read_provenance(photo.parent / "again" / "photo_restored.png")
    assert made["repaired"]["damage"]["by"] == "hand"


def test_the_page_of_a_comparison_shows_the_mask(srcli: Srcli, photo: Path) -> None:
    mend(srcli, photo, *FEW)
    page = photo.with_name("page.html")
    done = srcli("compare", photo, photo.with_name("out.png"), "-o", page)
    assert done.exit_code == 0, done.output
    assert "mask of out" in page.read_text()


def test_the_official_pickle_is_converted_once(srcli: Srcli, photo: Path) -> None:
    pickle = photo.with_name("FT_Epoch_latest.pt")
    torch.save({"epoch": 3, "model_state": load_state(DETECTOR), "optimizer_state": {"state": {}}}, pickle)
    words = ("restore-old-photo", photo, "--overwrite", *FEW, "--mask-model", pickle)
    refused = srcli(*words)
    assert (refused.exit_code, "--allow-pickle" in refused.stderr) == (4, True)
    assert srcli(*words, "--allow-pickle").exit_code == 0
    assert srcli(*words).exit_code == 0


@pytest.mark.parametrize(
    ("code", "said", "options"),
    [
        (4, "holds no scratch detector", (*RUN, "--mask", "auto", "--mask-model", PASD_PART)),
        (4, "scratch-detector needs 452 MB from the Hub and the network is forbidden", (*RUN, "--mask", "auto")),
        (2, "--mask-limit goes with --mask auto", (*RUN, "--mask-limit", 3)),
        (2, "--mask-limit 101 is out of range", (*AUTO, "--mask-limit", 101)),
        (2, "--mask-side 100 is not a multiple of 16", (*RUN, "--mask", "auto", "--mask-side", 100)),
        (2, "no such mask automatic", (*RUN, "--mask", "automatic")),
    ],
)
def test_what_cannot_be_meant_is_one_line(srcli: Srcli, photo: Path, code: int, said: str, options: tuple) -> None:
    done = srcli("restore-old-photo", photo, *options)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("using", "0%"))]
    assert (done.exit_code, len(lines)) == (code, 1), done.stderr
    assert said in lines[0]
