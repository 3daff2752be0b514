"""Pictures out: a path holds either the whole result or what it held before."""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from srcli.errors import MachineError, PictureError, SrcliError
from srcli.files import hash_file, sync_folder, try_lock
from srcli.imaging import iptc, png_writer, tiff_writer
from srcli.imaging.bands import split_rows
from srcli.imaging.formats import check_target, format_of_name
from srcli.imaging.metadata import EXIF_PREFIX
from srcli.imaging.picture import Picture
from srcli.imaging.prepare_output import PreparedOutput, Provenance, SaveOptions, prepare_output
from srcli.imaging.printable import printable
from srcli.imaging.read import pillow_limits
from srcli.imaging.spill import LARGE, evict_pages

JPEG_QUALITY, WEBP_QUALITY, AVIF_QUALITY = 95, 95, 90
TEMPORARY = ".srcli-*.part"
DEFAULT = SaveOptions()

_SEGMENT = 65_533
_XMP_OVERHEAD = 29
_CREATE = (os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)) | getattr(
    os, "O_BINARY", 0
)
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EMFILE, errno.ENFILE})


def write_picture(
    picture: Picture,
    target: Path | IO[bytes],
    *,
    format: str | None = None,
    saving: SaveOptions = DEFAULT,
    made: Provenance = None,
    on_whole: Callable[[str], None] | None = None,
) -> tuple[str, ...]:
    """Write a picture; return what the user should be told of it. `format` is a path's own suffix if left out.

    `on_whole` gets the hash of a finished file just before it takes the target's place.
    """
    kind = format or (format_of_name(target) if isinstance(target, Path) else "PNG")
    check_target(kind, picture.width, picture.height)
    name = printable(target) if isinstance(target, Path) else "standard output"
    try:
        prepared = prepare_output(picture, kind, saving, made)
        if isinstance(target, Path):
            with _replacing(target, name) as file:
                _encode(picture, prepared, kind, saving, file)
                _check(file, prepared.size, kind)
                if on_whole is not None:
                    file.seek(0)
                    on_whole(hash_file(file))
        else:
            buffer = io.BytesIO()
            _encode(picture, prepared, kind, saving, buffer)
            target.write(buffer.getbuffer())
            target.flush()
    except (SrcliError, BrokenPipeError):
        raise
    except OSError as error:
        raise _unwritten(error, name) from error
    except MemoryError as error:
        raise MachineError(f"{name} does not fit into memory while it is written: make it smaller") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise PictureError(f"{name} cannot be written ({reason}): choose another format", "unwritable") from error
    return tuple(prepared.notes)


@contextmanager
def _replacing(target: Path, name: str) -> Iterator[IO[bytes]]:
    """As `files.replacing`, with the file held open: it can be locked and checked, and nobody swaps it meanwhile."""
    temporary = target.parent / TEMPORARY.replace("*", secrets.token_hex(4))
    with os.fdopen(os.open(temporary, _CREATE, 0o666), "w+b") as file:
        try_lock(file.fileno())  # held by the living: leftovers of killed runs have none
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()  # Windows replaces closed files only
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                file.close()
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)


def _unwritten(error: OSError, name: str) -> SrcliError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return MachineError(f"{name} cannot be written ({reason}): free some space")
    if error.errno in _FOLDER:
        return MachineError(f"{name} cannot be written ({reason}): check the folder and its permissions")
    if error.errno == errno.EIO:
        return MachineError(f"{name} cannot be written ({reason}): check the disk")
    remedy = "choose another name" if error.errno else "choose another format"
    return PictureError(f"{name} cannot be written ({reason}): {remedy}", "unwritable")


def _check(file: IO[bytes], size: tuple[int, int], kind: str) -> None:
    """What was written opens again, in its size."""
    file.flush()
    file.seek(0)
    with pillow_limits(None, False), Image.open(file, formats=[kind]) as picture:
        if picture.size != size:
            raise PictureError(f"the file came out as {picture.size} instead of {size}: write PNG", "unwritable")


