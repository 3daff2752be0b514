"""Finding pictures: files, folders and lists, one at a time, so that a million need no memory."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from srcli.batch.settings import STDIO, InputOptions
from srcli.errors import InputError, PictureError
from srcli.files import is_dir, is_file
from srcli.imaging.decode import HEAD
from srcli.imaging.detect_format import detect_format
from srcli.imaging.formats import is_picture_suffix
from srcli.imaging.printable import printable

CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that a run has to answer for."""

    path: Path
    root: Path  # the folder that was named, or the file's own: what an output tree mirrors
    turn: int = 0  # which argument, or which line of the list
    size: int = 0
    place: tuple[int, int] = (0, 0)  # device and inode
    problem: tuple[str, str] | None = None  # kind and message: why it cannot even be tried
    walked: bool = False  # met in a folder, and not named itself


class InputFinder:
    """Walks through what was named. Order is the file system's own; the plan sorts."""

    def __init__(self, options: InputOptions, closed: Path | None = None) -> None:
        self._input = options
        apart = (
            closed,
            options.mask and Path(options.mask),
        )  # of outputs and of masks, which are never walked into
        self._closed = {_place(path) for path in apart if path} - {None}
        self.left_out = 0  # files that are no pictures

    def __iter__(self) -> Iterator[FoundFile]:
        for turn, name in enumerate(input_names(self._input)):
            yield from self._argument(turn, name)

    def _argument(self, turn: int, name: str) -> Iterator[FoundFile]:
        path = Path(name)
        if name == STDIO:
            yield FoundFile(path, Path(), turn)
        elif is_dir(path):
            yield from self._walk(turn, path)
        else:
            yield inspect_file(path, path.parent, turn)

    def _walk(self, turn: int, root: Path) -> Iterator[FoundFile]:
        """Symbolic links to files are followed, to folders not: so there are no loops, and nothing comes twice."""
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if not self._wanted(entry):
                            self.left_out += 1
                        elif not entry.is_dir(follow_symlinks=False):
                            yield replace(inspect_file(Path(entry.path), root, turn), walked=True)
                        elif self._input.recursive:
                            folders.append(Path(entry.path))
            except OSError as error:
                yield FoundFile(folder, root, turn, problem=_unseen(folder, error))

    def _wanted(self, entry: os.DirEntry[str]) -> bool:
        if self._closed and _place(entry) in self._closed:
            return False
        if entry.is_dir(follow_symlinks=False):
            return True
        path = Path(entry.path)
        return not is_dir(path) and is_picture(path)


def input_names(options: InputOptions) -> Iterator[str]:
    """The arguments, then the lines of the list: in it, `-` is a file of that name."""
    yield from options.inputs
    if options.listed is not None:
        with _opened(options.listed) as stream:
            for name in _names(stream, b"\0" if options.null else b"\n"):
                yield name if name != STDIO else os.path.join(os.curdir, name)  # noqa: PTH118


def _opened(listed: str) -> AbstractContextManager[BinaryIO]:
    if listed == STDIO:
        return nullcontext(open_stdin())
    try:
        return Path(listed).open("rb")
    except OSError as error:
        raise InputError(f"the list {listed} cannot be read: {error.strerror}") from error


def open_stdin() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("standard input is closed: name files, or feed it")
    return sys.stdin.buffer


def _names(stream: BinaryIO, end: bytes) -> Iterator[str]:
    """Names as the list gives them; only the line end of a DOS file is no part of one."""
    rest = b""
    while chunk := stream.read(CHUNK):
        if end == b"\n" and b"\0" in chunk:
            raise InputError("the list of names has NUL characters, as `find -print0` writes them: give -0")
        *whole, rest = (rest + chunk).split(end)
        yield from map(os.fsdecode, filter(None, (_bare(name, end) for name in whole)))
    if _bare(rest, end):
        yield os.fsdecode(_bare(rest, end))


def _bare(name: bytes, end: bytes) -> bytes:
    return name.removesuffix(b"\r") if end == b"\n" else name


def inspect_file(path: Path, root: Path, turn: int = 0) -> FoundFile:
    """One file, looked at from outside. Nothing but a plain file is ever opened: a pipe would hang for ever."""
    if path == Path(STDIO):
        path, root = path.absolute(), root.absolute()  # a file of that name, not stdin
    try:
        status = path.stat()
    except FileNotFoundError:
        return FoundFile(path, root, turn, problem=("missing", f"{printable(path)} does not exist: check the name"))
    except (OSError, ValueError) as error:
        return FoundFile(path, root, turn, problem=_unseen(path, error))
    place = (status.st_dev, status.st_ino)
    if not stat.S_ISREG(status.st_mode):
        problem = ("not-a-file", f"{printable(path)} is a pipe, socket or device: give a picture file")
        return FoundFile(path, root, turn, place=place, problem=problem)
    return FoundFile(path, root, turn, status.st_size, place)


def _unseen(path: Path, error: OSError | ValueError) -> tuple[str, str]:
    reason = getattr(error, "strerror", None) or error
    return "unreadable", f"{printable(path)} cannot be looked at ({reason}): check its permissions"


def is_picture(path: Path) -> bool:
    """By its extension, or else by how it begins; so notes and databases between pictures are left alone."""
    return is_picture_suffix(path.suffix) or _sniffed(path)


def _sniffed(path: Path) -> bool:
    try:
        if not is_file(path):
            return False
        with path.open("rb") as stream:
            return bool(detect_format(stream.read(HEAD), path.name))
    except (OSError, PictureError):
        return False


def _place(path: Path | os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
