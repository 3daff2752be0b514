"""The reading process: decodes untrusted files with limited rights and memory, and may crash without harm."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

from srcli.batch.reading.protocol import ReadRequest, Refusal, receive_message, send_message
from srcli.batch.settings import InputOptions
from srcli.errors import SrcliError
from srcli.group_signals import ignore_group_signals
from srcli.imaging.inpaint import mark_damage
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable
from srcli.imaging.provenance import read_provenance
from srcli.imaging.read import count_frames, read_picture, read_size
from srcli.imaging.strokes import add_reference, add_strokes
from srcli.memory import GIB

BYTES_PER_PIXEL = 64  # generous: this stops runaway decoders, `max_pixels` stops large pictures


def answer_requests() -> None:
    """Answer requests on stdin until it closes."""
    requests, replies = os.fdopen(os.dup(0), "rb", closefd=True), os.fdopen(os.dup(1), "wb")
    # Output that a codec prints must not mix with the replies.
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(0, 2)
    # Signals reach the whole process group, but only the run reacts to them; this process ends with it.
    ignore_group_signals()
    warnings.simplefilter("ignore")
    tempfile.gettempdir()  # finds the folder by writing a file, which the limits below forbid
    with contextlib.suppress(EOFError, BrokenPipeError):
        send_message(replies, None)
        while True:
            send_message(replies, _answer(receive_message(requests)))


def _answer(request: ReadRequest) -> object:
    try:
        _limit_process(request.input.max_pixels, len(request.data or b""))
        if request.want == "size":
            return read_size(request.path, max_pixels=request.input.max_pixels)
        if request.want == "frames":
            return count_frames(request.path, max_pixels=request.input.max_pixels)
        if request.want == "provenance":
            return read_provenance(request.path)
        return _read_with_sides(request)
    except SrcliError as error:
        return Refusal(str(error), getattr(error, "kind", "machine"))
    except Exception as error:
        return Refusal(
            f"{printable(request.path)} cannot be read: {type(error).__name__}: {error}", type(error).__name__
        )


ADD_SIDE = {"mask": mark_damage, "hint": add_strokes, "reference": add_reference}


def _read_with_sides(request: ReadRequest) -> Picture:
    """Read the picture, and add its mask, strokes and reference."""
    picture = _read_one(request.path if request.data is None else request.data, request.input, request.frame)
    for role, path in request.sides.by_role().items():
        picture = ADD_SIDE[role](picture, _read_one(path, request.input))
    return picture


def _read_one(source: Path | bytes, options: InputOptions, frame: int = 0) -> Picture:
    return read_picture(
        source,
        max_pixels=options.max_pixels,
        frames=options.frames,
        frame=frame,
        allow_truncated=options.allow_truncated,
    )


def _limit_process(pixels: int, data_bytes: int) -> None:
    """Limit this process: no core dumps, no files larger than the received bytes (some libraries read from a copy on
    disk), and memory for the largest allowed picture."""
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return
    for kind, most in (
        (resource.RLIMIT_FSIZE, data_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, 4 * GIB + BYTES_PER_PIXEL * pixels),
    ):
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    answer_requests()
