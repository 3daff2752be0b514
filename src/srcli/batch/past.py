"""What journals of earlier runs tell: which results stand, and which pictures are better left alone."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.batch.journal import PICTURE, STARTED, Journal, Stamp, digest, records
from srcli.batch.report import DONE

TABLES = """
CREATE TABLE made (source BLOB, recipe TEXT, target BLOB, status TEXT, kind TEXT, input TEXT, input_stamp TEXT,
                   output TEXT, output_stamp TEXT, PRIMARY KEY (source, recipe));
CREATE TABLE owner (target BLOB PRIMARY KEY, source BLOB, recipe TEXT);
"""


@dataclass(frozen=True, slots=True)
class Past:
    """The last that is known of a picture under one recipe."""

    status: str
    kind: str | None
    target: Path | None
    input_sha256: str | None
    input_stamp: str | None
    output_sha256: str | None
    output_stamp: str | None

    def same_input(self, path: Path) -> bool:
        return _same(path, self.input_stamp, self.input_sha256)

    def stands(self) -> bool:
        """Is the result still there, as it was written?"""
        return self.target is not None and _same(self.target, self.output_stamp, self.output_sha256)


class Memory:
    """Journals, read into a private temporary database: a long one needs no memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(TABLES)

    def read(self, journal: Journal) -> None:
        """Later lines replace earlier ones."""
        for record in records(journal.path):
            if record.get("event") == PICTURE and isinstance(record.get("source"), str):
                self._learn(journal, record)

    def of(self, source: Path, recipe: str) -> Past | None:
        query = "SELECT status, kind, target, input, input_stamp, output, output_stamp FROM made"
        row = self._db.execute(f"{query} WHERE source = ? AND recipe = ?", (_key(source), recipe)).fetchone()
        if row is None:
            return None
        status, kind, target, *rest = row
        return Past(status, kind, Path(os.fsdecode(target)) if target else None, *rest)

    def ours(self, target: Path, source: Path) -> bool:
        """Was what stands at `target` made from `source` by an earlier run, and left as it was written?"""
        row = self._db.execute("SELECT source, recipe FROM owner WHERE target = ?", (_key(target),)).fetchone()
        if row is None or row[0] != _key(source):
            return False
        past = self.of(source, row[1])
        # Begun and not ended: the run died between writing the file and saying so, or before either.
        return past is not None and (past.status == STARTED or (past.status == DONE and past.stands()))

    def _learn(self, journal: Journal, record: dict[str, Any]) -> None:
        source, target = (_found(journal, record.get(name)) for name in ("source", "target"))
        given, put = record.get("input") or {}, record.get("output") or {}
        row = (
            *(source, record.get("recipe"), target, record.get("status"), record.get("kind")),
            *(given.get("sha256"), _text(given.get("stamp")), put.get("sha256"), _text(put.get("stamp"))),
        )
        self._db.execute("INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        if target is not None and record.get("status") in (STARTED, DONE):
            self._db.execute("INSERT OR REPLACE INTO owner VALUES (?, ?, ?)", (target, source, record.get("recipe")))


def _found(journal: Journal, name: object) -> bytes | None:
    return _key(journal.find(name)) if isinstance(name, str) else None


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.normpath(path.parent.resolve() / path.name))


def _text(stamp: object) -> str | None:
    return None if stamp is None else str(stamp)


def _same(path: Path, stamp: str | None, sha256: str | None) -> bool:
    """By its stamp, or else by what is in it."""
    try:
        return str(Stamp.of(path).fields()) == stamp or digest(path) == sha256
    except OSError:
        return False
