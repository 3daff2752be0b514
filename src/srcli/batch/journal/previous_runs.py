"""Read the journals of earlier runs: which results are up to date, which inputs crashed, and totals.

A journal is trusted only about results inside its own folder, since it may come from someone else.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from srcli.batch.journal.file import (
    END,
    JOURNAL_NAME,
    PICTURE,
    RUN,
    STARTED,
    FileStamp,
    ReadPosition,
    read_records,
    text_or_none,
)
from srcli.batch.planning.output_names import is_numbered_name
from srcli.batch.report import DONE, FAILED
from srcli.errors import InputError
from srcli.files import hash_file, is_dir, path_exists, path_or_link_exists, real_path
from srcli.imaging.printable import format_count, printable

ATTEMPT_SCHEMA = """
CREATE TABLE attempts (name TEXT, source BLOB, recipe TEXT, target BLOB, status TEXT, kind TEXT, message TEXT,
                       seconds REAL, input TEXT, input_stamp TEXT, output TEXT, output_stamp TEXT, frame INTEGER);
CREATE INDEX by_source ON attempts (source, recipe);
CREATE INDEX by_target ON attempts (target, source);
"""
ATTEMPT_COLUMNS = "status, kind, target, input, input_stamp, output, output_stamp"
INSERT = f"INSERT INTO attempts VALUES ({', '.join('?' * 13)})"
# A failure recorded before the input was read (no stamp) does not replace earlier attempts.
READ_INPUT = f"(status IS NOT '{FAILED}' OR input_stamp IS NOT NULL)"
LAST = "(SELECT * FROM attempts WHERE rowid IN (SELECT max(rowid) FROM attempts GROUP BY source, frame))"
SLOWEST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last attempt on a picture with one recipe."""

    status: str
    kind: str | None
    target: Path | None
    input_sha256: str | None
    input_stamp: str | None
    output_sha256: str | None
    output_stamp: str | None

    def has_same_input(self, path: Path) -> bool:
        """Return whether the picture is unchanged since this attempt."""
        return _is_unchanged(path, [self.input_stamp], [self.input_sha256])

    def has_result(self) -> bool:
        """Return whether the result exists and is unchanged."""
        return self.target is not None and _is_unchanged(self.target, [self.output_stamp], [self.output_sha256])


@dataclass(frozen=True, slots=True)
class JournalSummary:
    """Totals, the slowest pictures, and failures by kind with an example each."""

    runs: int
    done: int
    failed: int
    unfinished: int  # started by a run that was killed, and not finished since
    seconds: float
    left: int | None  # pictures of the last run that are not done; None where its journal does not say
    elapsed: float  # seconds from the first to the last record of each run
    slowest: list[tuple[str, float]]
    failures: list[tuple[str, int, str]]

    @property
    def per_minute(self) -> float:
        """Results per minute of run time."""
        return 60 * self.done / self.elapsed if self.elapsed else 0.0

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: getattr(self, name) for name in ("runs", "done", "failed", "unfinished")},
            "seconds": round(self.seconds, 3),
            "left": self.left,
            "elapsed": self.elapsed,
            "per_minute": round(self.per_minute, 2),
            "slowest": [{"source": source, "seconds": seconds} for source, seconds in self.slowest],
            "failures": [{"kind": k, "count": count, "example": text} for k, count, text in self.failures],
        }

    def lines(self) -> list[str]:
        """For people."""
        total = format_count(self.done + self.failed + self.unfinished, "picture")
        each = f", {self.seconds / self.done:.2f} s each" if self.done else ""
        left = f", {self.left} left" if self.left is not None else ""
        out = [f"{total} in {format_count(self.runs, 'run')}: {self.done} done{each}, {self.failed} failed{left}"]
        if self.elapsed:
            out.append(f"{timedelta(seconds=self.elapsed)} elapsed, {self.per_minute:.1f} a minute")
        if self.unfinished:
            out.append(f"{self.unfinished} begun and not finished: run the same command again")
        if self.slowest:
            out.append("slowest:")
            out += [f"  {seconds:8.2f} s  {printable(source)}" for source, seconds in self.slowest]
        if self.failures:
            out.append("failures:")
            out += [f"  {count:6} {kind}: {printable(text)}" for kind, count, text in self.failures]
        return out


@dataclass
class RunClock:
    """How long the runs took, and how many pictures the last one left, from the records of a journal."""

    pictures: int | None = None
    ended_with: int | None = None
    elapsed: float = 0.0
    _last: datetime | None = None

    def read_record(self, record: dict[str, Any]) -> None:
        event, now = record.get("event"), _parse_time(record.get("time"))
        if event == RUN:
            pictures = record.get("pictures")
            self.pictures, self.ended_with = pictures if type(pictures) is int else None, None
        elif now is not None and self._last is not None:
            self.elapsed += max(0.0, (now - self._last).total_seconds())
        if event == END and type(record.get("left")) is int:
            self.ended_with = record["left"]
        self._last = now or self._last

    def left(self, ended: int) -> int | None:
        """Pictures left by the last run, given the number of all that ended. A killed run did not record it."""
        if self.ended_with is not None or self.pictures is None:
            return self.ended_with
        return max(0, self.pictures - ended)


def _parse_time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else None


