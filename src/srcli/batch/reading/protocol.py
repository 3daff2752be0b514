"""Messages between the run and its reading process: pickles with their arrays beside them, never copied into them."""

from __future__ import annotations

import io
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from srcli.batch.settings import InputOptions

HEAD = struct.Struct("<Q")
NAMES = {
    "srcli.batch.reading.protocol": ("Request", "Refusal"),
    "srcli.batch.settings": ("InputOptions",),
    "srcli.imaging.picture": ("Picture", "Metadata"),
    "srcli.imaging.icc": ("Profile",),
    "numpy": ("ndarray", "dtype"),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy._core.multiarray": ("_reconstruct",),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy.core.multiarray": ("_reconstruct",),
    "pathlib": ("PosixPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
}
PARTS = 1000
MOST = 1 << 36  # bytes of one part; more is no message of ours


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a file: its picture (or that in these bytes), its size, or how we made it."""

    path: Path
    data: bytes | None
    input: InputOptions
    want: str
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no picture."""

    message: str
    kind: str


class _Careful(pickle.Unpickler):
    """Opens only what pictures are made of: the other side has met files that nobody vouches for."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a picture")
        return super().find_class(module, name)


def send_message(stream: BinaryIO, message: object) -> None:
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts: list[bytes | memoryview[int]] = [body, *(buffer.raw() for buffer in buffers)]
    stream.write(HEAD.pack(len(parts)) + b"".join(HEAD.pack(len(part)) for part in parts))
    for part in parts:
        stream.write(part)
    stream.flush()


def receive_message(stream: BinaryIO) -> Any:
    """The next message. EOFError when the other side is gone, UnpicklingError when it talks nonsense."""
    count = _number(stream)
    if not 0 < count <= PARTS:
        raise pickle.UnpicklingError(f"no message has {count} parts")
    sizes = [_number(stream) for _ in range(count)]
    parts = [_exactly(stream, size) for size in sizes]
    try:
        return _Careful(io.BytesIO(parts[0]), buffers=parts[1:]).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        raise pickle.UnpicklingError(f"no message: {type(error).__name__}") from error


def _number(stream: BinaryIO) -> int:
    value: int = HEAD.unpack(_exactly(stream, HEAD.size))[0]
    if value > MOST:
        raise EOFError
    return value


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        got = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        filled += got
    return data
