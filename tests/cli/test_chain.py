"""A scan's whole way on tiny weights: scratches, tone, restoration, colour; each can be left out, all are recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tests.cli.conftest import Srcli
from tests.cli.test_colorize import RUN as DDCOLOR
from tests.cli.test_scratches import FEW, RUN

from srcli.imaging.provenance import read_provenance


def fade(path: Path) -> Path:
    """A grey picture of low contrast."""
    y, x = np.mgrid[0:40, 0:56]
    levels = 110 + 40 * np.sin(x / 5) * np.cos(y / 4)
    Image.fromarray(levels.astype(np.uint8)).save(path)
    return path


def test_restored_then_coloured_is_one_record(srcli: Srcli, tmp_path: Path) -> None:
    scan, restored, coloured = fade(tmp_path / "scan.png"), tmp_path / "restored.png", tmp_path / "coloured.png"
    assert srcli("restore-old-photo", scan, "-o", restored, *FEW).exit_code == 0
    assert srcli("colorize", restored, "-o", coloured, *DDCOLOR).exit_code == 0
    made = read_provenance(coloured)
    assert (made["task"], made["made from"]["task"]) == ("colorize", "restore-old-photo")
    assert set(made["made from"]["repaired"]) == {"damage", "tone"}
    assert made["made from"]["repaired"]["tone"]["from"][0][0] > 0.2
    again = srcli("colorize", restored, "-o", coloured, *DDCOLOR)
    assert "1 skipped" in again.output and again.exit_code == 0


def test_each_stage_can_be_left_out_and_is_named(srcli: Srcli, tmp_path: Path) -> None:
    scan = fade(tmp_path / "scan.png")

    def stages(*words: object) -> list[str]:
        done = srcli("restore-old-photo", scan, *words, "--explain", "--json")
        return json.loads(done.stdout.splitlines()[0])["stages"]

    assert stages(*FEW) == ["find scratches", "fill damage (patches)", "correct tone", "restore-old-photo (builtin)"]
    assert stages(*RUN, "--tone", "none") == ["restore-old-photo (builtin)"]
    out = tmp_path / "out.png"
    assert srcli("restore-old-photo", scan, "-o", out, *RUN, "--tone", "none").exit_code == 0
    assert "repaired" not in read_provenance(out)
