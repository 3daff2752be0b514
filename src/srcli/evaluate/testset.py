"""Make the small pictures of a test set from sharp ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.degrade.settings import NONE, Degradation
from srcli.errors import InputError, PictureError
from srcli.evaluate.pairs import index_pictures
from srcli.files import is_file, make_folder, path_exists, same_file
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable
from srcli.imaging.read import read_picture
from srcli.imaging.write import write_picture
from srcli.metrics.matlab import reduce_bicubic

SeedKey = tuple[int, ...]
Degrade = Callable[[NDArray[Any], SeedKey], NDArray[Any]]
_BICUBIC = re.compile(r"bicubic-x([1-9]\d?)")


@dataclass(frozen=True, slots=True)
class TestsetPicture:
    """The outcome for one picture: the path of the small one, or why there is none."""

    source: Path
    target: Path | None
    message: str = ""


def find_preset(name: str) -> Degrade:
    """The degradation of this name: bicubic-xN, or one of `srcli.degrade`. Raises InputError."""
    if found := _BICUBIC.fullmatch(name):
        scale = int(found[1])
        return lambda pixels, key: reduce_bicubic(pixels, scale)
    from srcli.degrade.presets import find_degradation

    if name.startswith("bicubic"):
        raise InputError(f"no preset {name!r}: choose bicubic-xN, N a number from 1 to 99")
    settings = replace(find_degradation(name, ["bicubic-xN"]), back=NONE, crop=None, clean=0.0)
    return lambda pixels, key: _run_chain(pixels, settings, key)


def _run_chain(pixels: NDArray[Any], settings: Degradation, key: SeedKey) -> NDArray[Any]:
    """Degrade the whole picture as in training; the result has 8 bits."""
    import torch

    from srcli.degrade.chain import SMALLEST, degrade_pictures
    from srcli.degrade.draws import SeededDraws

    height, width = (side // settings.scale * settings.scale for side in pixels.shape[:2])
    if min(height, width) < SMALLEST:
        raise PictureError(
            f"pictures below {SMALLEST} pixels a side cannot be degraded like this: leave it out", "size"
        )
    unit = pixels[:height, :width].astype(np.float32) / np.iinfo(pixels.dtype).max
    sharp = torch.from_numpy(unit).permute(2, 0, 1)[None]
    with torch.inference_mode():
        small = degrade_pictures(sharp, settings, SeededDraws.of(*key)).degraded[0]
    return np.asarray((small * 255).round().permute(1, 2, 0).to(torch.uint8).numpy())


def make_test_set(source: Path, folder: Path, preset: str, seed: int, overwrite: bool) -> Iterator[TestsetPicture]:
    """Write NAME.png to the folder for each picture of the source."""
    degrade = find_preset(preset)
    if folder == Path("-") or is_file(folder):
        raise InputError(f"-o {printable(folder)} is not a folder: name one for the small pictures")
    if same_file(source, folder):
        raise InputError(f"{printable(folder)} is the folder of the sharp pictures: give -o another one")
    for name, path in index_pictures(source).items():
        target = folder / f"{name}.png"
        if path_exists(target) and not overwrite:
            yield TestsetPicture(path, None, f"{printable(target)} exists: give --overwrite or another folder")
            continue
        try:
            _degrade_file(path, target, degrade, key_of(name, seed))
            yield TestsetPicture(path, target)
        except PictureError as error:
            yield TestsetPicture(path, None, str(error))


def key_of(name: str, seed: int) -> SeedKey:
    """The key for random numbers, from seed and name, so that adding a picture changes no other."""
    return (seed, *hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())


def _degrade_file(source: Path, target: Path, degrade: Degrade, key: SeedKey) -> None:
    """Write only pixels in sRGB: the metadata describe the sharp picture."""
    picture = read_picture(source)
    small = degrade(picture.pixels, key)
    if 0 in small.shape:
        raise PictureError(f"{printable(source)} is too small to be reduced this much: leave it out", "size")
    make_folder(target.parent)
    write_picture(Picture(pixels=small, grey=picture.grey), target)
