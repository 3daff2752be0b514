"""Pictures in: by content, at full depth, upright, in sRGB. One file is one boundary; no library error leaves it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from srcli import messages
from srcli.errors import PictureError, SrcliError
from srcli.files import hash_file
from srcli.imaging import deep_formats, exif, icc
from srcli.imaging.bands import split_rows
from srcli.imaging.decode import BeyondPillow, Decoded, decode_channels
from srcli.imaging.detect_format import HEAD, HeaderFacts, claimed_size, detect_format, inspect_header
from srcli.imaging.metadata import collect_metadata, read_exif
from srcli.imaging.picture import Metadata, Picture
from srcli.imaging.printable import printable
from srcli.imaging.resize import bleed_colour
from srcli.imaging.safe_open import open_regular
from srcli.imaging.tiff_reader_checks import RAW, count_pages, explain_refusal, refuse_raw
from srcli.settings import FIRST, MAX_PIXELS, REFUSE

Array = NDArray[Any]

# Pillow's limits are global to the process.
_LOCK = threading.RLock()
LARGEST_AVIF = 1 << 28  # pixels; libavif refuses more
_UPRIGHT = ("TIFF", "HEIF")  # whose decoders turn the picture themselves


def read_picture(
    source: Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    frames: str = REFUSE,
    allow_truncated: bool = False,
    name: str = "standard input",
) -> Picture:
    """The picture in a file, or in the bytes of one, which messages call `name`. Raises PictureError, with the reason's
    class in `kind`."""
    name = name if isinstance(source, bytes) else printable(source)
    with open_regular(source, name) as file, _boundary(name, max_pixels, allow_truncated):
        return _read(file, name, _Rules(max_pixels, frames), allow_truncated)


def read_size(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright picture, from its headers alone. Raises PictureError as `read_picture` does."""
    name = "standard input" if isinstance(source, bytes) else printable(source)
    with open_regular(source, name) as file, _boundary(name, max_pixels):
        kind = detect_format(file.read(HEAD), name)
        if kind in deep_formats.ONLY_HERE:
            return deep_formats.read_deep_size(file, kind, max_pixels)
        with pillow_limits(max_pixels, False), _open(file, kind) as picture:
            turn = 1 if kind in _UPRIGHT else exif.read_orientation(read_exif(picture))
            width, height = picture.size
    return (height, width) if turn >= 5 else (width, height)


@contextmanager
def _boundary(name: str, max_pixels: int, lenient: bool = False) -> Iterator[None]:
    """Whatever a file makes the libraries raise becomes one line with the file's name."""
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
        raise _translated(error, name, lenient) from error


class _Rules:
    """What a file may be: how many pixels, how many frames."""

    def __init__(self, max_pixels: int, frames: str) -> None:
        self.max_pixels, self.frames = max_pixels, frames


def _read(file: IO[bytes], name: str, rules: _Rules, lenient: bool) -> Picture:
    head = file.read(HEAD)
    kind = detect_format(head, name)
    if kind == "TIFF":
        refuse_raw(name)
    file.seek(0)
    digest = hash_file(file)
    told = inspect_header(kind, head)
    if kind in deep_formats.ONLY_HERE:
        return _deep(file, kind, rules, told, digest, deep_formats.read_boxes(file) if kind == "JPEGXL" else Metadata())
    try:
        return _decoded(file, kind, rules, told, digest)
    except BeyondPillow as error:
        return _deep_instead(file, kind, rules, told, digest, error)
    except (OSError, EOFError, SyntaxError) as error:
        if not (lenient and _is_truncated(error)):
            raise
    told.notes.append("the file is truncated: what is missing is grey or black")
    return _decoded(file, kind, rules, told, digest, lenient=True)


def _decoded(
    file: IO[bytes], kind: str, rules: _Rules, told: HeaderFacts, digest: str, *, lenient: bool = False
) -> Picture:
    with (
        pillow_limits(rules.max_pixels, lenient) as caught,
        _hushed() if kind == "TIFF" and messages.owns_stderr else nullcontext(),
    ):
        picture = _open(file, kind)
        notes = [*told.notes, *_frames(picture, rules.frames)]
        if told.bits > 8 and kind in deep_formats.SUFFIXES and deep_formats.is_available():
            with suppress(PictureError):  # of a rare kind there, Pillow's 8 bits are better than none
                return _deep(file, kind, rules, told, digest, collect_metadata(picture)[0])
        found = decode_channels(picture, lambda: _open(file, kind))
        metadata, left_out = collect_metadata(picture)
    if told.bits > 8 and found.pixels.dtype == np.uint8:
        missing = kind in deep_formats.SUFFIXES and not deep_formats.is_available()
        way = f": to read all {deep_formats.MISSING}" if missing else ""
        notes.append(f"its {told.bits} bits a channel were read as 8{way}")
    turn = 1 if kind in _UPRIGHT else exif.read_orientation(metadata.exif)
    if any("EXIF" in str(w.message) for w in caught):
        left_out.append("its EXIF data is damaged in part")
    pixels, gamut, profile, said = _coloured(found, picture.info.get("icc_profile"))
    pixels, alpha, gamut = (_turned(a, turn) for a in (pixels, found.alpha, gamut))
    return Picture(
        pixels=pixels if alpha is None else bleed_colour(pixels, alpha),
        alpha=alpha,
        grey=found.space == "L",
        profile=profile,
        gamut=gamut,
        metadata=metadata,
        format=picture.format or kind,
        lossless=told.lossless,
        sha256=digest,
        notes=(*notes, *found.notes, *said, *left_out),
    )


