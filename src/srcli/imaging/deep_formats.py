"""Reads formats and bit depths that Pillow does not support by OpenImageIO (`pip install 'srcli[formats]'`)."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from srcli.errors import PictureError
from srcli.imaging.bands import Array, split_rows
from srcli.imaging.decode import Decoded, MissingPackage, ReadOptions, divide_by_alpha
from srcli.imaging.format_base import Format
from srcli.imaging.picture import Metadata
from srcli.imaging.spill import no_room

NUMBERS = ("uint8", "uint16", "half", "float", "double")
TOP = 65535
LARGEST_BOX = 1 << 24
HIGHEST = 2.0  # display-referred values end at 1; pictures with far larger ones are scene-referred


def read_levels(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    """Read a picture of display-referred values. Raises PictureError."""
    return _read(file, row, options, linear=False)


def read_light(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    """Read a picture of scene-linear values."""
    return _read(file, row, options, linear=True)


def read_jpegxl(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    """Read a JPEG XL with its metadata, of which OpenImageIO does not return the raw bytes."""
    found = read_levels(file, row, options)
    found.metadata = read_boxes(file)
    return found


def _read(file: IO[bytes], row: Format, options: ReadOptions, linear: bool) -> Decoded:
    with _opened(file, row) as source:
        if options.place:
            source.seek_subimage(options.place, 0)
        spec = source.spec()
        check_spec(spec, options.max_pixels)
        kind = str(spec.format) if str(spec.format) in ("uint8", "uint16") else "float"
        pixels = source.read_image(options.place, 0, 0, spec.nchannels, kind)
        if pixels is None:
            reason = " ".join(source.geterror().split())[:200]
            raise PictureError(f"its data is damaged ({reason}): fetch it again", "damaged")
        if row.name == "JPEG2000" and spec.alpha_channel >= 0:  # OpenImageIO multiplies its colours by it
            raise PictureError("OpenImageIO cannot read its transparency: save it as PNG or TIFF", "unsupported")
        found = _decoded(np.atleast_3d(pixels), spec, linear)
        parts = int(spec.getattribute("oiio:subimages") or 1)
        notes = [f"the first of {parts} pictures was taken"] if parts > 1 and not options.frame else []
        if any(curve in str(spec.getattribute("oiio:ColorSpace") or "") for curve in ("pq", "hlg")):
            notes.append("its HDR colour signal was left out: colours were taken as sRGB")
        profile = spec.getattribute("ICCProfile")
        found.profile = b"" if profile is None else bytes(np.asarray(profile, np.uint8))
        found.notes = [*notes, *found.notes]
        if row.name == "TIFF":
            found.orientation = int(spec.getattribute("Orientation") or 1)
            if found.space == "RGB" and not spec.getattribute("oiio:UnassociatedAlpha"):
                divide_by_alpha(found)
        return found


def measure_deep(file: IO[bytes], row: Format, max_pixels: int | None) -> tuple[int, int]:
    """Read width and height of the upright picture from the header."""
    with _opened(file, row) as source:
        spec = source.spec()
        check_spec(spec, max_pixels)
        turned = int(spec.getattribute("Orientation") or 1) >= 5
        return (spec.height, spec.width) if turned else (spec.width, spec.height)


def read_boxes(file: IO[bytes]) -> Metadata:
    """Read EXIF and XMP of a JPEG XL container; a bare codestream has none."""
    file.seek(0)
    found: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">L4s", head)
        length = int.from_bytes(file.read(8), "big") - 16 if size == 1 else size - 8
        if kind in (b"Exif", b"xml ") and 0 <= length <= LARGEST_BOX:
            found[kind] = file.read(length)
        elif length < 0:  # a bare stream, or a last box that goes on to the end
            break
        else:
            file.seek(length, os.SEEK_CUR)
    return Metadata(exif=found.get(b"Exif", b"")[4:].removeprefix(b"Exif\0\0"), xmp=found.get(b"xml ", b""))


def check_spec(spec: Any, max_pixels: int | None) -> None:
    """Check the header. Raises PictureError if it is too large or has channels other than colours and alpha."""
    if max_pixels is not None and spec.width * spec.height > max_pixels:
        raise PictureError(f"it has {spec.width}x{spec.height} pixels: raise `max_pixels` if you trust it", "too-large")
    if str(spec.format) not in NUMBERS:
        raise PictureError(f"it holds {spec.format} numbers: save it with 8 or 16 bits", "unsupported")
    if spec.nchannels > 4 or spec.depth > 1 or spec.deep or _has_other_colours(spec):
        said = f"{spec.nchannels} channels ({', '.join(spec.channelnames[:6])})"
        raise PictureError(f"it holds {said}: save it as grey or RGB, with or without transparency", "unsupported")


def _has_other_colours(spec: Any) -> bool:
    extra = spec.nchannels - (spec.alpha_channel >= 0)
    return extra not in (1, 3) or str(spec.getattribute("oiio:ColorSpace") or "").lower() in ("cmyk", "ycck", "lab")


@contextmanager
def _opened(file: IO[bytes], row: Format) -> Iterator[Any]:
    """Open a file with the one reader that OpenImageIO chooses by its suffix."""
    try:
        import OpenImageIO as oiio
    except ImportError as error:
        raise MissingPackage(f"it is {row.name}, or has a depth, that", "formats") from error
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    with tempfile.TemporaryDirectory(prefix="srcli-") as folder:
        source = oiio.ImageInput.open(str(_named(file, Path(folder) / f"picture{row.suffixes[0]}")), config)
        if source is None:
            reason = " ".join(oiio.geterror().split())[:200]
            text = f"it is damaged or of an unsupported kind ({reason}): save it again with another program"
            raise PictureError(text, "damaged")
        try:
            yield source
        finally:
            source.close()


def _named(file: IO[bytes], name: Path) -> Path:
    """Give an open file a name with the suffix that the reader needs; its original path may be another file by now."""
    try:
        handle = Path(f"/proc/self/fd/{file.fileno()}")
    except io.UnsupportedOperation:
        handle = None
    if handle is not None and handle.exists():
        name.symlink_to(handle)
        return name
    file.seek(0, os.SEEK_SET)
    try:
        with name.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    except OSError as error:
        raise no_room(f"a copy of the picture does not fit in {tempfile.gettempdir()} ({error.strerror})") from error
    return name


def _decoded(channels: Array, spec: Any, linear: bool) -> Decoded:
    """Convert to grey or RGB in 8 or 16 bits, and split off alpha."""
    at, notes = spec.alpha_channel, list[str]()
    alpha = channels[..., at] if at >= 0 else None
    pixels = np.delete(channels, at, -1) if at >= 0 else channels
    if channels.dtype == np.float32:
        pixels, alpha = _to_levels(pixels, alpha, linear, notes)
    grey = pixels.shape[2] == 1
    pixels = np.ascontiguousarray(pixels[..., 0] if grey else pixels)
    return Decoded(pixels, "L" if grey else "RGB", None if alpha is None else np.ascontiguousarray(alpha), notes=notes)


def _to_levels(pixels: Array, alpha: Array | None, linear: bool, notes: list[str]) -> tuple[Array, Array | None]:
    """Convert floats to 16-bit levels; scene-linear values go through the sRGB curve."""
    if not np.isfinite(pixels).all() or not (alpha is None or np.isfinite(alpha).all()):
        raise PictureError("it holds NaN or infinite numbers: save it again without them", "unsupported")
    if not linear and (pixels.max() > HIGHEST or pixels.min() < 1 - HIGHEST):
        said = f"its floating-point numbers go from {pixels.min():g} to {pixels.max():g}"
        raise PictureError(f"{said}: bring them to 0 to 1 first", "unsupported")
    if outside := float(((pixels < 0) | (pixels > 1)).mean()):
        notes.append(f"{outside:.1%} of its numbers are outside of 0 to 1 and were cut off")
    notes.append("its floating-point numbers were read as 16 bits")
    out = np.empty(pixels.shape, np.uint16)
    for rows in split_rows(*pixels.shape[:2]):
        band = pixels[rows]
        if linear and alpha is not None:  # linear formats store premultiplied alpha
            band = band / np.maximum(alpha[rows, :, None], 1e-6)
        band = np.clip(band, 0, 1)
        out[rows] = np.rint((_to_srgb_curve(band) if linear else band) * TOP)
    return out, None if alpha is None else np.rint(np.clip(alpha, 0, 1) * TOP).astype(np.uint16)


def _to_srgb_curve(light: Array) -> Array:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
