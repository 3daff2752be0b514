"""Detect the format of a file from its first bytes. Files of unknown formats never reach a decoder."""

from __future__ import annotations

import re

from srcli.errors import PictureError
from srcli.imaging.format_base import Format
from srcli.imaging.formats import FORMATS
from srcli.imaging.tiff_reader_checks import refuse_raw

_CONVERT = "convert it to PNG, TIFF or JPEG first"
_RAW = "is a camera raw file: develop it to TIFF, PNG or JPEG first"
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "is a Git LFS pointer, not the picture itself: run `git lfs pull`", "not-a-picture"),
    (
        rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html|<head|<body)",
        "is a web page, not a picture (often a failed download): fetch it again",
        "not-a-picture",
    ),
    (rb"(?is)(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?|<!--.*?)?<svg", f"is an SVG drawing: {_CONVERT}", "unsupported"),
    (rb"%PDF", f"is a PDF document: {_CONVERT}", "unsupported"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"is an EPS or PostScript document: {_CONVERT}", "unsupported"),
    (rb"8BPS", f"is a Photoshop document: {_CONVERT}", "unsupported"),
    (rb"P[Ff]\s", f"holds high dynamic range numbers: {_CONVERT}", "unsupported"),
    (rb".{4}ftypcrx |FUJIFILMCCD-RAW|IIU\x00|IIR[OS]|MMOR|FOVb", _RAW, "unsupported"),
    (rb"(?:II\*\x00|MM\x00\*).{4}CR", _RAW, "unsupported"),
    (rb"\x00\x05\x16\x07", "is a macOS side file (AppleDouble), not the picture: leave it out", "not-a-picture"),
    (rb"\x1f\x8b|PK\x03\x04|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "is an archive: unpack it first", "unsupported"),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3", "is a video or an unknown kind of media file", "unsupported"),
)


def detect_format(head: bytes, name: str) -> Format:
    """The format of a file that begins with `head`. Raises PictureError if it is not a picture that srcli reads."""
    if not head:
        raise PictureError(f"{name} is empty (often a failed download): fetch it again", "empty")
    for pattern, sentence, kind in _REFUSED[:-1]:
        if re.match(pattern, head, re.DOTALL):
            raise PictureError(f"{name} {sentence}", kind)
    for row in FORMATS.values():
        if re.match(row.magic, head, re.DOTALL):
            if row.name == "TIFF":
                refuse_raw(name)
            return row
    raise PictureError(f"{name} {_describe_unknown(head)}", "not-a-picture" if _is_text(head) else "unsupported")


def _describe_unknown(head: bytes) -> str:
    pattern, sentence, _ = _REFUSED[-1]
    if re.match(pattern, head, re.DOTALL):
        return f"{sentence}: {_CONVERT}"
    if _is_text(head):
        return "is a text file, not a picture: leave it out"
    return "is no picture that srcli knows: give a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, PPM or HEIC file"


def _is_text(head: bytes) -> bool:
    return not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", head)
