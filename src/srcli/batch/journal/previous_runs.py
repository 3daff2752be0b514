"""What the journals of earlier runs say: which results are up to date, what is better left alone, and totals.

A journal is only believed about results inside its own folder: it may have come with somebody else's album.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.batch.journal.file import JOURNAL_NAME, PICTURE, RUN, STARTED, FileStamp, read_records, text_or_none
from srcli.batch.planning.output_names import is_numbered_name
from srcli.batch.report import DONE, FAILED
from srcli.errors import InputError
from srcli.files import exists, hash_file, is_dir, lexists, real_path
from srcli.imaging.printable import counted, printable

TABLES = """
CREATE TABLE attempts (name TEXT, source BLOB, recipe TEXT, target BLOB, status TEXT, kind TEXT, message TEXT,
                       seconds REAL, input TEXT, input_stamp TEXT, output TEXT, output_stamp TEXT);
CREATE INDEX by_source ON attempts (source, recipe);
CREATE INDEX by_target ON attempts (target, source);
"""
COLUMNS = "status, kind, target, input, input_stamp, output, output_stamp"
INSERT = f"INSERT INTO attempts VALUES ({', '.join('?' * 12)})"
# A failure that was decided without a look at the file (no stamp) leaves what was known of the file in force.
LOOKED = f"(status IS NOT '{FAILED}' OR input_stamp IS NOT NULL)"
LAST = "(SELECT * FROM attempts WHERE rowid IN (SELECT max(rowid) FROM attempts GROUP BY source))"
SLOWEST = 5


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last that is known of a picture under one recipe."""

    status: str
    kind: str | None
    target: Path | None
    input_sha256: str | None
    input_stamp: str | None
    output_sha256: str | None
    output_stamp: str | None

    def has_same_input(self, path: Path) -> bool:
        """Is the picture the one that this attempt was about?"""
        return _is_unchanged(path, [self.input_stamp], [self.input_sha256])

    def has_result(self) -> bool:
        """Is the result still there, as it was written?"""
        return self.target is not None and _is_unchanged(self.target, [self.output_stamp], [self.output_sha256])


@dataclass(frozen=True, slots=True)
class JournalSummary:
    """Totals, the slowest pictures, and failures by class with an example each."""

    runs: int
    done: int
    failed: int
    unfinished: int  # begun by a run that was killed, and not ended by any
    seconds: float
    slowest: list[tuple[str, float]]
    failures: list[tuple[str, int, str]]

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: getattr(self, name) for name in ("runs", "done", "failed", "unfinished")},
            "seconds": round(self.seconds, 3),
            "slowest": [{"source": source, "seconds": seconds} for source, seconds in self.slowest],
            "failures": [{"kind": k, "count": count, "example": text} for k, count, text in self.failures],
        }

    def lines(self) -> list[str]:
        """For people."""
        total = counted(self.done + self.failed + self.unfinished, "picture")
        each = f", {self.seconds / self.done:.2f} s each" if self.done else ""
        out = [f"{total} in {counted(self.runs, 'run')}: {self.done} done{each}, {self.failed} failed"]
        if self.unfinished:
            out.append(f"{self.unfinished} begun and not finished: run the same command again")
        if self.slowest:
            out.append("slowest:")
            out += [f"  {seconds:8.2f} s  {printable(source)}" for source, seconds in self.slowest]
        if self.failures:
            out.append("failures:")
            out += [f"  {count:6} {kind}: {printable(text)}" for kind, count, text in self.failures]
        return out


class PreviousRuns:
    """Journals, read into a private temporary database: a long one needs no memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(TABLES)
        self.runs = 0

    def read(self, path: Path) -> None:
        """Learn from a journal, if there is one. What makes no sense in it is passed over."""
        folder = real_path(path.parent)
        for record in read_records(path) if lexists(path) else ():
            self.runs += record.get("event") == RUN
            if record.get("event") == PICTURE and isinstance(record.get("source"), str):
                with suppress(ValueError):  # a name that can be none
                    self._learn(folder, record)

    def wrote(self, target: Path, source: Path | None = None) -> bool:
        """Did an earlier run write what is there (from this source, if one is given), byte for byte?"""
        query = "SELECT output_stamp, output FROM attempts WHERE target = ?" + " AND source = ?" * bool(source)
        rows = self._db.execute(query, (_key(target), *([_key(source)] if source else []))).fetchall()
        stamps, hashes = zip(*rows, strict=True) if rows else ((), ())
        return _is_unchanged(target, stamps, hashes)

    def last_attempt(self, source: Path, recipe: str, target: Path) -> Attempt | None:
        """The last that happened to it on its way to `target`, or to a numbered name that it got instead."""
        query = f"SELECT {COLUMNS} FROM attempts WHERE source = ? AND recipe = ? AND {LOOKED} ORDER BY rowid DESC"
        for row in self._db.execute(query, (_key(source), recipe)):
            attempt = _attempt(row)
            if attempt.target is None or is_numbered_name(attempt.target, Path(os.fsdecode(_key(target)))):
                return attempt
        return None

    def summarize(self) -> JournalSummary:
        """The last word on every picture, over all runs."""
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
            slowest=self._db.execute(slowest, (DONE, SLOWEST)).fetchall(),
            failures=self._db.execute(failures, (FAILED,)).fetchall(),
        )

    def _learn(self, folder: Path, record: dict[str, Any]) -> None:
        source, target = (_named(folder, record.get(name)) for name in ("source", "target"))
        if target and not Path(os.fsdecode(target)).is_relative_to(folder):
            target = b""  # not its business
        given, put = (found if isinstance(found := record.get(name), dict) else {} for name in ("input", "output"))
        told = [_plain(record.get(name)) for name in ("status", "kind", "message")]
        row = (
            *(_plain(record["source"]), source, _plain(record.get("recipe")), target, *told),
            *(_number(record.get("seconds")), _plain(given.get("sha256")), _text(given.get("stamp"))),
            *(_plain(put.get("sha256")), _text(put.get("stamp"))),
        )
        self._db.execute(INSERT, row)


def summarize_journal(path: Path) -> JournalSummary:
    """Read a journal, or that of a folder."""
    if is_dir(path):
        path = path / JOURNAL_NAME
    if not exists(path):
        raise InputError(f"no journal {printable(path)}: give the folder of a run over more than one picture")
    runs = PreviousRuns()
    runs.read(path)
    if not runs.runs:
        raise InputError(f"{printable(path)} is no journal of srcli: give a {JOURNAL_NAME} or its folder")
    return runs.summarize()


def _attempt(row: tuple[Any, ...]) -> Attempt:
    status, kind, target, *rest = row
    return Attempt(status, kind, Path(os.fsdecode(target)) if target else None, *rest)


def _named(folder: Path, name: object) -> bytes:
    return _key(folder / name) if isinstance(name, str) else b""


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.normpath(real_path(path.parent) / path.name))


def _plain(value: object) -> str | None:
    """Names that are not UTF-8 come as lone surrogates, which SQLite does not take."""
    text = text_or_none(value)
    return None if text is None else printable(text)


def _number(value: object) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0


def _text(stamp: object) -> str | None:
    return None if stamp is None else str(stamp)


def _is_unchanged(path: Path, stamps: Sequence[str | None], hashes: Sequence[str | None]) -> bool:
    """By one of the stamps, or else by what is in it."""
    try:
        return str(FileStamp.of(path).fields()) in stamps or (any(hashes) and hash_file(path) in hashes)
    except OSError:
        return False