def _encode(picture: Picture, prepared: PreparedOutput, kind: str, saving: SaveOptions, file: IO[bytes]) -> None:
    if kind == "TIFF":
        tiff_writer.write_tiff(prepared, file)
    elif kind == "PNG" and (prepared.pixels.dtype == np.uint16 or prepared.pixels.nbytes >= LARGE):
        png_writer.write_png(prepared, file)
    else:
        exact = kind == picture.format and picture.lossless and saving.quality is None
        options = _OPTIONS[kind](prepared, saving.quality, exact)
        to_pillow(prepared).save(file, kind, **options)


def to_pillow(prepared: PreparedOutput) -> Image.Image:
    """The channels as Pillow's picture, by bands."""
    colours = 1 if prepared.pixels.ndim == 2 else prepared.pixels.shape[2]
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colours] if prepared.alpha is None else {1: "LA", 3: "RGBA"}[colours]
    picture = Image.new(mode, prepared.size)
    for rows in split_rows(*prepared.pixels.shape[:2]):
        part = np.ascontiguousarray(tiff_writer.interleave_rows(prepared, rows))
        size = (part.shape[1], part.shape[0])
        picture.paste(Image.frombuffer(mode, size, part, "raw", mode, 0, 1), (0, rows.start))
        evict_pages(prepared.pixels)
    return picture


def _png(prepared: PreparedOutput, quality: int | None, exact: bool) -> dict[str, object]:
    options = {"pnginfo": png_writer.collect_text(prepared), "exif": prepared.exif, "compress_level": png_writer.LEVEL}
    return {**options, **_common(prepared)}


def _common(prepared: PreparedOutput) -> dict[str, object]:
    return {"icc_profile": prepared.profile or None, **_bare(prepared, None, False)}


def _jpeg(prepared: PreparedOutput, quality: int | None, exact: bool) -> dict[str, object]:
    metadata, notes = prepared.metadata, prepared.notes
    block, packet, records = prepared.exif, metadata.xmp, iptc.pack_segment(metadata.iptc)
    if len(block) > _SEGMENT - len(EXIF_PREFIX):
        block = b""
        notes.append("its EXIF data is too long for JPEG and was left out")
    if len(packet) > _SEGMENT - _XMP_OVERHEAD:
        packet = b""
        notes.append("its XMP packet is too long for JPEG and was left out")
    if metadata.iptc and not records:
        notes.append("its IPTC records are too long for JPEG and were left out")
    if metadata.text:
        notes.append("JPEG has no place for the source's text fields: they were left out")
    return {
        "quality": quality or JPEG_QUALITY,
        "subsampling": "4:4:4",
        "exif": EXIF_PREFIX + block if block else b"",
        "xmp": packet,
        "extra": records,
        "comment": metadata.comment,
        **_common(prepared),
    }


def _webp(prepared: PreparedOutput, quality: int | None, exact: bool) -> dict[str, object]:
    options = {"lossless": True, "exact": True, "quality": 70} if exact else {"quality": quality or WEBP_QUALITY}
    return {**options, "exif": prepared.exif, "xmp": prepared.metadata.xmp, **_common(prepared)}


def _avif(prepared: PreparedOutput, quality: int | None, exact: bool) -> dict[str, object]:
    options: dict[str, object] = {"quality": quality or AVIF_QUALITY}
    if prepared.pixels.ndim == 3:
        options["subsampling"] = "4:4:4"
    return {**options, "exif": prepared.exif, "xmp": prepared.metadata.xmp, **_common(prepared)}


def _bare(prepared: PreparedOutput, quality: int | None, exact: bool) -> dict[str, object]:
    dpi = prepared.metadata.dpi
    return {} if dpi is None else {"dpi": dpi}


_OPTIONS: dict[str, Callable[[PreparedOutput, int | None, bool], dict[str, object]]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "AVIF": _avif,
    "BMP": _bare,
    "PPM": _bare,
}
