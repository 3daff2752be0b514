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
from typing import Any

from srcli.errors import InputError, MachineError
from srcli.imaging.printable import printable

JOURNAL_NAME = ".srcli-journal.jsonl"
STARTED, RUN, PICTURE = "started", "run", "picture"
Record = Mapping[str, Any]


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
        self.folder = folder.resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            reason = f"the journal {printable(self.path)} cannot be opened ({error.strerror})"
            text = f"{reason}: give another -o, or --no-journal"
            raise MachineError(text) from error
        try:
            _lock(self._file)
        except OSError as error:
            self.close()
            raise MachineError(
                f"another run is writing to {printable(folder)}: wait for it, or give another folder with -o"
            ) from error
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
        whole = path.parent.resolve() / path.name
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
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


def _lock(file: int) -> None:
    with contextlib.suppress(ImportError):  # Windows has no such lock
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """All that a journal holds. A line that a kill cut short is passed over."""
    try:
        with path.open("rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record
    except OSError as error:
        raise InputError(f"the journal {printable(path)} cannot be read: {error.strerror}") from error


def text_or_none(value: object) -> str | None:
    """A text of a record. Journals may be of other versions, or of other hands."""
    return value if isinstance(value, str) else None


def result_key(input_sha256: str, recipe: str) -> str:
    """Names a result: what it was made of, and how."""
    return hashlib.sha256(f"{input_sha256} {recipe}".encode()).hexdigest()
