"""Read pictures: format by content, full bit depth, upright, in sRGB. All library errors become PictureError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from srcli.errors import PictureError, SrcliError
from srcli.files import hash_file
from srcli.imaging import icc
from srcli.imaging.bands import Array, split_rows
from srcli.imaging.decode import SNIFFED_BYTES, Decoded, ReadOptions
from srcli.imaging.detect_format import detect_format
from srcli.imaging.header_facts import is_lossless, notes_on_header
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable
from srcli.imaging.resize import bleed_colour
from srcli.imaging.safe_open import open_regular
from srcli.settings import MAX_PIXELS, Frames


def read_picture(
    source: Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    frames: Frames = "refuse",
    frame: int = 0,
    allow_truncated: bool = False,
    name: str = "standard input",
) -> Picture:
    """Read a picture from a file, or from bytes that messages call `name`. Raises PictureError, with the class of the
    reason in `kind`. `frame`: the page or frame to read, from 1."""
    name = name if isinstance(source, bytes) else printable(source)
    with open_regular(source, name) as file, _boundary(name, max_pixels, allow_truncated):
        return _read(file, name, ReadOptions(max_pixels, frames, allow_truncated, frame))


def read_size(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright picture, from its headers. Raises PictureError like `read_picture`."""
    name = "standard input" if isinstance(source, bytes) else printable(source)
    with open_regular(source, name) as file, _boundary(name, max_pixels):
        row = detect_format(file.read(SNIFFED_BYTES), name)
        return row.measure(file, row, max_pixels)


def count_frames(source: Path, *, max_pixels: int = MAX_PIXELS) -> int:
    """Number of pages or frames of a file, from its headers. Raises PictureError like `read_picture`."""
    name = printable(source)
    with open_regular(source, name) as file, _boundary(name, max_pixels):
        row = detect_format(file.read(SNIFFED_BYTES), name)
        return 1 if row.count is None else row.count(file, row)


@contextmanager
def _boundary(name: str, max_pixels: int, lenient: bool = False) -> Iterator[None]:
    """Turn any exception of the libraries into a PictureError with the file's name."""
    try:
        yield
    except PictureError as error:
        if name in str(error):
            raise
        raise PictureError(f"{name} cannot be used: {error}", error.kind) from error
    except SrcliError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(_too_large(name, max_pixels), "too-large") from error
    except MemoryError as error:
        raise PictureError(f"{name} does not fit into memory: make it smaller first", "too-large") from error
    except Exception as error:
        raise _translate_error(error, name, lenient) from error


def _read(file: IO[bytes], name: str, options: ReadOptions) -> Picture:
    head = file.read(SNIFFED_BYTES)
    row = detect_format(head, name)
    file.seek(0)
    digest = hash_file(file)
    notes = notes_on_header(row, head)
    try:
        found = row.read(file, row, replace(options, lenient=False))
    except (OSError, EOFError, SyntaxError) as error:
        if not (options.lenient and _is_truncated(error)):
            raise
        notes.append("the file is truncated: what is missing is grey or black")
        found = row.read(file, row, options)
    pixels, gamut, profile, said = _convert_colors(found)
    pixels, alpha, gamut = (_rotate(a, found.orientation) for a in (pixels, found.alpha, gamut))
    return Picture(
        pixels=pixels if alpha is None else bleed_colour(pixels, alpha),
        alpha=alpha,
        grey=found.space == "L",
        profile=profile,
        gamut=gamut,
        metadata=found.metadata,
        format=row.name,
        lossless=is_lossless(row, head),
        sha256=digest,
        notes=(*notes, *found.notes, *said),
    )


def _convert_colors(found: Decoded) -> tuple[Array, Array | None, icc.IccProfile | None, list[str]]:
    """Pixels in sRGB, the gamut residual, the profile to convert back, and notes for the user."""
    notes: list[str] = []
    profile = None
    if found.profile:
        try:
            profile = icc.check_profile(found.profile, found.space, found.pixels.dtype.itemsize * 8)
        except ValueError as error:
            notes.append(f"its colour profile {error} and was left out: colours were taken as sRGB")
    if profile is not None and profile.one_way:
        notes.append("its colour profile only converts from a scanner's colours: the result is in sRGB")
        return icc.convert_to_srgb(found.pixels, profile), None, None, notes
    if profile is not None and not profile.same:
        pixels = icc.convert_to_srgb(found.pixels, profile)
        return pixels, icc.gamut_residual(found.pixels, pixels, profile), profile, notes
    if found.space == "CMYK":
        notes.append("CMYK without a usable profile: colours were converted by rule of thumb, the result is sRGB")
        return _naive(found.pixels), None, None, notes
    pixels = np.repeat(found.pixels[..., None], 3, -1) if found.space == "L" else found.pixels
    return pixels, None, profile, notes


def _naive(pixels: Array) -> Array:
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in split_rows(*pixels.shape[:2]):
        band = Image.frombytes("CMYK", (pixels.shape[1], rows.stop - rows.start), pixels[rows].tobytes())
        out[rows] = np.asarray(band.convert("RGB"))
    return out


def _rotate(pixels: Array | None, orientation: int) -> Any:
    """Apply an EXIF orientation."""
    if pixels is None or orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def _is_truncated(error: Exception) -> bool:
    return isinstance(error, EOFError) or any(w in str(error).lower() for w in ("truncated", "unexpected end"))


def _too_large(name: str, max_pixels: int) -> str:
    most = f"{max_pixels / 1e6:g} million" if max_pixels >= 1e5 else f"{max_pixels}"
    return f"{name} has more than {most} pixels: raise `max_pixels` if you trust the file"


def _translate_error(error: Exception, name: str, lenient: bool) -> PictureError:
    """A library's error as one line, without the texts of assertions and lookups, which mean nothing to users."""
    if _is_truncated(error):
        way = "nothing of it is there to take" if lenient else "or take what is there with `allow_truncated`"
        return PictureError(f"{name} is cut off: fetch it again, {way}", "truncated")
    spoken = isinstance(error, OSError | ValueError | SyntaxError)
    reason = " ".join(printable(str(error)).split())[:200] if spoken else ""
    said = reason or "its parts contradict each other"
    return PictureError(f"{name} is damaged ({said}): fetch it again, or save it again with another program", "damaged")
