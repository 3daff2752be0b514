"""What a journal adds up to: the last word on every picture, over all runs."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.batch.journal.file import JOURNAL_NAME, PICTURE, RUN, STARTED, read_records, text_or_none
from srcli.batch.report import DONE, FAILED
from srcli.errors import InputError
from srcli.files import exists, is_dir
from srcli.imaging.printable import printable

TABLE = "CREATE TABLE last (source TEXT PRIMARY KEY, status TEXT, kind TEXT, message TEXT, seconds REAL)"
SLOWEST = 5


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
        total = self.done + self.failed + self.unfinished
        each = f", {self.seconds / self.done:.2f} s each" if self.done else ""
        out = [f"{total} pictures in {self.runs} runs: {self.done} done{each}, {self.failed} failed"]
        if self.unfinished:
            out.append(f"{self.unfinished} begun and not finished: run the same command again")
        if self.slowest:
            out.append("slowest:")
            out += [f"  {seconds:8.2f} s  {printable(source)}" for source, seconds in self.slowest]
        if self.failures:
            out.append("failures:")
            out += [f"  {count:6} {kind}: {printable(text)}" for kind, count, text in self.failures]
        return out


def summarize_journal(path: Path) -> JournalSummary:
    """Read a journal, or that of a folder."""
    if is_dir(path):
        path = path / JOURNAL_NAME
    if not exists(path):
        raise InputError(f"no journal {printable(path)}: give the folder of a run over more than one picture")
    db, runs = sqlite3.connect(""), 0
    db.execute(TABLE)
    for record in read_records(path):
        runs += record.get("event") == RUN
        if record.get("event") == PICTURE:
            told = [_plain(record.get(name)) for name in ("source", "status", "kind", "message")]
            db.execute("INSERT OR REPLACE INTO last VALUES (?, ?, ?, ?, ?)", [*told, _number(record.get("seconds"))])
    if not runs:
        raise InputError(f"{printable(path)} is no journal of srcli: give a {JOURNAL_NAME} or its folder")
    count = dict(db.execute("SELECT status, count(*) FROM last GROUP BY status"))
    slowest = "SELECT source, seconds FROM last WHERE status = ? ORDER BY seconds DESC, source LIMIT ?"
    failures = "SELECT kind, count(*), min(message) FROM last WHERE status = ? GROUP BY kind ORDER BY 2 DESC, kind"
    (seconds,) = db.execute("SELECT coalesce(sum(seconds), 0) FROM last WHERE status = ?", (DONE,)).fetchone()
    return JournalSummary(
        runs=runs,
        done=count.get(DONE, 0),
        failed=count.get(FAILED, 0),
        unfinished=count.get(STARTED, 0),
        seconds=seconds,
        slowest=db.execute(slowest, (DONE, SLOWEST)).fetchall(),
        failures=db.execute(failures, (FAILED,)).fetchall(),
    )


def _plain(value: object) -> str | None:
    """Names that are not UTF-8 come as lone surrogates, which SQLite does not take."""
    text = text_or_none(value)
    return None if text is None else printable(text)


def _number(value: object) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0
