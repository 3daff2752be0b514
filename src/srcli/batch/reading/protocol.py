"""Messages between a run and its reading process: a JSON header, then raw bytes of arrays and byte strings.

The reading process handles untrusted files, so its messages can only contain the types listed here.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srcli.batch.settings import NO_SIDES, InputOptions, SidePictures
from srcli.imaging.icc import IccProfile
from srcli.imaging.picture import Metadata, Picture

LENGTH = struct.Struct("<Q")
LONGEST_HEADER = 1 << 26  # bytes
MOST_PARTS = 1000
LARGEST_PART = 1 << 36  # bytes
PIXEL_DTYPES = ("uint8", "uint16")
TYPE = "$"


class ProtocolError(Exception):
    """The received bytes are not a valid message."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request about a file (or the bytes in `data`): its picture, size, number of frames, or provenance."""

    path: Path
    data: bytes | None
    input: InputOptions
    want: str
    sides: SidePictures = NO_SIDES
    frame: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in place of a picture."""

    message: str
    kind: str


CLASSES: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (ReadRequest, Refusal, InputOptions, SidePictures, Picture, Metadata, IccProfile)
}


def send_message(stream: BinaryIO, message: object) -> None:
    parts: list[memoryview[Any]] = []
    value = _encode(message, parts)
    header = json.dumps({"value": value, "parts": [part.nbytes for part in parts]}).encode("ascii")
    stream.write(LENGTH.pack(len(header)) + header)
    for part in parts:
        stream.write(part)
    stream.flush()


def receive_message(stream: BinaryIO) -> Any:
    """Read the next message. Raises EOFError if the other side has closed, ProtocolError for an invalid message."""
    (length,) = LENGTH.unpack(_read_exactly(stream, LENGTH.size))
    if length > LONGEST_HEADER:
        raise ProtocolError(f"a header of {length} bytes")
    try:
        header = json.loads(_read_exactly(stream, length))
        sizes = header["parts"]
        if len(sizes) > MOST_PARTS or not all(type(size) is int and 0 <= size <= LARGEST_PART for size in sizes):
            raise ProtocolError("invalid part sizes")
        return _decode(header["value"], [_read_exactly(stream, size) for size in sizes])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"invalid message: {type(error).__name__}") from error


def _encode(value: Any, parts: list[memoryview[Any]]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_encode(item, parts) for item in value]
    if isinstance(value, tuple):
        return {TYPE: "tuple", "items": [_encode(item, parts) for item in value]}
    if isinstance(value, dict):
        return {TYPE: "dict", "items": {key: _encode(item, parts) for key, item in value.items()}}
    if isinstance(value, Path):
        return {TYPE: "path", "text": str(value)}
    if isinstance(value, bytes):
        return {TYPE: "bytes", "part": _add(parts, memoryview(value))}
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value).reshape(-1)
        layout = {"dtype": value.dtype.name, "shape": list(value.shape)}
        return {TYPE: "array", "part": _add(parts, flat.view(np.uint8).data), **layout}
    inside = {field.name: _encode(getattr(value, field.name), parts) for field in fields(value)}
    return {TYPE: type(value).__name__, "fields": inside}


def _add(parts: list[memoryview[Any]], part: memoryview[Any]) -> int:
    parts.append(part)
    return len(parts) - 1


def _decode(value: Any, parts: list[bytearray]) -> Any:
    if isinstance(value, list):
        return [_decode(item, parts) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value[TYPE]
    if kind == "tuple":
        return tuple(_decode(item, parts) for item in value["items"])
    if kind == "dict":
        return {key: _decode(item, parts) for key, item in value["items"].items()}
    if kind == "path":
        return Path(value["text"])
    if kind == "bytes":
        return bytes(parts[value["part"]])
    if kind == "array":
        return _decode_array(parts[value["part"]], value["dtype"], value["shape"])
    values = {name: _decode(item, parts) for name, item in value["fields"].items()}
    return CLASSES[kind](**values)


def _decode_array(data: bytearray, dtype: str, shape: list[int]) -> Any:
    if dtype not in PIXEL_DTYPES or math.prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise ProtocolError("invalid array")
    return np.frombuffer(data, dtype).reshape(shape)


def _read_exactly(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        got = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        filled += got
    return data
