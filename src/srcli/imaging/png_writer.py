"""Writes PNG: text chunks for both bit depths, and 16-bit colour, which Pillow cannot write."""

from __future__ import annotations

import json
import struct
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from srcli.imaging import iptc
from srcli.imaging.bands import split_rows
from srcli.imaging.metadata import OWN_TEXT
from srcli.imaging.prepare_output import PreparedOutput
from srcli.imaging.spill import evict_pages
from srcli.imaging.tiff_writer import interleave_rows

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
LEVEL = 4  # zlib level; 6 takes three times as long for 4 % fewer bytes
_DEEP_LEVEL = 1  # the low bytes of 16-bit levels hardly compress


def collect_text(prepared: PreparedOutput) -> PngInfo:
    """Text chunks, the XMP packet, IPTC as ImageMagick writes it, and the provenance."""
    info = PngInfo()
    metadata = prepared.metadata
    fields = dict(metadata.text)
    if metadata.comment:
        fields.setdefault("Comment", metadata.comment.decode("utf-8", "replace"))
    for key, value in fields.items():
        info.add_text(key, value)
    if metadata.iptc:
        info.add_text(iptc.RAW_PROFILE, iptc.records_to_text(metadata.iptc), zip=True)
    if prepared.provenance is not None:
        info.add_itxt(OWN_TEXT, json.dumps(dict(prepared.provenance)))
    if metadata.xmp:
        info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode())
    return info


def stream_png(prepared: PreparedOutput, file: IO[bytes]) -> None:
    """Write a file of either depth, without having it in memory as a whole."""
    width, height = prepared.size
    depth = prepared.pixels.dtype.itemsize
    channels = interleave_rows(prepared, slice(0, 1)).shape[-1]
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">LLBBBBB", width, height, 8 * depth, _COLOUR_TYPES[channels], 0, 0, 0))
    if prepared.profile:
        _chunk(file, b"iCCP", b"ICC Profile\x00\x00" + zlib.compress(prepared.profile))
    if prepared.metadata.dpi is not None:
        x, y = (round(value / 0.0254) for value in prepared.metadata.dpi)
        _chunk(file, b"pHYs", struct.pack(">LLB", x, y, 1))
    if prepared.exif:
        _chunk(file, b"eXIf", prepared.exif)
    for kind, data, *_ in collect_text(prepared).chunks:
        _chunk(file, kind, data)
    packer = zlib.compressobj(LEVEL if depth == 1 else _DEEP_LEVEL)
    above = np.zeros((1, width * channels * depth), np.uint8)
    for rows in split_rows(height, width, 1 << 19):
        part = interleave_rows(prepared, rows)
        lines = part.astype(f">u{depth}").view(np.uint8).reshape(len(part), -1)
        _chunk(file, b"IDAT", packer.compress(_filtered(lines, above, channels * depth)))
        above = lines[-1:]
        evict_pages(prepared.pixels)
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":
        file.write(struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)))


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Filter each line with the filter that leaves the smallest differences."""
    up = np.concatenate([above, lines[:-1]])
    left, corner = _shifted(lines, step), _shifted(up, step)
    choices = {1: lines - left, 2: lines - up, 4: lines - _paeth(left, up, corner)}
    costs = np.stack([np.abs(c.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64) for c in choices.values()])
    best = costs.argmin(0)
    out = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
    for index, (kind, values) in enumerate(choices.items()):
        out[best == index, 0] = kind
        out[best == index, 1:] = values[best == index]
    return out.tobytes()


def _shifted(lines: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    out = np.zeros_like(lines)
    out[:, step:] = lines[:, :-step]
    return out


def _paeth(left: NDArray[Any], up: NDArray[Any], corner: NDArray[Any]) -> NDArray[np.uint8]:
    a, b, c = (plane.astype(np.int16) for plane in (left, up, corner))
    to_left, to_up, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest_up = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest_up)
