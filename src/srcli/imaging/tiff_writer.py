"""Write TIFF with 8 or 16 bits, strip by strip; BigTIFF if the file is too large for 32-bit offsets.

The EXIF block is a TIFF already: the file begins with it, so that all that it points at stays where it was, and the
picture's own directory comes last.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from srcli.imaging import bigtiff
from srcli.imaging.bands import split_rows
from srcli.imaging.exif import ASCII, BYTE, LONG, RATIONAL, SHORT, UNDEFINED, Directory, ExifBlock, Field
from srcli.imaging.prepare_output import PreparedOutput
from srcli.imaging.spill import evict_pages

LIMIT = 2**32 - 2**26  # bytes that 32-bit offsets reach, less a reserve for directories and incompressible data
_LEVELS = {1: 4, 2: 1}  # zlib levels by bytes per channel: the low bytes of 16 bits hardly compress
_DEFLATE, _DIFFERENCES, _UNASSOCIATED = 8, 2, 2
_DESCRIPTION, _X_DPI, _Y_DPI, _DPI_UNIT = 270, 282, 283, 296
# Storage fields that an EXIF block, for example of a JPEG, may have from its source.
_FOREIGN = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 301, 317, 320, 322, 323, 324, 325, 330, 338, 339}
    | {340, 341, 347, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675}
)


def write_tiff(prepared: PreparedOutput, file: IO[bytes], quality: int | None = None, limit: int = LIMIT) -> None:
    """Write a file from position 0 of a seekable stream; BigTIFF if it might exceed `limit` bytes."""
    block = prepared.block
    big = len(block.data) + _estimate_size(prepared) > limit
    fields = {tag: entry for tag, entry in block.main.items() if tag not in _FOREIGN}
    file.write(block.data.ljust(bigtiff.HEADER, b"\x00") + bytes(len(block.data) % 2))
    starts, sizes, high = _strips(prepared, "<" if big else block.order, file)
    fields |= _layout(prepared, block) | _list_metadata(prepared, block)
    fields |= {278: _numbers(block, LONG, high), 279: _numbers(block, LONG, *sizes)}
    file.write(bytes(-file.tell() % 8))
    end = file.tell()
    if big:
        data, offset = bigtiff.pack_directories(block, fields | {273: bigtiff.offset_field(*starts)}, end)
        head = bigtiff.pack_header(offset)
    else:
        data = block.packed(fields | {273: _numbers(block, LONG, *starts)}, end)
        head = bytes(block.data[:4]) + block.pack("L", end)
    file.write(data)
    file.seek(0)
    file.write(head)


def _estimate_size(prepared: PreparedOutput) -> int:
    """Bytes of pixels and metadata before compression."""
    alpha = 0 if prepared.alpha is None else prepared.alpha.nbytes
    metadata = prepared.metadata
    return prepared.pixels.nbytes + alpha + len(prepared.profile) + len(metadata.xmp) + len(metadata.iptc)


def _numbers(block: ExifBlock, kind: int, *values: int) -> Field:
    return Field(
        kind, len(values), block.pack(f"{len(values)}{'H' if kind == SHORT else 'L'}", *values).ljust(4, b"\x00")
    )


def _layout(prepared: PreparedOutput, block: ExifBlock) -> Directory:
    width, height = prepared.size
    colours = 1 if prepared.pixels.ndim == 2 else prepared.pixels.shape[2]
    channels = colours + (prepared.alpha is not None)
    fields = {
        256: _numbers(block, LONG, width),
        257: _numbers(block, LONG, height),
        258: _numbers(block, SHORT, *[prepared.pixels.dtype.itemsize * 8] * channels),
        259: _numbers(block, SHORT, _DEFLATE),
        262: _numbers(block, SHORT, {1: 1, 3: 2, 4: 5}[colours]),
        277: _numbers(block, SHORT, channels),
        284: _numbers(block, SHORT, 1),
        317: _numbers(block, SHORT, _DIFFERENCES),
    }
    if prepared.alpha is not None:
        fields[338] = _numbers(block, SHORT, _UNASSOCIATED)
    return fields


def _strips(prepared: PreparedOutput, order: Literal["<", ">"], file: IO[bytes]) -> tuple[list[int], list[int], int]:
    """Write the pixels; returns the offsets and lengths of the strips, and the rows per strip."""
    width, height = prepared.size
    groups = split_rows(height, width, 1 << 19)
    starts, sizes = [], []
    for rows in groups:
        data = zlib.compress(_differences(prepared, rows, order), _LEVELS[prepared.pixels.dtype.itemsize])
        starts.append(file.tell())
        sizes.append(len(data))
        file.write(data)
        evict_pages(prepared.pixels)
    return starts, sizes, groups[0].stop


def _differences(prepared: PreparedOutput, rows: slice, order: Literal["<", ">"]) -> bytes:
    """Each pixel minus its left neighbour (predictor 2), which compresses better."""
    channels = interleave_rows(prepared, rows)
    out = channels.copy()
    out[:, 1:] -= channels[:, :-1]
    return out.astype(out.dtype.newbyteorder(order)).tobytes()


def interleave_rows(prepared: PreparedOutput, rows: slice) -> NDArray[Any]:
    """Some rows with all channels side by side, (h, W, C)."""
    part = prepared.pixels[rows]
    part = part[..., None] if part.ndim == 2 else part
    return part if prepared.alpha is None else np.concatenate([part, prepared.alpha[rows, :, None]], -1)


def _list_metadata(prepared: PreparedOutput, block: ExifBlock) -> Directory:
    """The fields of profile and metadata."""
    metadata = prepared.metadata
    blobs = ((34675, UNDEFINED, prepared.profile), (700, BYTE, metadata.xmp), (33723, UNDEFINED, metadata.iptc))
    fields = {tag: Field(kind, len(data), data.ljust(4, b"\x00")) for tag, kind, data in blobs if data}
    if metadata.dpi is not None:
        for tag, value in zip((_X_DPI, _Y_DPI), metadata.dpi, strict=True):
            fields[tag] = Field(RATIONAL, 1, _ratio(block, value))
        fields[_DPI_UNIT] = _numbers(block, SHORT, 2)
    if metadata.comment and _DESCRIPTION not in block.main:
        text = metadata.comment + b"\x00"
        fields[_DESCRIPTION] = Field(ASCII, len(text), text)
    return fields


def _ratio(block: ExifBlock, value: float) -> bytes:
    ratio = Fraction(value).limit_denominator(10_000)
    return struct.pack(f"{block.order}2L", ratio.numerator, ratio.denominator)
