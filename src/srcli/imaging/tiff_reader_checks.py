"""Checks for reading TIFF: refuse raw files, find the pages, explain refusals."""

from __future__ import annotations

from pathlib import PurePath

from PIL import TiffImagePlugin

from srcli.errors import PictureError
from srcli.imaging.decode import FLOATS, BeyondPillow
from srcli.imaging.exif import ExifBlock

RAW_SUFFIXES = frozenset(
    (".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw", ".orf")
    + (".pef", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f")
)
_SUBFILE, _BITS, _PHOTOMETRIC, _SUB_IFDS, _FORMAT, _DNG = 254, 258, 262, 330, 339, 50706
_SENSOR = (32803, 34892)  # colour filter array, linear raw
_PREVIEW_OR_MASK = 1 | 4
RAW = "is a camera raw file: develop it to TIFF, PNG or JPEG first"


def refuse_raw(name: str) -> None:
    """Refuse raw files, which would open as their thumbnail."""
    if PurePath(name).suffix.lower() in RAW_SUFFIXES:
        raise PictureError(f"{name} {RAW}", "unsupported")


def find_pages(picture: TiffImagePlugin.TiffImageFile) -> list[int]:
    """The indices of the directories that are pages, not previews, pyramids or masks. PictureError for a raw file."""
    tags = picture.tag_v2
    preview_first = bool(int(tags.get(_SUBFILE, 0)) & 1) and _SUB_IFDS in tags
    if _DNG in tags or preview_first or tags.get(_PHOTOMETRIC) in _SENSOR:
        raise PictureError(f"it {RAW}", "unsupported")
    pages = [0]
    for index in range(1, picture.n_frames):
        picture.seek(index)
        if not int(picture.tag_v2.get(_SUBFILE, 0)) & _PREVIEW_OR_MASK:
            pages.append(index)
    if picture.tell():
        picture.seek(0)
    return pages


def explain_refusal(data: bytes) -> PictureError:
    """The reason why Pillow cannot open this TIFF, from its fields. Another reader may, except for raw files."""
    try:
        block = ExifBlock.parse(data)
    except ValueError:
        return BeyondPillow(
            "it is a damaged TIFF, or one of a rare kind: save it anew with another program", "unsupported"
        )
    if _number(block, _PHOTOMETRIC) in _SENSOR or _DNG in block.main:
        return PictureError(f"it {RAW}", "unsupported")
    if _number(block, _FORMAT) == 3:
        return BeyondPillow(FLOATS, "unsupported")
    bits = _number(block, _BITS)
    text = f"it is a TIFF of a rare kind ({bits} bits a channel): save it with 8 or 16 bits, RGB or grey"
    return BeyondPillow(text, "unsupported")


def _number(block: ExifBlock, tag: int) -> int:
    """The first of a field's 16-bit values."""
    return block.number(block.value(block.main[tag])[:2]) if tag in block.main else 0
