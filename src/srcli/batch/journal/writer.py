"""What one run writes into its journal, from whichever thread it happens in."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from srcli.batch.journal.file import STARTED, FileStamp, JournalFile
from srcli.batch.planning.plan import Item
from srcli.batch.report import DONE, FAILED, Outcome
from srcli.batch.settings import BatchSettings
from srcli.batch.workers.base import Result
from srcli.files import hash_file


class JournalWriter:
    """Says of every picture what is about to happen, and what did."""

    def __init__(self, settings: BatchSettings, folder: Path) -> None:
        self._recipe, self._seed, self._models = settings.recipe(), settings.job.seed, settings.lock
        self._journal = JournalFile(folder)
        self._lock = threading.Lock()
        self._stamps: dict[Path, FileStamp] = {}
        self._recipes: dict[Path, str] = {}
        self._results: dict[Path, str] = {}  # hashes of those that are about to take their places
        self.path = self._journal.path
        self._journal.begin(self._recipe, settings.result_settings())

    def close(self) -> None:
        self._journal.close()

    def reading(self, item: Item) -> None:
        """Look at a file before it is read: what is written about it later is about this state."""
        self._recipes[item.path] = item.recipe
        with contextlib.suppress(OSError):  # stdin has none, and what has vanished fails by itself
            self._stamps[item.path] = FileStamp.of(item.path)

    def started(self, item: Item, made: Result, sha256: str) -> None:
        """The result is about to take its place. After a kill, its hash tells whether it did."""
        self._results[item.path] = sha256
        self._add(item.path, item.target, STARTED, made.picture.sha256, output={"sha256": sha256})

    def done(self, outcome: Outcome, made: Result) -> None:
        if outcome.target is None:
            return
        output = {"sha256": self._results[outcome.source], "stamp": FileStamp.of(outcome.target).fields()}
        told = {"output": output, "seconds": round(outcome.seconds, 3), "size": outcome.size}
        self._add(outcome.source, outcome.target, DONE, made.picture.sha256, **told)
        self._forget(outcome.source)

    def confirmed(self, item: Item) -> None:
        """A result that an earlier run was about to put in its place is there."""
        self.reading(item)
        output = {"sha256": hash_file(item.target), "stamp": FileStamp.of(item.target).fields()}
        self._add(item.path, item.target, DONE, hash_file(item.path), output=output)
        self._forget(item.path)

    def failed(self, outcome: Outcome) -> None:
        if outcome.status == FAILED:
            told = {"kind": outcome.kind, "message": outcome.message, "seconds": round(outcome.seconds, 3)}
            self._add(outcome.source, None, FAILED, None, **told)
            self._forget(outcome.source)

    def _forget(self, source: Path) -> None:
        for kept in (self._stamps, self._recipes, self._results):
            kept.pop(source, None)

    def _add(self, source: Path, target: Path | None, status: str, sha256: str | None, **told: object) -> None:
        stamp = self._stamps.get(source)
        given = {"sha256": sha256, "stamp": stamp.fields() if stamp else None}
        settings = {"recipe": self._recipes.get(source, self._recipe), "seed": self._seed, "lock": self._models}
        names = {"source": self._journal.name(source), "target": target and self._journal.name(target)}
        with self._lock:
            self._journal.add(**names, status=status, input=given, **told, **settings)
