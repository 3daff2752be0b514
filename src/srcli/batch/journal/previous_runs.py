"""What journals of earlier runs tell: which results stand, and which pictures are better left alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.batch.journal.file import PICTURE, FileStamp, read_records, text_or_none
from srcli.batch.planning.output_names import is_numbered_name
from srcli.batch.report import FAILED
from srcli.files import hash_file, is_file

TABLES = """
CREATE TABLE made (source BLOB, recipe TEXT, target BLOB, status TEXT, kind TEXT, input TEXT, input_stamp TEXT,
                   output TEXT, output_stamp TEXT);
CREATE INDEX by_source ON made (source, recipe);
CREATE INDEX by_target ON made (target, source);
"""
COLUMNS = "status, kind, target, input, input_stamp, output, output_stamp"


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

    def same_input(self, path: Path) -> bool:
        return _same(path, [self.input_stamp], [self.input_sha256])

    def stands(self) -> bool:
        """Is the result still there, as it was written?"""
        return self.target is not None and _same(self.target, [self.output_stamp], [self.output_sha256])


class PreviousRuns:
    """Journals, read into a private temporary database: a long one needs no memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(TABLES)

    def read(self, path: Path) -> None:
        """Learn from a journal, if there is one. What makes no sense in it is passed over."""
        folder = path.parent.resolve()
        for record in read_records(path) if is_file(path) else ():
            if record.get("event") == PICTURE and isinstance(record.get("source"), str):
                with suppress(ValueError):  # a name that can be none
                    self._learn(folder, record)

    def made(self, target: Path, source: Path | None = None) -> bool:
        """Did an earlier run write what stands there (of this source, if one is given), byte for byte?"""
        query = "SELECT output_stamp, output FROM made WHERE target = ?" + " AND source = ?" * bool(source)
        rows = self._db.execute(query, (_key(target), *([_key(source)] if source else []))).fetchall()
        stamps, hashes = zip(*rows, strict=True) if rows else ((), ())
        return _same(target, stamps, hashes)

    def of(self, source: Path, recipe: str, target: Path) -> Attempt | None:
        """The last that happened to it on its way to `target`, or to a numbered name that it got instead."""
        query = f"SELECT {COLUMNS} FROM made WHERE source = ? AND recipe = ? ORDER BY rowid DESC"
        for row in self._db.execute(query, (_key(source), recipe)):
            past = _past(row)
            if past.target is None or is_numbered_name(past.target, Path(os.fsdecode(_key(target)))):
                return past
        return None

    def _learn(self, folder: Path, record: dict[str, Any]) -> None:
        source, target = (_found(folder, record.get(name)) for name in ("source", "target"))
        given, put = (found if isinstance(found := record.get(name), dict) else {} for name in ("input", "output"))
        if record.get("status") == FAILED and given.get("stamp") is None:
            return  # decided without a look at the file; what was known of it stays known
        row = (
            *(
                source,
                text_or_none(record.get("recipe")),
                target,
                text_or_none(record.get("status")),
                text_or_none(record.get("kind")),
            ),
            *(text_or_none(given.get("sha256")), _text(given.get("stamp"))),
            *(text_or_none(put.get("sha256")), _text(put.get("stamp"))),
        )
        self._db.execute("INSERT INTO made VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _past(row: tuple[Any, ...]) -> Attempt:
    status, kind, target, *rest = row
    return Attempt(status, kind, Path(os.fsdecode(target)) if target else None, *rest)


def _found(folder: Path, name: object) -> bytes:
    return _key(folder / name) if isinstance(name, str) else b""


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.normpath(path.parent.resolve() / path.name))


def _text(stamp: object) -> str | None:
    return None if stamp is None else str(stamp)


def _same(path: Path, stamps: Sequence[str | None], hashes: Sequence[str | None]) -> bool:
    """By one of the stamps, or else by what is in it."""
    try:
        return str(FileStamp.of(path).fields()) in stamps or (any(hashes) and hash_file(path) in hashes)
    except OSError:
        return False
