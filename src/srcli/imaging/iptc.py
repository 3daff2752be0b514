"""Reads and wraps IPTC-IIM records for JPEG, TIFF and PNG."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PHOTOSHOP = b"Photoshop 3.0\x00"
_RECORDS = 0x0404
_SEGMENT = 65533
# Content location, city, sublocation, state, country: record and dataset numbers.
_PLACE = frozenset((2, number) for number in (26, 27, 90, 92, 95, 100, 101))
RAW_PROFILE = "Raw profile type iptc"


def extract_records(data: bytes) -> bytes:
    """Extract the IPTC records from Photoshop image resources."""
    return next((body for number, body in _resources(data) if number == _RECORDS), b"")


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = len(_PHOTOSHOP) if data.startswith(_PHOTOSHOP) else 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = data[at + 6] + 1
        at += 6 + name + name % 2
        (size,) = struct.unpack(">L", data[at : at + 4].rjust(4, b"\x00"))
        yield number, data[at + 4 : at + 4 + size]
        at += 4 + size + size % 2


def wrap_resource(records: bytes) -> bytes:
    """Wrap the records as a Photoshop image resource."""
    return b"8BIM" + struct.pack(">HHL", _RECORDS, 0, len(records)) + records + bytes(len(records) % 2)


def pack_segment(records: bytes) -> bytes:
    """Wrap the records as a JPEG segment; empty if they are too long for one."""
    body = _PHOTOSHOP + wrap_resource(records)
    if not records or len(body) > _SEGMENT:
        return b""
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def remove_place(records: bytes) -> bytes:
    """Remove records that name a place, and everything after a truncated record."""
    kept, at = b"", 0
    while records[at : at + 1] == b"\x1c" and at + 5 <= len(records):
        number, (size,), body = records[at + 1 : at + 3], struct.unpack_from(">H", records, at + 3), at + 5
        if size & 0x8000:  # the number of length bytes that follow
            body += size & 0x7FFF
            size = int.from_bytes(records[at + 5 : body], "big")
        if body + size > len(records):
            break
        if (number[0], number[1]) not in _PLACE:
            kept += records[at : body + size]
        at = body + size
    return kept


def records_to_text(records: bytes) -> str:
    """Format the records as the PNG text chunk that ImageMagick and ExifTool read."""
    body = wrap_resource(records)
    digits = body.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    return "\n".join(["", "iptc", f"{len(body):8d}", *lines, ""])


def records_from_text(text: str) -> bytes:
    try:
        body = bytes.fromhex("".join(text.split()[2:]))
    except ValueError:
        return b""
    return extract_records(body) or (body if body[:1] == b"\x1c" else b"")
