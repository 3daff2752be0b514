"""Facts that are read from the first bytes of a file: bit depth, compression, HDR."""

from __future__ import annotations

import re
import struct

from srcli.errors import PictureError
from srcli.imaging.format_base import Format

LARGEST_AVIF = 1 << 28  # pixels; libavif refuses more

_HDR_BOX = re.compile(rb"colrnclx..\0[\x10\x12]", re.DOTALL)  # of AVIF and HEIC: light by PQ or HLG
_GAIN_MAP = "its HDR gain map was left out: the result is the standard picture"
_LEFT_OUT = (
    (b"c2pa\x00\x11\x00\x10", "its Content Credentials (C2PA) hold for the source alone and were left out"),
    (b"HDRGainMap", _GAIN_MAP),
    (b"aux:hdrgainmap", _GAIN_MAP),
    (b"hdr-gain-map/1.0", _GAIN_MAP),
    (b"urn:iso:std:iso:ts:21496", _GAIN_MAP),
)


def notes_on_header(row: Format, head: bytes) -> list[str]:
    """Notes about content that the result will not have."""
    notes = [sentence for mark, sentence in _LEFT_OUT if mark in head]
    if (row.name == "PNG" and b"cICP" in head) or _HDR_BOX.search(head):
        notes.append("its HDR colour signal (cICP) was left out: colours were taken as sRGB")
    return list(dict.fromkeys(notes))


def is_lossless(row: Format, head: bytes) -> bool:
    """Whether the pixels are stored without loss."""
    return row.lossless in head if isinstance(row.lossless, bytes) else row.lossless


def read_avif_bits(head: bytes) -> int:
    at = head.find(b"av1C")
    flags = head[at + 6] if 0 < at < len(head) - 6 else 0
    return 12 if flags & 0x20 else 10 if flags & 0x40 else 8


def read_heif_bits(head: bytes) -> int:
    at = head.find(b"hvcC")
    return 8 + (head[at + 21] & 7) if 0 < at < len(head) - 21 else 8


def read_jpeg2000_bits(head: bytes) -> int:
    at = head.find(b"\xff\x51")
    return (head[at + 40] & 0x7F) + 1 if 0 <= at < len(head) - 40 else 8


def read_ppm_bits(head: bytes) -> int:
    found = re.match(rb"P[36]\s+(?:#[^\n]*\s+)*\d+\s+\d+\s+(\d{1,5})\s", head)
    return int(found[1]).bit_length() if found else 8


def explain_large_avif(data: bytes) -> PictureError | None:
    """The error for an AVIF whose stated size is too large; None otherwise."""
    sizes = (struct.unpack(">LL", found[1]) for found in re.finditer(rb"ispe\0{4}(.{8})", data[:65536], re.DOTALL))
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    if width * height <= LARGEST_AVIF:
        return None
    said = f"its {width}x{height} pixels are more than AVIF's decoder takes: convert it to TIFF or PNG first"
    return PictureError(said, "too-large")
