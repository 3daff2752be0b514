"""The journal of a folder of results: one JSON object per line, synced to disk and valid after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from srcli.errors import InputError, MachineError, unwritable_file
from srcli.files import create_folder, open_own_file, real_path, try_lock
from srcli.imaging.printable import printable

JOURNAL_NAME = ".srcli-journal.jsonl"
STARTED, RUN, PICTURE, END = "started", "run", "picture", "end"
Record = Mapping[str, Any]
LONGEST_RECORD = 1 << 20  # bytes; lines of srcli have a few thousand


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Size and times of a file; while they are unchanged, its content is not read again."""

    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def fields(self) -> list[int]:
        return [self.size, self.modified, self.changed]


class JournalFile:
    """A journal open for appending, locked so that two runs cannot write the same results."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME
        self.folder = real_path(folder)
        try:
            create_folder(folder)
            self._file = open_own_file(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            reason = f"the journal {printable(self.path)} cannot be opened ({error.strerror})"
            raise MachineError(f"{reason}: give another -o, or --no-journal") from error
        if not try_lock(self._file):
            self.close()
            raise MachineError(
                f"another run is writing to {printable(folder)}: wait for it, or give another folder with -o"
            )
        self._end_line()

    def close(self) -> None:
        os.close(self._file)

    def begin(self, recipe: str, settings: Mapping[str, object], pictures: int) -> None:
        """Write the first line of a run, with all settings and the number of its pictures."""
        head = {"pid": os.getpid(), "pictures": pictures, "recipe": recipe, "settings": settings}
        self._add({"event": RUN, "time": _now(), **head})

    def end(self, left: int) -> None:
        """Write the last line of a run that was not killed."""
        self._add({"event": END, "time": _now(), "left": left})

    def add(self, **fields: object) -> None:
        """Append a line about one picture; it is synced to disk when this returns."""
        self._add({"event": PICTURE, "time": _now(), **fields})

    def name(self, path: Path) -> str:
        """A path relative to the journal's folder, so that both can be moved together."""
        whole = real_path(path.parent) / path.name
        return os.path.relpath(whole, self.folder)

    def _add(self, record: Record) -> None:
        line = json.dumps(record, default=str).encode("ascii") + b"\n"
        before = os.fstat(self._file).st_size
        try:
            while line:  # a nearly full disk may take only a part
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, before)
            raise unwritable_file(f"the journal {printable(self.path)}", error, "free some space") from error

    def _end_line(self) -> None:
        """End the partial line that a killed run may have left."""
        size = os.fstat(self._file).st_size
        if not size:
            return
        os.lseek(self._file, size - 1, os.SEEK_SET)
        if os.read(self._file, 1) != b"\n":
            os.write(self._file, b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class ReadPosition:
    """How far a journal has been read."""

    file_id: tuple[int, int] = (0, 0)  # device and inode
    offset: int = 0  # bytes, up to the end of the last whole line

    def seek(self, file: IO[bytes]) -> None:
        """Go to this position of the file, or to the beginning if it is another file or was cut."""
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) != self.file_id or status.st_size < self.offset:
            self.file_id, self.offset = (status.st_dev, status.st_ino), 0
        file.seek(self.offset)


def read_records(path: Path, position: ReadPosition | None = None) -> Iterator[dict[str, Any]]:
    """The records of a journal after `position`, which moves on; incomplete and invalid lines are skipped."""
    position = position or ReadPosition()
    try:
        with os.fdopen(open_own_file(path, os.O_RDONLY, anyone=True), "rb") as file:
            position.seek(file)
            for line in _read_lines(file, position):
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record
    except OSError as error:
        raise InputError(f"the journal {printable(path)} cannot be read: {error.strerror}") from error


def _read_lines(file: IO[bytes], position: ReadPosition) -> Iterator[bytes]:
    """The lines of a file, without those that are longer than a record can be."""
    at_start = True  # of a line
    while line := file.readline(LONGEST_RECORD):
        ended = line.endswith(b"\n")
        if ended:
            position.offset = file.tell()
            if at_start:
                yield line
        at_start = ended


def text_or_none(value: object) -> str | None:
    """The value if it is a string, else None; journals may be from other versions or edited."""
    return value if isinstance(value, str) else None


def result_key(input_sha256: str, recipe: str) -> str:
    """Identifies a result by its input and its recipe."""
    return hashlib.sha256(f"{input_sha256} {recipe}".encode()).hexdigest()
