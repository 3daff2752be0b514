"""The journal of a folder of results: one JSON object a line, written so that no kill can make it lie."""

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

from srcli.errors import InputError, MachineError
from srcli.files import create_folder, open_own_file, real_path, try_lock
from srcli.imaging.printable import printable

JOURNAL_NAME = ".srcli-journal.jsonl"
STARTED, RUN, PICTURE = "started", "run", "picture"
Record = Mapping[str, Any]
LONGEST_LINE = 1 << 20  # bytes; ours have some thousand


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What a file looks like from outside. While it stays the same, its content need not be read again."""

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
    """Open for appending, and locked: two runs must not write the same results."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME
        self.folder = real_path(folder)
        try:
            create_folder(folder)
            self._file = open_own_file(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            reason = f"the journal {printable(self.path)} cannot be opened ({error.strerror})"
            text = f"{reason}: give another -o, or --no-journal"
            raise MachineError(text) from error
        if not try_lock(self._file):
            self.close()
            raise MachineError(
                f"another run is writing to {printable(folder)}: wait for it, or give another folder with -o"
            )
        self._end_line()

    def close(self) -> None:
        os.close(self._file)

    def begin(self, recipe: str, settings: Mapping[str, object]) -> None:
        """The head of a run: all settings, once."""
        self._add({"event": RUN, "time": _now(), "pid": os.getpid(), "recipe": recipe, "settings": settings})

    def add(self, **fields: object) -> None:
        """What happened to one picture. On disk when this returns, whatever happens then."""
        self._add({"event": PICTURE, "time": _now(), **fields})

    def name(self, path: Path) -> str:
        """A path as the journal tells it: from its own folder, so that both may move together."""
        whole = real_path(path.parent) / path.name
        return os.path.relpath(whole, self.folder)

    def _add(self, record: Record) -> None:
        line = json.dumps(record, default=str).encode("ascii") + b"\n"
        before = os.fstat(self._file).st_size
        try:
            while line:  # a disk that is filling up takes a part
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, before)
            text = f"the journal {printable(self.path)} cannot be written ({error.strerror}): free some space"
            raise MachineError(text) from error

    def _end_line(self) -> None:
        """A run that was killed may have left half a line."""
        size = os.fstat(self._file).st_size
        if not size:
            return
        os.lseek(self._file, size - 1, os.SEEK_SET)
        if os.read(self._file, 1) != b"\n":
            os.write(self._file, b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """All that a journal holds. Lines that a kill cut short, and lines of nonsense, are passed over."""
    try:
        with os.fdopen(open_own_file(path, os.O_RDONLY, anyone=True), "rb") as file:
            for line in _lines(file):
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record
    except OSError as error:
        raise InputError(f"the journal {printable(path)} cannot be read: {error.strerror}") from error


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, but those that are too long to be ours."""
    whole = True
    while line := file.readline(LONGEST_LINE):
        if whole and line.endswith(b"\n"):
            yield line
        whole = line.endswith(b"\n")


def text_or_none(value: object) -> str | None:
    """A text of a record. Journals may be of other versions, or of other hands."""
    return value if isinstance(value, str) else None


def result_key(input_sha256: str, recipe: str) -> str:
    """Names a result: what it was made of, and how."""
    return hashlib.sha256(f"{input_sha256} {recipe}".encode()).hexdigest()