class PreviousRuns:
    """What journals say, in a private temporary database, so that long journals need little memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(ATTEMPT_SCHEMA)
        self.runs = 0
        self._clock = RunClock()
        self._positions: dict[Path, ReadPosition] = {}

    def read(self, path: Path) -> None:
        """Read what was added to a journal since it was last read here; invalid records are skipped."""
        if not path_or_link_exists(path):
            return
        folder, position = real_path(path.parent), self._positions.setdefault(path, ReadPosition())
        for record in read_records(path, position):
            self.runs += record.get("event") == RUN
            self._clock.read_record(record)
            if record.get("event") == PICTURE and isinstance(record.get("source"), str):
                with suppress(ValueError):  # not a valid file name
                    self._insert(folder, record)

    def wrote(self, target: Path, source: Path | None = None) -> bool:
        """Return whether an earlier run wrote exactly this file (from `source`, if given)."""
        query = "SELECT output_stamp, output FROM attempts WHERE target = ?" + " AND source = ?" * bool(source)
        rows = self._db.execute(query, (_encode_path(target), *([_encode_path(source)] if source else []))).fetchall()
        stamps, hashes = zip(*rows, strict=True) if rows else ((), ())
        return _is_unchanged(target, stamps, hashes)

    def last_attempt(self, source: Path, recipe: str, target: Path) -> Attempt | None:
        """The last attempt whose target is `target` or one of its numbered names."""
        where = f"source = ? AND recipe = ? AND {READ_INPUT}"
        query = f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE {where} ORDER BY rowid DESC"
        for row in self._db.execute(query, (_encode_path(source), recipe)):
            status, kind, written, *rest = row
            path = Path(os.fsdecode(written)) if written else None
            if path is None or is_numbered_name(path, Path(os.fsdecode(_encode_path(target)))):
                return Attempt(status, kind, path, *rest)
        return None

    def summarize(self) -> JournalSummary:
        """Totals over the last attempt of every picture."""
        count = dict(self._db.execute(f"SELECT status, count(*) FROM {LAST} GROUP BY status"))
        slowest = f"SELECT name, seconds FROM {LAST} WHERE status = ? ORDER BY seconds DESC, name LIMIT ?"
        failures = (
            f"SELECT kind, count(*), min(message) FROM {LAST} WHERE status = ? GROUP BY kind ORDER BY 2 DESC, kind"
        )
        total = f"SELECT coalesce(sum(seconds), 0) FROM {LAST} WHERE status = ?"
        return JournalSummary(
            runs=self.runs,
            done=count.get(DONE, 0),
            failed=count.get(FAILED, 0),
            unfinished=count.get(STARTED, 0),
            seconds=self._db.execute(total, (DONE,)).fetchone()[0],
            left=self._clock.left(count.get(DONE, 0) + count.get(FAILED, 0)),
            elapsed=self._clock.elapsed,
            slowest=self._db.execute(slowest, (DONE, SLOWEST_SHOWN)).fetchall(),
            failures=self._db.execute(failures, (FAILED,)).fetchall(),
        )

    def _insert(self, folder: Path, record: dict[str, Any]) -> None:
        source, target = (_path_key(folder, record.get(name)) for name in ("source", "target"))
        if target and not Path(os.fsdecode(target)).is_relative_to(folder):
            target = b""  # outside of the journal's folder
        read, written = (found if isinstance(found := record.get(name), dict) else {} for name in ("input", "output"))
        texts = [_to_plain_text(record.get(name)) for name in ("status", "kind", "message")]
        row = (
            *(_to_plain_text(record["source"]), source, _to_plain_text(record.get("recipe")), target, *texts),
            *(_to_seconds(record.get("seconds")), _to_plain_text(read.get("sha256")), _stamp_text(read.get("stamp"))),
            *(_to_plain_text(written.get("sha256")), _stamp_text(written.get("stamp"))),
            frame if type(frame := record.get("frame")) is int and 0 < frame < 1 << 31 else 0,
        )
        self._db.execute(INSERT, row)


def summarize_journal(path: Path) -> JournalSummary:
    """Read a journal, or that of a folder."""
    if is_dir(path):
        path = path / JOURNAL_NAME
    if not path_exists(path):
        raise InputError(
            f"there is no journal {printable(path)}: give the result folder of a run over several pictures"
        )
    runs = PreviousRuns()
    runs.read(path)
    if not runs.runs:
        raise InputError(f"{printable(path)} is not a srcli journal: give a {JOURNAL_NAME} or its folder")
    return runs.summarize()


def _path_key(folder: Path, name: object) -> bytes:
    return _encode_path(folder / name) if isinstance(name, str) else b""


def _encode_path(path: Path) -> bytes:
    return os.fsencode(os.path.normpath(real_path(path.parent) / path.name))


def _to_plain_text(value: object) -> str | None:
    """The string without lone surrogates, which stand for non-UTF-8 names and which SQLite rejects."""
    text = text_or_none(value)
    return None if text is None else printable(text)


def _to_seconds(value: object) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0


def _stamp_text(stamp: object) -> str | None:
    return None if stamp is None else str(stamp)


def _is_unchanged(path: Path, stamps: Sequence[str | None], hashes: Sequence[str | None]) -> bool:
    """Return whether a file matches one of the stamps, or else one of the hashes."""
    try:
        return str(FileStamp.of(path).fields()) in stamps or (any(hashes) and hash_file(path) in hashes)
    except OSError:
        return False
