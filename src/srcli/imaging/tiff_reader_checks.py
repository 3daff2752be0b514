"""TIFF's many kinds: raw files in its clothing, pages that are no pictures, and reasons to refuse."""

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
    """Raw files open as the thumbnail they carry."""
    if PurePath(name).suffix.lower() in RAW_SUFFIXES:
        raise PictureError(f"{name} {RAW}", "unsupported")


def find_pages(picture: TiffImagePlugin.TiffImageFile) -> list[int]:
    """Which directories are pages; previews, pyramids and masks are none. Raises PictureError for a raw file."""
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
    """Why Pillow cannot open this TIFF, as its own fields tell. Another reader may open it, unless it is a raw file."""
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
