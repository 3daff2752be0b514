"""Open files safely: without blocking on a pipe, and noticing if they change while being read."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from srcli.errors import MachineError, PictureError, SrcliError

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@contextmanager
def open_regular(source: Path | bytes, name: str) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        number = os.open(source, _OPEN)
    except (OSError, ValueError) as error:
        raise _unopened(error, name) from error
    before = os.fstat(number)
    if not stat.S_ISREG(before.st_mode):
        os.close(number)
        raise PictureError(f"{name} is {_special(before.st_mode)}, not a picture file: leave it out", "not-a-file")
    with os.fdopen(number, "rb") as file:
        yield file
        after = os.fstat(number)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise PictureError(f"{name} was changed while it was read: run again when it is complete", "changed")


def _special(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((word for test, word in kinds if test(mode)), "a device")


def _unopened(error: OSError | ValueError, name: str) -> SrcliError:
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return PictureError(f"{name} does not exist (any more): check the name", "vanished")
    if number in _FULL:
        return MachineError(f"{name} cannot be opened ({os.strerror(number)}): close other programs")
    if number == errno.ENXIO:
        return PictureError(f"{name} is a socket or a device, not a picture file: leave it out", "not-a-file")
    reason = os.strerror(number) if number else str(error)
    return PictureError(f"{name} cannot be opened ({reason}): check its permissions", "unreadable")
