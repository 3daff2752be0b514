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


def write_tiff(ready: PreparedOutput, file: IO[bytes], quality: int | None = None, limit: int = LIMIT) -> None:
    """Write a file from position 0 of a seekable stream; BigTIFF if it might exceed `limit` bytes."""
    block = ready.block
    big = len(block.data) + _estimate_size(ready) > limit
    fields = {tag: entry for tag, entry in block.main.items() if tag not in _FOREIGN}
    file.write(block.data.ljust(bigtiff.HEADER, b"\x00") + bytes(len(block.data) % 2))
    starts, sizes, high = _strips(ready, "<" if big else block.order, file)
    fields |= _layout(ready, block) | _list_metadata(ready, block)
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


def _estimate_size(ready: PreparedOutput) -> int:
    """Bytes of pixels and metadata before compression."""
    alpha = 0 if ready.alpha is None else ready.alpha.nbytes
    metadata = ready.metadata
    return ready.pixels.nbytes + alpha + len(ready.profile) + len(metadata.xmp) + len(metadata.iptc)


def _numbers(block: ExifBlock, kind: int, *values: int) -> Field:
    return Field(
        kind, len(values), block.pack(f"{len(values)}{'H' if kind == SHORT else 'L'}", *values).ljust(4, b"\x00")
    )


def _layout(ready: PreparedOutput, block: ExifBlock) -> Directory:
    width, height = ready.size
    colours = 1 if ready.pixels.ndim == 2 else ready.pixels.shape[2]
    channels = colours + (ready.alpha is not None)
    fields = {
        256: _numbers(block, LONG, width),
        257: _numbers(block, LONG, height),
        258: _numbers(block, SHORT, *[ready.pixels.dtype.itemsize * 8] * channels),
        259: _numbers(block, SHORT, _DEFLATE),
        262: _numbers(block, SHORT, {1: 1, 3: 2, 4: 5}[colours]),
        277: _numbers(block, SHORT, channels),
        284: _numbers(block, SHORT, 1),
        317: _numbers(block, SHORT, _DIFFERENCES),
    }
    if ready.alpha is not None:
        fields[338] = _numbers(block, SHORT, _UNASSOCIATED)
    return fields


def _strips(ready: PreparedOutput, order: Literal["<", ">"], file: IO[bytes]) -> tuple[list[int], list[int], int]:
    """Write the pixels; returns the offsets and lengths of the strips, and the rows per strip."""
    width, height = ready.size
    groups = split_rows(height, width, 1 << 19)
    starts, sizes = [], []
    for rows in groups:
        data = zlib.compress(_differences(ready, rows, order), _LEVELS[ready.pixels.dtype.itemsize])
        starts.append(file.tell())
        sizes.append(len(data))
        file.write(data)
        evict_pages(ready.pixels)
    return starts, sizes, groups[0].stop


def _differences(ready: PreparedOutput, rows: slice, order: Literal["<", ">"]) -> bytes:
    """Each pixel minus its left neighbour (predictor 2), which compresses better."""
    channels = interleave_rows(ready, rows)
    out = channels.copy()
    out[:, 1:] -= channels[:, :-1]
    return out.astype(out.dtype.newbyteorder(order)).tobytes()


def interleave_rows(ready: PreparedOutput, rows: slice) -> NDArray[Any]:
    """Some rows with all channels side by side, (h, W, C)."""
    part = ready.pixels[rows]
    part = part[..., None] if part.ndim == 2 else part
    return part if ready.alpha is None else np.concatenate([part, ready.alpha[rows, :, None]], -1)


def _list_metadata(ready: PreparedOutput, block: ExifBlock) -> Directory:
    """The fields of profile and metadata."""
    metadata = ready.metadata
    blobs = ((34675, UNDEFINED, ready.profile), (700, BYTE, metadata.xmp), (33723, UNDEFINED, metadata.iptc))
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
