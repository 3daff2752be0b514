"""Edits EXIF blocks without moving bytes, because maker notes contain offsets into the block.

A changed directory is written anew behind the rest of the block; what it points at stays where it is.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

MAX_ENTRIES = 1000
EMPTY = b"II*\x00\x00\x00\x00\x00"

WIDTH_TAG, HEIGHT_TAG, ORIENTATION_TAG = 0x100, 0x101, 0x112
PROCESSED_BY, SOFTWARE = 0x000B, 0x131
X_DENSITY, Y_DENSITY, DENSITY_UNIT, INCHES = 0x11A, 0x11B, 0x128, 2
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
COMMENT, PIXEL_WIDTH, PIXEL_HEIGHT = 0x9286, 0xA002, 0xA003
THUMBNAIL_TAG, THUMBNAIL_LENGTH = 0x201, 0x202

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
UNITS = _SIZES | {5: 4, 10: 4}  # bytes a number for byte swapping: a ratio is two numbers


class Field(NamedTuple):
    """One field. `raw` of four bytes is the field as stored (a value or an offset); else it is the value itself."""

    kind: int
    length: int
    raw: bytes


Directory = dict[int, Field]
Signature = tuple[str, str] | None  # the program, and the provenance as JSON


@dataclass
class ExifBlock:
    """A TIFF structure in memory whose directories can be read and rewritten."""

    data: bytearray
    order: Literal["<", ">"]
    main: Directory
    next: int  # offset of the thumbnail's directory, or 0

    @classmethod
    def parse(cls, data: bytes) -> ExifBlock:
        """Raises ValueError if it is not EXIF."""
        if data[:4] not in (b"II*\x00", b"MM\x00*") or len(data) < 8:
            raise ValueError("no TIFF header")
        block = cls(bytearray(data), "<" if data[:1] == b"I" else ">", {}, 0)
        offset = block.number(data[4:8])
        if offset:
            block.main, block.next = block.directory(offset)
        return block

    def number(self, raw: bytes | bytearray) -> int:
        return int.from_bytes(raw, "little" if self.order == "<" else "big")

    def pack(self, pattern: str, *values: int) -> bytes:
        return struct.pack(self.order + pattern, *values)

    def directory(self, offset: int) -> tuple[Directory, int]:
        """The valid fields of the directory at `offset`, and the offset of the next directory."""
        count = self.number(self.data[offset : offset + 2])
        end = offset + 2 + 12 * count
        if count > MAX_ENTRIES or end > len(self.data):
            raise ValueError("a directory runs past the end")
        fields: Directory = {}
        for at in range(offset + 2, end, 12):
            tag, kind, number = struct.unpack_from(self.order + "HHL", self.data, at)
            entry = Field(kind, number, bytes(self.data[at + 8 : at + 12]))
            if self.span(entry) is not None:
                fields[tag] = entry
        return fields, self.number(self.data[end : end + 4])

    def span(self, entry: Field) -> slice | None:
        """The position of a field's value (empty: in the field itself); None if it is invalid."""
        size = _SIZES.get(entry.kind, 0) * entry.length
        if not _SIZES.get(entry.kind) or entry.length == 0:
            return None
        if size <= 4:
            return slice(0, 0)
        start = self.number(entry.raw)
        return slice(start, start + size) if 8 <= start <= len(self.data) - size else None

    def value(self, entry: Field) -> bytes:
        span = self.span(entry)
        if span is None or span.stop == 0:
            return entry.raw[: _SIZES.get(entry.kind, 0) * entry.length]
        return bytes(self.data[span])

    def short(self, value: int) -> Field:
        return Field(SHORT, 1, self.pack("HH", value, 0))

    def long(self, value: int) -> Field:
        return Field(LONG, 1, self.pack("L", value))

    def text(self, value: str) -> Field:
        raw = value.encode("ascii", "replace") + b"\x00"
        return Field(ASCII, len(raw), raw)

    def wipe(self, offset: int) -> None:
        """Overwrite a directory and its values with zeros, so that removed data cannot be recovered."""
        fields, _ = self.directory(offset)
        for entry in fields.values():
            span = self.span(entry)
            if span is not None:
                self.data[span] = bytes(span.stop - span.start)
        size = 2 + 12 * self.number(self.data[offset : offset + 2]) + 4
        self.data[offset : offset + size] = bytes(len(self.data[offset : offset + size]))

    def put(self, fields: Mapping[int, Field]) -> int:
        """Append a directory to the block and return its offset."""
        self.data += bytes(len(self.data) % 2)
        offset = len(self.data)
        self.data += self.packed(fields, offset)
        return offset

    def packed(self, fields: Mapping[int, Field], offset: int) -> bytes:
        """Serialize a directory for `offset`, followed by its new values."""
        at = offset + 2 + 12 * len(fields) + 4
        rows, values = [self.pack("H", len(fields))], b""
        for tag, (kind, length, raw) in sorted(fields.items()):
            if len(raw) > 4:
                place, values = self.pack("L", at + len(values)), values + raw + bytes(len(raw) % 2)
            else:
                place = raw.ljust(4, b"\x00")
            rows.append(self.pack("HHL", tag, kind, length) + place)
        return b"".join([*rows, bytes(4), values])


