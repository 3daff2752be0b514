"""The header and directories of BigTIFF, for files above 4 GiB.

All else stays where it was, an EXIF block at the file's beginning too: its directories are written anew with 64-bit
offsets, and what they point at stays in place unless it lay under the header, which is 8 bytes longer, or has its
bytes in the other order. That is always little-endian, because Pillow takes a big-endian BigTIFF for a small one.
"""

from __future__ import annotations

import struct

import numpy as np

from srcli.imaging.exif import EXIF_IFD, GPS_IFD, INTEROP_IFD, UNITS, Directory, ExifBlock, Field

HEADER = 16
LONG8 = 16
MAX_DEPTH = 2  # levels of directories below the main one; a deeper chain is circular
_DIRECTORIES = (EXIF_IFD, GPS_IFD, INTEROP_IFD)


def pack_header(offset: int) -> bytes:
    """The header of a file whose main directory is at `offset`."""
    return struct.pack("<2s3HQ", b"II", 43, 8, 0, offset)


def pack_directories(block: ExifBlock, fields: Directory, start: int, depth: int = MAX_DEPTH) -> tuple[bytes, int]:
    """Serialize the main directory and all below it for file offset `start`: bytes, and the main one's offset."""
    data, moved = b"", dict(fields)
    for tag in _DIRECTORIES:
        if tag in moved and (inner := _below(block, moved.pop(tag))) and depth:
            below, offset = pack_directories(block, inner, start + len(data), depth - 1)
            data += below
            moved[tag] = offset_field(offset)
    offset = start + len(data)
    return data + _packed(block, moved, offset), offset


def offset_field(*values: int) -> Field:
    """A field that holds file offsets."""
    return Field(LONG8, len(values), struct.pack(f"<{len(values)}Q", *values))


def _below(block: ExifBlock, entry: Field) -> Directory:
    """The directory that a field points to; empty if it is damaged."""
    try:
        return block.directory(block.number(entry.raw))[0]
    except ValueError:
        return {}


def _packed(block: ExifBlock, fields: Directory, offset: int) -> bytes:
    at = offset + 8 + 20 * len(fields) + 8
    rows, values = [struct.pack("<Q", len(fields))], b""
    for tag, entry in sorted(fields.items()):
        raw = _value(block, entry)
        if len(raw) > 8:
            place = _in_place(block, entry)
            if place is None:
                place, values = at + len(values), values + raw + bytes(-len(raw) % 8)
            raw = struct.pack("<Q", place)
        rows.append(struct.pack("<HHQ", tag, entry.kind, entry.length) + raw.ljust(8, b"\x00"))
    return b"".join([*rows, bytes(8), values])


def _value(block: ExifBlock, entry: Field) -> bytes:
    """A field's value as little-endian bytes."""
    if entry.kind == LONG8:
        return entry.raw
    raw = block.value(entry) if len(entry.raw) == 4 else entry.raw
    unit = UNITS[entry.kind]
    return np.frombuffer(raw, f"{block.order}u{unit}").astype(f"<u{unit}").tobytes()


def _in_place(block: ExifBlock, entry: Field) -> int | None:
    """The file offset of a value that can stay where it is, else None."""
    span = block.span(entry) if len(entry.raw) == 4 else None
    same = block.order == "<" or UNITS.get(entry.kind) == 1
    return span.start if span is not None and same and span.start >= HEADER else None
