"""Find pictures in files, folders and lists, one at a time, so that memory use does not grow with their number."""

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
from srcli.imaging.decode import SNIFFED_BYTES
from srcli.imaging.detect_format import detect_format
from srcli.imaging.formats import is_picture_suffix
from srcli.imaging.printable import printable

LIST_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that the run will report on."""

    path: Path
    root: Path  # the named folder, or the file's own; output paths are relative to it
    turn: int = 0  # position among the arguments and lines of the list
    size: int = 0
    file_id: tuple[int, int] = (0, 0)  # device and inode
    problem: tuple[str, str] | None = None  # kind and message, if it cannot be read at all
    walked: bool = False  # found in a folder, not named by the user
    frame: int = 0  # which page or frame of the file, from 1; 0 if the file is one picture


class InputFinder:
    """Iterates over all named inputs, in file system order; the plan sorts them.

    It never enters `output_folder` or the folders of masks and other side pictures.
    """

    def __init__(self, options: InputOptions, output_folder: Path | None = None) -> None:
        self._input = options
        excluded = (output_folder, *options.named_sides().values())
        self._excluded = {_file_id(path) for path in excluded if path} - {None}
        self.left_out = 0  # files that are not pictures

    def __iter__(self) -> Iterator[FoundFile]:
        for turn, name in enumerate(input_names(self._input)):
            yield from self._expand(turn, name)

    def _expand(self, turn: int, name: str) -> Iterator[FoundFile]:
        path = Path(name)
        if name == STDIO:
            yield FoundFile(path, Path(), turn)
        elif is_dir(path):
            yield from self._walk(turn, path)
        else:
            yield inspect_file(path, path.parent, turn)

    def _walk(self, turn: int, root: Path) -> Iterator[FoundFile]:
        """Follow symbolic links to files but not to folders, which avoids loops and duplicates."""
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if not self._is_wanted(entry):
                            self.left_out += 1
                        elif not entry.is_dir(follow_symlinks=False):
                            yield replace(inspect_file(Path(entry.path), root, turn), walked=True)
                        elif self._input.recursive:
                            folders.append(Path(entry.path))
            except OSError as error:
                yield FoundFile(folder, root, turn, problem=_inspection_problem(folder, error))

    def _is_wanted(self, entry: os.DirEntry[str]) -> bool:
        if self._excluded and _file_id(entry) in self._excluded:
            return False
        if entry.is_dir(follow_symlinks=False):
            return True
        path = Path(entry.path)
        return not is_dir(path) and is_picture(path)


def input_names(options: InputOptions) -> Iterator[str]:
    """The arguments, then the lines of the list; in the list, `-` is a file name."""
    yield from options.inputs
    if options.listed is not None:
        with _open_list(options.listed) as stream:
            for name in _split_names(stream, b"\0" if options.null else b"\n"):
                yield name if name != STDIO else os.path.join(os.curdir, name)  # noqa: PTH118


def _open_list(listed: str) -> AbstractContextManager[BinaryIO]:
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


def _split_names(stream: BinaryIO, end: bytes) -> Iterator[str]:
    """Split a list into file names, without the carriage returns of DOS line ends."""
    rest = b""
    while chunk := stream.read(LIST_CHUNK):
        if end == b"\n" and b"\0" in chunk:
            raise InputError("the list of names has NUL characters, as `find -print0` writes them: give -0")
        *whole, rest = (rest + chunk).split(end)
        yield from map(os.fsdecode, filter(None, (_strip_return(name, end) for name in whole)))
    if _strip_return(rest, end):
        yield os.fsdecode(_strip_return(rest, end))


def _strip_return(name: bytes, end: bytes) -> bytes:
    return name.removesuffix(b"\r") if end == b"\n" else name


def inspect_file(path: Path, root: Path, turn: int = 0) -> FoundFile:
    """Check one path with stat, without opening it: opening a pipe could block forever."""
    if path == Path(STDIO):
        path, root = path.absolute(), root.absolute()  # a file of that name, not stdin
    try:
        status = path.stat()
    except FileNotFoundError:
        return FoundFile(path, root, turn, problem=("missing", f"{printable(path)} does not exist: check the name"))
    except (OSError, ValueError) as error:
        return FoundFile(path, root, turn, problem=_inspection_problem(path, error))
    file_id = (status.st_dev, status.st_ino)
    if not stat.S_ISREG(status.st_mode):
        problem = ("not-a-file", f"{printable(path)} is a pipe, socket or device: give a picture file")
        return FoundFile(path, root, turn, file_id=file_id, problem=problem)
    return FoundFile(path, root, turn, status.st_size, file_id)


def _inspection_problem(path: Path, error: OSError | ValueError) -> tuple[str, str]:
    reason = getattr(error, "strerror", None) or error
    return "unreadable", f"{printable(path)} cannot be inspected ({reason}): check its permissions"


def is_picture(path: Path) -> bool:
    """Return whether a file has the extension of a picture, or starts like one."""
    return is_picture_suffix(path.suffix) or _starts_like_picture(path)


def _starts_like_picture(path: Path) -> bool:
    try:
        if not is_file(path):
            return False
        with path.open("rb") as stream:
            return bool(detect_format(stream.read(SNIFFED_BYTES), path.name))
    except (OSError, PictureError):
        return False


def _file_id(path: Path | os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