def read_orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        block = ExifBlock.parse(data)
        value = block.number(block.value(block.main[ORIENTATION_TAG]))
    except (ValueError, KeyError):
        return 1
    return value if 1 <= value <= 8 else 1


def update_exif(
    data: bytes, size: tuple[int, int], *, gps: bool = True, signature: Signature = None, turned: bool = True
) -> ExifBlock:
    """The block of a result: upright, with its new size, without thumbnail.

    `turned` False takes the orientation out altogether, for formats that keep it elsewhere.
    """
    block = ExifBlock.parse(data or EMPTY)
    _drop_thumbnail(block)
    main, details = dict(block.main), _details(block)
    if ORIENTATION_TAG in main:
        main[ORIENTATION_TAG] = block.short(1)
        if not turned:
            del main[ORIENTATION_TAG]
    _resize(block, main, (WIDTH_TAG, HEIGHT_TAG), size)
    _resize(block, details, (PIXEL_WIDTH, PIXEL_HEIGHT), size)
    if not gps and GPS_IFD in main:
        block.wipe(block.number(main.pop(GPS_IFD).raw))
    if signature is not None:
        _sign(block, main, details, *signature)
    if details:
        main[EXIF_IFD] = block.long(block.put(details))
    block.main, block.next = main, 0
    return block


def set_exif_density(data: bytes, dpi: float) -> bytes:
    """Replace the resolution in a block that has one."""
    block = ExifBlock.parse(data)
    ratio = block.pack("LL", round(dpi * 1000), 1000)
    for tag, entry in ((X_DENSITY, Field(RATIONAL, 1, ratio)), (Y_DENSITY, Field(RATIONAL, 1, ratio))):
        if tag in block.main:
            block.main[tag] = entry
            block.main[DENSITY_UNIT] = block.short(INCHES)
    return pack_exif(block)


def pack_exif(block: ExifBlock) -> bytes:
    """Serialize the block; empty bytes if it has no fields."""
    if not block.main:
        return b""
    data = block.data + bytes(len(block.data) % 2)
    offset = len(data)
    return bytes(data[:4] + block.pack("L", offset) + data[8:] + block.packed(block.main, offset))


def _details(block: ExifBlock) -> Directory:
    if EXIF_IFD not in block.main:
        return {}
    try:
        return dict(block.directory(block.number(block.main[EXIF_IFD].raw))[0])
    except ValueError:
        del block.main[EXIF_IFD]
        return {}


def _resize(block: ExifBlock, fields: Directory, tags: tuple[int, int], size: tuple[int, int]) -> None:
    for tag, length in zip(tags, size, strict=True):
        if tag in fields:
            fields[tag] = block.long(length)


def _drop_thumbnail(block: ExifBlock) -> None:
    """Remove the thumbnail, which shows the source, and truncate the block if its bytes are at the end."""
    if not block.next:
        return
    try:
        fields, _ = block.directory(block.next)
        start, length = (block.number(block.value(fields[tag])) for tag in (THUMBNAIL_TAG, THUMBNAIL_LENGTH))
        block.wipe(block.next)
    except (ValueError, KeyError):
        return
    stop = min(start + length, len(block.data))
    if 8 <= start < stop:
        block.data[start:stop] = bytes(stop - start)
        if stop == len(block.data):
            del block.data[start:]


def _sign(block: ExifBlock, main: Directory, details: Directory, tool: str, provenance: str) -> None:
    """Name srcli as processing software and add the provenance, unless the comment holds another program's text."""
    main[PROCESSED_BY] = block.text(tool)
    main.setdefault(SOFTWARE, block.text(tool))
    raw = b"ASCII\x00\x00\x00" + provenance.encode("ascii", "backslashreplace")
    before = block.value(details[COMMENT]) if COMMENT in details else b""
    if not before[8:].strip(b"\x00 ") or b'"tool": "srcli' in before:
        details[COMMENT] = Field(UNDEFINED, len(raw), raw)
