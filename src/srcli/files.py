"""File system helpers: checks that do not raise, hashing, locks, and atomic writes."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from itertools import count
from operator import or_
from pathlib import Path
from typing import IO

from srcli.errors import MachineError

UNFINISHED_PREFIX = ".srcli-"  # prefix of a file that is still being written


def expand_user(text: str) -> Path:
    """The path that a user typed. `Path.expanduser` raises for the home of a user who does not exist."""
    return Path(os.path.expanduser(text))  # noqa: PTH111


# `Path.exists` and the like raise PermissionError for unreadable folders and OSError for names that are too long.


def path_exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110


def path_or_link_exists(path: Path) -> bool:
    """Return whether anything has this name, including a dangling symbolic link."""
    return os.path.lexists(path)


def is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


def is_dir(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def is_regular(path: Path) -> bool:
    """Is this a file itself, and no link to one?"""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_own_folder(path: Path) -> bool:
    """Is this a folder of this user, and no link to one?"""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and _is_own(status)


def same_file(one: Path, other: Path) -> bool:
    """Return whether both paths lead to the same file or folder."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def hash_file(source: Path | IO[bytes]) -> str:
    """SHA-256 (hex) of a file, or of the unread rest of an open one."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return hash_file(file)
    return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes; a pipe, a device or a larger file is an OSError."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content


def open_guard(path: Path) -> IO[bytes]:
    """Open a lock file, creating it if needed; anything but a regular file is an OSError."""
    return os.fdopen(open_own_file(path, os.O_RDWR | os.O_CREAT, anyone=True), "rb+", buffering=0)


def open_own_file(path: Path, flags: int, mode: int = 0o600, *, anyone: bool = False) -> int:
    """A descriptor of a regular file of this user (or of `anyone`); a pipe, a folder or a link is an OSError.

    In a folder from someone else, a link may lead anywhere, and opening a pipe may block.
    """
    extra = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    try:
        number = os.open(path, reduce(or_, extra, flags), mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        raise
    status = os.fstat(number)
    if (reason := _not_own(status, anyone)) is not None:
        os.close(number)
        raise OSError(errno.EPERM, reason, str(path))
    return number


def _not_own(status: os.stat_result, anyone: bool) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if not anyone and not _is_own(status):
        return "it belongs to another user"
    if not anyone and status.st_nlink > 1:
        return "it has a second name elsewhere"
    return None


def _is_own(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def wait_for_lock(file: int) -> None:
    """Lock an open file until it is closed, once nobody else has. Where there are no locks, all have it."""
    from filelock import lock_descriptor  # imports asyncio, which every start of srcli would wait for

    with suppress(OSError):
        lock_descriptor(file)


def try_lock(file: int) -> bool:
    """Lock an open file until it is closed; False if another process holds it. Without lock support, always True."""
    from filelock import lock_descriptor

    try:
        return lock_descriptor(file, blocking=False)
    except OSError:
        return True


def real_path(path: Path) -> Path:
    """The path with symbolic links resolved. Unlike `Path.resolve`, loops of links do not raise."""
    return Path(os.path.realpath(path))


def create_folder(folder: Path) -> None:
    """Create a folder and its parents, and sync them so that they survive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path_exists(path)]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def make_folder(folder: Path, instead: str = "folder") -> None:
    """Create a folder and its parents. Raises MachineError, which asks for another `instead`."""
    try:
        create_folder(folder)
    except OSError as error:
        raise MachineError(
            f"the folder {folder} cannot be created ({error.strerror}): give another {instead}"
        ) from error


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces the target atomically, on failure it is removed."""
    fresh = target.with_name(UNFINISHED_PREFIX + secrets.token_hex(4))
    os.close(open_own_file(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield fresh
        with fresh.open("rb+") as file:
            os.fsync(file.fileno())
        fresh.replace(target)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    sync_folder(target.parent)


def name_beside(result: Path, ending: str) -> Path:
    """The PNG file that belongs to a result: NAME_map.png for NAME.jpg and the ending `_map`."""
    return result.with_name(f"{result.stem}{ending}.png")


def numbered_names(path: Path) -> Iterator[Path]:
    """Alternative names: NAME-2.EXT, NAME-3.EXT, ..."""
    return (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))


def sync_folder(folder: Path) -> None:
    """Sync a folder so that a new name in it survives a power cut, where the system supports that."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
