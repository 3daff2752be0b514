"""Read files by Pillow, and pixel types that it does not support by the format's `read_deep`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from srcli import messages
from srcli.errors import PictureError
from srcli.imaging import exif
from srcli.imaging.decode import SNIFFED_BYTES, BeyondPillow, Decoded, MissingPackage, ReadOptions, decode_channels
from srcli.imaging.metadata import collect_metadata, read_exif
from srcli.imaging.tiff_reader_checks import find_pages

if TYPE_CHECKING:
    from srcli.imaging.format_base import Format

# Pillow's limits are global to the process.
_LOCK = threading.RLock()
_LONGEST_HEADER = 1 << 26  # bytes of a refused file that are searched for the reason


def read_with_pillow(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    """Decode an open file. Raises PictureError, or any error that Pillow raises for damaged files."""
    file.seek(0)
    bits = row.bits(file.read(SNIFFED_BYTES))
    with pillow_limits(options.max_pixels, options.lenient) as caught, _silence(row):
        try:
            picture = open_with_pillow(file, row)
        except BeyondPillow as error:
            return _read_beyond(file, row, options, error)
        place, notes = _choose_frame(picture, options)
        picture.seek(place)
        options = replace(options, place=place)
        if bits > 8 and row.read_deep is not None:
            try:
                return _read_deep(file, row, options, picture, notes)
            except MissingPackage as error:
                notes.append(f"its {bits} bits a channel were read as 8: pip install 'srcli[{error.extra}]' reads all")
            except PictureError:  # not supported by that reader either: use Pillow's 8 bits
                notes.append(f"its {bits} bits a channel were read as 8")
        found = _read_channels(file, row, options, picture, notes)
    if any("EXIF" in str(w.message) for w in caught):
        found.notes.append("its EXIF data is damaged in part")
    return found


def _read_channels(
    file: IO[bytes], row: Format, options: ReadOptions, picture: ImageFile.ImageFile, notes: list[str]
) -> Decoded:
    try:
        found = decode_channels(picture, lambda: _reopen(file, row, options.place))
    except BeyondPillow as error:
        return _read_beyond(file, row, options, error, picture)
    found.metadata, left_out = collect_metadata(picture)
    found.profile = _profile_of(picture)
    found.orientation = 1 if row.upright else exif.read_orientation(found.metadata.exif)
    found.notes = [*notes, *found.notes, *left_out]
    return found


def _read_deep(
    file: IO[bytes], row: Format, options: ReadOptions, picture: ImageFile.ImageFile | None, notes: list[str]
) -> Decoded:
    """The pixels of `read_deep` with Pillow's metadata."""
    if row.read_deep is None:
        raise PictureError("its pixel type is not supported", "unsupported")
    found = row.read_deep(file, row, options)
    if picture is not None:
        found.metadata = collect_metadata(picture)[0]
        found.profile = found.profile or _profile_of(picture)
    if not row.upright:
        found.orientation = exif.read_orientation(found.metadata.exif)
    found.notes = [*notes, *found.notes]
    return found


def _profile_of(picture: Image.Image) -> bytes:
    profile = picture.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else b""


def _read_beyond(
    file: IO[bytes],
    row: Format,
    options: ReadOptions,
    error: BeyondPillow,
    picture: ImageFile.ImageFile | None = None,
) -> Decoded:
    """Read with `read_deep` what Pillow cannot open; if that fails too, raise Pillow's more specific reason."""
    try:
        return _read_deep(file, row, options, picture, [])
    except MissingPackage as missing:
        way = f"or read it with one more package: pip install 'srcli[{missing.extra}]'"
        raise PictureError(f"{error}, {way}", error.kind) from error
    except PictureError as second:
        raise (error if second.kind == "damaged" else second) from second


def measure_with_pillow(file: IO[bytes], row: Format, max_pixels: int | None) -> tuple[int, int]:
    """Read width and height of the upright picture from its headers."""
    with pillow_limits(max_pixels, False), open_with_pillow(file, row) as picture:
        turn = 1 if row.upright else exif.read_orientation(read_exif(picture))
        width, height = picture.size
    return (height, width) if turn >= 5 else (width, height)


def open_with_pillow(file: IO[bytes], row: Format) -> ImageFile.ImageFile:
    """Open a file and read its headers. Raises PictureError with the reason if Pillow refuses it."""
    file.seek(0)
    try:
        return Image.open(file, formats=[row.name])
    except UnidentifiedImageError as error:
        file.seek(0)
        reason = row.explain(file.read(_LONGEST_HEADER))
        raise reason or PictureError(f"its {row.name} header is damaged: fetch it again", "damaged") from error


def _reopen(file: IO[bytes], row: Format, place: int) -> ImageFile.ImageFile:
    picture = open_with_pillow(file, row)
    picture.seek(place)
    return picture


@contextmanager
def pillow_limits(max_pixels: int | None, lenient: bool) -> Iterator[list[warnings.WarningMessage]]:
    """Set the pixel limit of Pillow, record its warnings, and turn decompression bombs into errors."""
    log = logging.getLogger("PIL")
    if not log.handlers:
        log.addHandler(logging.NullHandler())  # else Python prints its messages; errors are raised anyway
    with _LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = max_pixels, lenient
        try:
            yield caught
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextmanager
def _silence(row: Format) -> Iterator[None]:
    """Keep a decoder from writing to stderr; errors are raised anyway."""
    if not (row.chatty and messages.owns_stderr):
        yield
        return
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # started without a stderr
        yield
        return
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def count_with_pillow(file: IO[bytes], row: Format) -> int:
    """Count the pages or frames of a file."""
    with pillow_limits(None, False), _silence(row), open_with_pillow(file, row) as picture:
        return len(_find_frames(picture))


def _find_frames(picture: Image.Image) -> Sequence[int]:
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return find_pages(picture)
    return range(getattr(picture, "n_frames", 1))


def _choose_frame(picture: Image.Image, options: ReadOptions) -> tuple[int, list[str]]:
    """The index of the frame to read, and a note about the others. Raises PictureError."""
    frames = _find_frames(picture)
    word = "pages" if isinstance(picture, TiffImagePlugin.TiffImageFile) else "frames"
    if options.frame:
        if options.frame > len(frames):
            raise PictureError(f"it has {len(frames)} {word} (any more): run again when it is complete", "changed")
        return frames[options.frame - 1], []
    if len(frames) < 2:
        return 0, []
    if picture.format == "MPO":
        return 0, [f"the file holds {len(frames)} pictures: the first, which viewers show, was taken"]
    if options.frames != "first":
        ways = "take the first one with `frames` first, or each from a file with `frames` all"
        raise PictureError(f"it has {len(frames)} {word}: {ways}", "frames")
    return 0, [f"the first of {len(frames)} {word} was taken"]
