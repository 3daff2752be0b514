"""The pictures of a training folder: found and checked by their headers, and decoded one at a time on use."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import InputError, PictureError
from srcli.files import is_dir, is_file
from srcli.imaging.formats import is_format_suffix
from srcli.imaging.printable import printable
from srcli.imaging.read import read_picture, read_size

log = logging.getLogger(__name__)

NAMED = 3  # problems of a kind that are reported one by one
MAX_CAPTION = 10_000  # bytes


@dataclass(frozen=True, slots=True)
class PictureFile:
    """One picture and its size, from its header."""

    path: Path
    width: int
    height: int

    @property
    def short(self) -> int:
        return min(self.width, self.height)


@dataclass(frozen=True)
class Survey:
    """The pictures of a folder: usable, too small, and unreadable ones."""

    folder: Path
    usable: tuple[PictureFile, ...]
    small: tuple[Path, ...]
    unreadable: tuple[str, ...]

    def report(self, least: int) -> None:
        """Report the number of usable pictures, and the names of those that are left out."""
        log.info(f"{len(self.usable)} pictures in {printable(self.folder)}")
        small = [f"{printable(path)} is smaller than {least} pixels" for path in self.small]
        for reasons in (small, list(self.unreadable)):
            for reason in reasons[:NAMED]:
                log.info(f"left out: {reason}")
            if len(reasons) > NAMED:
                log.info(f"left out: {len(reasons) - NAMED} more like it")


def require_data_folder(folder: Path | None) -> Path:
    """Raise InputError if this is no folder; costs nothing, so it comes before weights are fetched."""
    if folder is None:
        raise InputError("--data is missing: give it a folder of pictures")
    if not is_dir(folder):
        raise InputError(f"no such folder {printable(folder)}: give --data a folder of pictures")
    return folder


def survey_pictures(folder: Path, least: int = 1) -> Survey:
    """All pictures below a folder, in the order of their names, of at least `least` pixels a side.

    Raises InputError if there are none.
    """
    require_data_folder(folder)
    usable, small, unreadable = list[PictureFile](), list[Path](), list[str]()
    for path in _picture_paths(folder):
        try:
            width, height = read_size(path)
        except PictureError as error:
            unreadable.append(str(error))
            continue
        if min(width, height) < least:
            small.append(path)
        else:
            usable.append(PictureFile(path, width, height))
    found = Survey(folder, tuple(usable), tuple(small), tuple(unreadable))
    if not usable:
        raise InputError(_explain_none(found, least))
    return found


def _picture_paths(folder: Path) -> list[Path]:
    """All pictures, sorted by name. Links to folders are not followed, hidden files are skipped."""
    paths = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(root, name) for name in files if not name.startswith(".")]
    return sorted(path for path in paths if is_format_suffix(path.suffix))


def _explain_none(found: Survey, least: int) -> str:
    where = printable(found.folder)
    if found.small:
        return f"{where}: all {len(found.small)} pictures are smaller than {least} pixels: give larger ones"
    if found.unreadable:
        return f"{where}: none of {len(found.unreadable)} pictures can be read, such as: {found.unreadable[0]}"
    return f"{where} holds no pictures: give --data a folder of pictures"


def read_as_tensor(path: Path) -> Tensor:
    """Read a picture as (3, h, w) float32 in 0..1, upright and in sRGB. Raises PictureError."""
    return to_unit(read_picture(path, frames="first").pixels)


def to_unit(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """Convert (h, w, 3) integers to contiguous (3, h, w) floats in 0..1.

    Contiguous because torch's group norm crashes in its backward pass on channels-last input on the CPU.
    """
    levels = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    return torch.from_numpy(levels / np.float32(np.iinfo(pixels.dtype).max))


def to_levels(picture: Tensor) -> NDArray[np.uint8]:
    """Convert (3, h, w) in 0..1 to (h, w, 3) 8-bit integers."""
    return (picture.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def read_caption(picture: Path) -> str:
    """The text of NAME.txt beside a picture, as one line; "" if there is no such file. Raises InputError."""
    path = picture.with_suffix(".txt")
    if not is_file(path):
        return ""
    try:
        with path.open("rb") as file:
            return " ".join(file.read(MAX_CAPTION).decode("utf-8-sig").split())
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{printable(path)} is not UTF-8 text: save it as UTF-8 or remove it") from error


def check_captions(files: Sequence[PictureFile]) -> int:
    """Count the pictures with a caption. Raises InputError for a caption that is not text."""
    return sum(bool(read_caption(file.path)) for file in files)
