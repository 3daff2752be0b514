"""A test set's small pictures, made from sharp ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from srcli.errors import InputError, MachineError, PictureError
from srcli.evaluate.pairs import find_pictures
from srcli.files import exists, same
from srcli.imaging.names import shown
from srcli.imaging.picture import Picture
from srcli.imaging.read import read_picture
from srcli.imaging.write import write_picture
from srcli.metrics.matlab import reduce_bicubic

Degrade = Callable[[NDArray[Any], Generator], NDArray[Any]]
PRESETS = ("bicubic-xN",)
_BICUBIC = re.compile(r"bicubic-x(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture: where its small one is, or why there is none."""

    source: Path
    target: Path | None
    message: str = ""


def find_preset(name: str) -> Degrade:
    """The degradation of this name. Raises InputError."""
    if found := _BICUBIC.fullmatch(name):
        scale = int(found[1])
        if scale >= 1:
            return lambda pixels, rng: reduce_bicubic(pixels, scale)
    raise InputError(f"no preset {name!r}: choose of {', '.join(PRESETS)}, N a number from 1 to 99")


def make_test_set(source: Path, folder: Path, preset: str, seed: int, overwrite: bool) -> Iterator[Outcome]:
    """Write NAME.png into the folder for each picture of the source, one after the other."""
    degrade = find_preset(preset)
    if same(source, folder):
        raise InputError(f"{shown(folder)} is the folder of the sharp pictures: give -o another one")
    for name, path in find_pictures(source).items():
        target = folder / f"{name}.png"
        if exists(target) and not overwrite:
            yield Outcome(path, None, f"{shown(target)} exists: give --overwrite or another folder")
            continue
        try:
            _degrade_file(path, target, degrade, random_for(name, seed))
            yield Outcome(path, target)
        except PictureError as error:
            yield Outcome(path, None, str(error))


def random_for(name: str, seed: int) -> Generator:
    """Random numbers that follow from seed and name, so that adding a picture changes no other."""
    return np.random.default_rng([seed, *hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()])


def _degrade_file(source: Path, target: Path, degrade: Degrade, rng: Generator) -> None:
    """Pixels in sRGB and nothing else: what the file said besides is true of the sharp picture."""
    picture = read_picture(source)
    small = degrade(picture.pixels, rng)
    if 0 in small.shape:
        raise PictureError(f"{shown(source)} is too small to be reduced so far: leave it out", "size")
    make_folder(target.parent)
    write_picture(Picture(pixels=small, grey=picture.grey), target)


def make_folder(folder: Path) -> None:
    """The folder and those above it. Raises MachineError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{shown(folder)} cannot be made ({error.strerror}): give another folder") from error
