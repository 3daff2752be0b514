"""Write the journal of one run; safe to call from any thread."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from srcli.batch.journal.file import STARTED, FileStamp, JournalFile
from srcli.batch.planning.plan import Item
from srcli.batch.report import DONE, FAILED, Outcome
from srcli.batch.settings import BatchSettings
from srcli.batch.workers.base import ComputedPicture
from srcli.files import hash_file

FrameKey = tuple[Path, int]  # a source, and which of its frames


class JournalWriter:
    """Records the start and the outcome of every picture."""

    def __init__(self, settings: BatchSettings, folder: Path, pictures: int) -> None:
        self._recipe, self._seed, self._models = settings.recipe(), settings.job.seed, settings.lock
        self._journal = JournalFile(folder)
        self._lock = threading.Lock()
        self._stamps: dict[FrameKey, FileStamp] = {}
        self._recipes: dict[FrameKey, str] = {}
        self._results: dict[FrameKey, str] = {}  # SHA-256 of results that are about to be renamed into place
        self.path = self._journal.path
        self._journal.begin(self._recipe, settings.result_settings(), pictures)

    def close(self) -> None:
        self._journal.close()

    def end(self, left: int) -> None:
        with self._lock:
            self._journal.end(left)

    def note_reading(self, item: Item) -> None:
        """Remember the stamp of a file, before it is read, for later records."""
        key = item.path, item.found.frame
        self._recipes[key] = item.recipe
        with contextlib.suppress(OSError):  # stdin has no stamp, and a deleted file fails when it is read
            self._stamps[key] = FileStamp.of(item.path)

    def add_started(self, item: Item, computed: ComputedPicture, sha256: str) -> None:
        """Record that the result is about to be renamed into place; after a kill, its hash shows whether it was."""
        key = item.path, item.found.frame
        self._results[key] = sha256
        self._add(key, item.target, STARTED, computed.picture.sha256, output={"sha256": sha256})

    def add_done(self, outcome: Outcome, computed: ComputedPicture) -> None:
        if outcome.target is None:
            return
        key = outcome.source, outcome.frame
        output = {"sha256": self._results[key], "stamp": FileStamp.of(outcome.target).fields()}
        fields = {"output": output, "seconds": round(outcome.seconds, 3), "size": outcome.size}
        self._add(key, outcome.target, DONE, computed.picture.sha256, **fields)
        self._forget(key)

    def add_confirmed(self, item: Item) -> None:
        """Record that a result which an interrupted run had announced exists."""
        self.note_reading(item)
        key = item.path, item.found.frame
        output = {"sha256": hash_file(item.target), "stamp": FileStamp.of(item.target).fields()}
        self._add(key, item.target, DONE, hash_file(item.path), output=output)
        self._forget(key)

    def add_failed(self, outcome: Outcome) -> None:
        if outcome.status == FAILED:
            key = outcome.source, outcome.frame
            fields = {"kind": outcome.kind, "message": outcome.message, "seconds": round(outcome.seconds, 3)}
            self._add(key, None, FAILED, None, **fields)
            self._forget(key)

    def _forget(self, key: FrameKey) -> None:
        for values in (self._stamps, self._recipes, self._results):
            values.pop(key, None)

    def _add(self, key: FrameKey, target: Path | None, status: str, sha256: str | None, **fields: object) -> None:
        source, frame = key
        stamp = self._stamps.get(key)
        source_facts = {"sha256": sha256, "stamp": stamp.fields() if stamp else None}
        settings = {"recipe": self._recipes.get(key, self._recipe), "seed": self._seed, "lock": self._models}
        names = {"source": self._journal.name(source), "target": target and self._journal.name(target)}
        frame_field = {"frame": frame} if frame else {}
        with self._lock:
            self._journal.add(**names, **frame_field, status=status, input=source_facts, **fields, **settings)
