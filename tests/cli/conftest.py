"""A way to run srcli as a user would, in this process, and the tiny models to run it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from srcli.cli import app

TINY = Path(__file__).parents[1] / "golden" / "pasd" / "tiny"
PASD = ("--engine", "pasd", "--base-model", TINY / "base", "--adapter", TINY / "pasd", "--caption", "none")
QUICK = ("--steps", 2, "--process-size", 64, "--dtype", "float32", "--threads", 1)
COLOR = (*PASD[:4], "--adapter", TINY / "pasd_light", "--caption", "none")

Srcli = Callable[..., Result]


@pytest.fixture
def srcli() -> Srcli:
    def run(*words: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], input=stdin)

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small picture with something in it."""
    y, x = np.mgrid[0:40, 0:56]
    pixels = np.stack([4 * x, 6 * y, 128 + 60 * np.sin(x / 3) * np.cos(y / 4)], axis=2)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path
