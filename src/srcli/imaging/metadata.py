"""Reads the metadata of an opened picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from PIL import Image, TiffImagePlugin

from srcli.imaging import iptc
from srcli.imaging.exif import set_exif_density
from srcli.imaging.picture import Metadata

EXIF_PREFIX = b"Exif\x00\x00"
TEXT_LIMIT = 1 << 20
OWN_TEXT = "srcli"

_XMP_KEY = "XML:com.adobe.xmp"
_TIFF_XMP, _TIFF_IPTC, _TIFF_PHOTOSHOP = 700, 33723, 34377
# The fields of a TIFF's main directory that describe the picture and not its storage.
_DESCRIPTIVE = frozenset(
    {0x0B, 0x10D, 0x10E, 0x10F, 0x110, 0x112, 0x11A, 0x11B, 0x128, 0x131, 0x132, 0x13B, 0x13C, 0x4746, 0x4749}
    | {0x8298, 0x8769, 0x8825, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
)


def collect_metadata(picture: Image.Image) -> tuple[Metadata, list[str]]:
    """The metadata of a decoded picture, and notes about what was left out. (PNG has some after its pixels.)"""
    info, notes = picture.info, []
    text, too_long = _text(picture)
    if too_long:
        notes.append("its text fields are longer than 1 MB and were left out")
    found = Metadata(
        exif=read_exif(picture),
        xmp=read_xmp(picture),
        iptc=_iptc(picture),
        dpi=_dpi(info.get("dpi")),
        comment=_bytes(info.get("comment"))[:65533],
        text=text,
    )
    return found, notes


def set_density(metadata: Metadata, dpi: float) -> Metadata:
    """Set the resolution in dots per inch."""
    try:
        exif = set_exif_density(metadata.exif, dpi) if metadata.exif else b""
    except ValueError:  # damaged; the writer reports it
        exif = metadata.exif
    return replace(metadata, dpi=(dpi, dpi), exif=exif)


def read_xmp(picture: Image.Image) -> bytes:
    """The XMP packet, available without decoding (PNG: if it is before the pixels, as in our files)."""
    return _bytes(_tag(picture, _TIFF_XMP) or picture.info.get("xmp"))


def _tag(picture: Image.Image, number: int) -> object:
    return picture.tag_v2.get(number) if isinstance(picture, TiffImagePlugin.TiffImageFile) else None


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, tuple) and all(isinstance(v, int) and 0 <= v < 256 for v in value):
        return bytes(value)
    return value if isinstance(value, bytes) else b""


def read_exif(picture: Image.Image) -> bytes:
    """The EXIF block, without JPEG's prefix."""
    raw = _bytes(picture.info.get("exif"))
    if isinstance(picture, TiffImagePlugin.TiffImageFile) or not raw:
        exif = picture.getexif()
        exif.bigtiff = False  # EXIF blocks never have BigTIFF's form
        for tag in set(exif) - _DESCRIPTIVE:
            del exif[tag]
        raw = exif.tobytes() if exif else b""
    return raw.removeprefix(EXIF_PREFIX)


def _iptc(picture: Image.Image) -> bytes:
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and _TIFF_IPTC in picture.tag_v2:
        # Some programs store these bytes as 32-bit numbers, of which Pillow returns only the first.
        stored: Mapping[int, bytes] = getattr(picture.tag_v2, "_tagdata", {})
        return stored.get(_TIFF_IPTC) or _bytes(_tag(picture, _TIFF_IPTC))
    resources = _tag(picture, _TIFF_PHOTOSHOP)
    if resources is not None:
        return iptc.extract_records(_bytes(resources))
    photoshop = picture.info.get("photoshop")
    if isinstance(photoshop, Mapping):
        return _bytes(photoshop.get(0x0404))
    return iptc.records_from_text(str(picture.info.get(iptc.RAW_PROFILE, "")))


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(v) and 1 < v <= 100_000 for v in (x, y)):
        return None
    return _whole(x), _whole(y)


def _whole(value: float) -> float:
    """Round a resolution: PNG stores pixels per metre, so 300 dpi is read as 299.9994."""
    return float(round(value)) if abs(value - round(value)) < 0.02 else value


def _text(picture: Image.Image) -> tuple[dict[str, str], bool]:
    if picture.format != "PNG":
        return {}, False
    fields: Mapping[str, object] = getattr(picture, "text", {})
    kept = {
        str(key): str(value)
        for key, value in fields.items()
        if key not in (_XMP_KEY, OWN_TEXT) and not key.startswith("Raw profile type")
    }
    if sum(len(key) + len(value) for key, value in kept.items()) > TEXT_LIMIT:
        return {}, True
    return kept, False
