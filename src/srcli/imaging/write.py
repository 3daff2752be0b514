"""Write pictures atomically: a path has either the whole result or its previous content."""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from srcli.errors import MachineError, PictureError, SrcliError
from srcli.files import hash_file, sync_folder, try_lock
from srcli.imaging.format_base import Format
from srcli.imaging.formats import check_format_limits, format_of_name, parse_format
from srcli.imaging.picture import Picture
from srcli.imaging.prepare_output import PreparedOutput, Provenance, SaveOptions, prepare_output
from srcli.imaging.printable import printable

TEMPORARY = ".srcli-*.part"
DEFAULT_SAVE_OPTIONS = SaveOptions()

_CREATE = (os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)) | getattr(
    os, "O_BINARY", 0
)
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EMFILE, errno.ENFILE})


def write_picture(
    picture: Picture,
    target: Path | IO[bytes],
    *,
    format: str | None = None,
    saving: SaveOptions = DEFAULT_SAVE_OPTIONS,
    provenance: Provenance = None,
    on_whole: Callable[[str], None] | None = None,
) -> tuple[str, ...]:
    """Write a picture; returns notes for the user. `format`: by default from the path's suffix.

    `on_whole` gets the hash of a finished file just before it takes the target's place; streams have none.
    """
    row = parse_format(format or "png") if format or not isinstance(target, Path) else format_of_name(target)
    check_format_limits(row, picture.width, picture.height)
    name = printable(target) if isinstance(target, Path) else "standard output"
    try:
        prepared = prepare_output(picture, row, saving, provenance)
        if isinstance(target, Path):
            with _replacing(target, name) as file:
                _encode(picture, prepared, row, saving, file)
                _check(file, prepared.size, row)
                if on_whole is not None:
                    file.seek(0)
                    on_whole(hash_file(file))
        else:
            buffer = io.BytesIO()
            _encode(picture, prepared, row, saving, buffer)
            target.write(buffer.getbuffer())
            target.flush()
    except (SrcliError, BrokenPipeError):
        raise
    except OSError as error:
        raise _unwritten(error, name) from error
    except MemoryError as error:
        raise MachineError(f"{name} does not fit into memory while it is written: make it smaller") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise PictureError(f"{name} cannot be written ({reason}): choose another format", "unwritable") from error
    return tuple(prepared.notes)


@contextmanager
def _replacing(target: Path, name: str) -> Iterator[IO[bytes]]:
    """Like `files.replace_file`, but with the file open, so that it can be locked and checked."""
    temporary = target.parent / TEMPORARY.replace("*", secrets.token_hex(4))
    with os.fdopen(os.open(temporary, _CREATE, 0o666), "w+b") as file:
        try_lock(file.fileno())  # leftovers of killed runs are not locked, and can be removed
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()  # Windows replaces closed files only
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                file.close()
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)


def _unwritten(error: OSError, name: str) -> SrcliError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return MachineError(f"{name} cannot be written ({reason}): free some space")
    if error.errno in _FOLDER:
        return MachineError(f"{name} cannot be written ({reason}): check the folder and its permissions")
    if error.errno == errno.EIO:
        return MachineError(f"{name} cannot be written ({reason}): check the disk")
    remedy = "choose another name" if error.errno else "choose another format"
    return PictureError(f"{name} cannot be written ({reason}): {remedy}", "unwritable")


def _check(file: IO[bytes], size: tuple[int, int], row: Format) -> None:
    """Check that the written file opens and has the right size."""
    file.flush()
    file.seek(0)
    if (found := row.measure(file, row, None)) != size:
        raise PictureError(f"the file came out as {found} instead of {size}: write PNG", "unwritable")


def _encode(picture: Picture, prepared: PreparedOutput, row: Format, saving: SaveOptions, file: IO[bytes]) -> None:
    if row.write is None:
        raise PictureError(f"srcli does not write {row.name}: choose another format", "unwritable")
    exact = row.name == picture.format and picture.lossless
    row.write(prepared, file, saving.quality or (None if exact else row.quality))