def _deep(file: IO[bytes], kind: str, rules: _Rules, told: HeaderFacts, digest: str, metadata: Metadata) -> Picture:
    """A picture that OpenImageIO reads, in the same form as Pillow's."""
    found = deep_formats.read_deep(file, kind, rules.max_pixels)
    pixels, gamut, profile, said = _coloured(found.decoded, found.profile)
    turn = found.orientation if kind == "TIFF" else exif.read_orientation(metadata.exif) if kind == "PPM" else 1
    pixels, alpha, gamut = (_turned(a, turn) for a in (pixels, found.decoded.alpha, gamut))
    return Picture(
        pixels=pixels if alpha is None else bleed_colour(pixels, alpha),
        alpha=alpha,
        grey=found.decoded.space == "L",
        profile=profile,
        gamut=gamut,
        metadata=metadata,
        format=kind,
        lossless=told.lossless,
        sha256=digest,
        notes=(*told.notes, *found.notes, *found.decoded.notes, *said),
    )


def _deep_instead(
    file: IO[bytes], kind: str, rules: _Rules, told: HeaderFacts, digest: str, error: BeyondPillow
) -> Picture:
    """What Pillow has no form for, through OpenImageIO; else Pillow's own reason, which knows the file better."""
    if not deep_formats.is_available():
        way = "or read it with one more package: pip install 'srcli[formats]'"
        raise PictureError(f"{error}, {way}", error.kind) from error
    metadata = Metadata()
    with suppress(Exception), pillow_limits(rules.max_pixels, False), _open(file, kind) as picture:
        _frames(picture, rules.frames)
        metadata = collect_metadata(picture)[0]
    try:
        return _deep(file, kind, rules, told, digest, metadata)
    except PictureError as second:
        raise (error if second.kind == "damaged" else second) from second


def _open(file: IO[bytes], kind: str) -> ImageFile.ImageFile:
    file.seek(0)
    if kind == "HEIF":
        _with_heif()
    try:
        return Image.open(file, formats=[kind])
    except UnidentifiedImageError as error:
        if kind == "TIFF":
            file.seek(0)
            reason = explain_refusal(file.read(1 << 26))
            raise (PictureError if RAW in reason else BeyondPillow)(reason, "unsupported") from error
        file.seek(0)
        width, height = claimed_size(kind, file.read(HEAD))
        if width * height > LARGEST_AVIF:
            said = f"its {width}x{height} pixels are more than AVIF's decoder takes: convert it to TIFF or PNG first"
            raise PictureError(said, "too-large") from error
        raise PictureError(f"its {kind} header is damaged: fetch it again", "damaged") from error


def _with_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise PictureError(
            "it is a HEIC picture, which needs one more package: pip install 'srcli[heif]'", "unsupported"
        ) from error
    register_heif_opener()


@contextmanager
def pillow_limits(max_pixels: int | None, lenient: bool) -> Iterator[list[warnings.WarningMessage]]:
    """Pillow with our limits; what it warns of is recorded, decompression bombs are errors."""
    log = logging.getLogger("PIL")
    if not log.handlers:
        log.addHandler(logging.NullHandler())  # else Python prints what it says; what matters is raised as well
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
def _hushed() -> Iterator[None]:
    """Keep libtiff from writing its own lines to stderr; what matters reaches us as errors."""
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


def _frames(picture: Image.Image, policy: str) -> list[str]:
    """Refuse or note what holds more than one picture. Raises PictureError."""
    tiff = isinstance(picture, TiffImagePlugin.TiffImageFile)
    count = count_pages(picture) if tiff else getattr(picture, "n_frames", 1)
    if count < 2:
        return []
    if picture.format == "MPO":
        return [f"the file holds {count} pictures: the first, which viewers show, was taken"]
    word = "pages" if tiff else "frames"
    if policy != FIRST:
        raise PictureError(f"it has {count} {word}: take the first one with --frames first", "frames")
    return [f"the first of {count} {word} was taken"]


def _coloured(found: Decoded, data: object) -> tuple[Array, Array | None, icc.Profile | None, list[str]]:
    """Pixels in sRGB, what sRGB cannot hold of them, the way back, and what to say of it."""
    notes: list[str] = []
    profile = None
    if isinstance(data, bytes) and data:
        try:
            profile = icc.check_profile(data, found.space, found.pixels.dtype.itemsize * 8)
        except ValueError as error:
            notes.append(f"its colour profile {error} and was left out: colours were taken as sRGB")
    if profile is not None and not icc.leads_back(profile):
        notes.append("its colour profile is a scanner's, which only leads to other colours: the result is sRGB")
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


def _turned(pixels: Array | None, orientation: int) -> Any:
    """Upright, by EXIF's numbers."""
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
    return f"{name} has more than {most} pixels: raise --max-pixels if you trust the file"


def _translated(error: Exception, name: str, lenient: bool) -> PictureError:
    """A library's error as one line. What a failed check or a lookup of its own says means nothing to a user."""
    if _is_truncated(error):
        way = "nothing of it is there to take" if lenient else "or take what is there with --allow-truncated"
        return PictureError(f"{name} is cut off: fetch it again, {way}", "truncated")
    spoken = isinstance(error, OSError | ValueError | SyntaxError)
    reason = " ".join(printable(str(error)).split())[:200] if spoken else ""
    said = reason or "its parts contradict each other"
    return PictureError(f"{name} is damaged ({said}): fetch it again or save it anew with another program", "damaged")
