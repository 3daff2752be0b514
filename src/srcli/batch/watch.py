"""Watch folders: pictures that come are done once they are complete. Batches do the work, their journal remembers it.

Folders are looked at again and again instead of asking the system for news: that works on network shares too, which
send none, and misses nothing that came while the program was busy or not running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.batch.journal.file import FileStamp
from srcli.batch.planning.inputs import InputFinder
from srcli.batch.planning.plan import SameTarget
from srcli.batch.report import Report, Tally
from srcli.batch.settings import STDIO, BatchSettings, PipelineFactory
from srcli.batch.signals import watch_signals
from srcli.batch.stages import StopRequest
from srcli.errors import InputError, check_range
from srcli.files import is_dir
from srcli.imaging.printable import printable
from srcli.messages import Tell, forward_messages

if TYPE_CHECKING:
    from srcli.pipeline import EnginePipeline

LEAST_INTERVAL, MOST_INTERVAL = 0.1, 3600.0  # seconds
RunRound = Callable[[BatchSettings, Callable[[Path], bool]], Report]  # settings, and which of their inputs are meant


@dataclass
class FolderWatch:
    """What was seen in the folders, and what of it was given to a batch."""

    settings: BatchSettings
    _seen: dict[Path, FileStamp] = field(default_factory=dict)
    _done: dict[Path, FileStamp] = field(default_factory=dict)

    def find_complete(self) -> dict[Path, FileStamp]:
        """Files that no batch has had as they are, and that have not changed since this was called before."""
        now = dict(self._look())
        complete = {path: stamp for path, stamp in now.items() if stamp.size and self._seen.get(path) == stamp}
        self._seen = now
        self._done = {path: stamp for path, stamp in self._done.items() if path in now}
        return {path: stamp for path, stamp in complete.items() if self._done.get(path) != stamp}

    def mark_done(self, files: dict[Path, FileStamp]) -> None:
        """One that changes later is done again."""
        self._done |= files

    def _look(self) -> dict[Path, FileStamp]:
        output = self.settings.output.path
        found = dict[Path, FileStamp]()
        for file in InputFinder(self.settings.input, None if output is None else Path(output)):
            try:
                found[file.path] = FileStamp.of(file.path)
            except OSError:  # deleted in the meantime
                continue
        return {path: stamp for path, stamp in found.items() if not is_dir(path)}


@dataclass(frozen=True, slots=True)
class HeldFactory(PipelineFactory):
    """Loads a pipeline once, and gives the same to every batch after."""

    inner: PipelineFactory = field(kw_only=True)
    _held: list[EnginePipeline] = field(default_factory=list, compare=False)

    def load(self, tell: Callable[[str], None], preview: Path | None = None) -> EnginePipeline:
        if not self._held:
            self._held.append(self.inner.load(tell, preview))
        forward_messages(tell)
        return self._held[0]


def watch_folders(settings: BatchSettings, interval: float, run_round: RunRound, tell: Tell) -> int:
    """Run a batch whenever pictures are complete, until a signal. Returns the exit code of all together."""
    settings = prepare_settings(settings, interval)
    tell(f"watching {', '.join(printable(Path(name)) for name in settings.input.inputs)}; Ctrl-C ends it")
    watch, tally, stop = FolderWatch(settings), Tally(), StopRequest(wake=lambda: None)
    with watch_signals(stop, lambda: None):
        while not stop.asked.is_set():
            for report in _run_rounds(settings, watch, run_round):
                _add_report(tally, report)
                if report.signal is not None and report.left:
                    return report.exit_code
                if report.signal is not None or (report.failed and settings.run.fail_fast):
                    return _exit_code(tally)
            stop.asked.wait(interval)
    return _exit_code(tally)


def _run_rounds(settings: BatchSettings, watch: FolderWatch, run_round: RunRound) -> Iterator[Report]:
    """One batch of what is complete; a batch each where two of them have one name for their results."""
    complete = watch.find_complete()
    watch.mark_done(complete)
    if not complete:
        return
    try:
        yield run_round(settings, complete.__contains__)
    except SameTarget:
        for path in sorted(complete):
            yield run_round(settings, {path}.__contains__)


def prepare_settings(settings: BatchSettings, interval: float) -> BatchSettings:
    """Settings of each batch. Raises InputError for what cannot be watched."""
    options = settings.input
    if options.listed is not None or not options.inputs:
        raise InputError("watch takes folders: name them")
    if strange := [name for name in options.inputs if not is_dir(Path(name))]:
        raise InputError(f"{printable(Path(strange[0]))} is not a folder: name folders to watch")
    if settings.output.path == STDIO:
        raise InputError("-o - takes one picture, and watch goes on: give a folder")
    if settings.run.workers > 1 or settings.run.ray is not None:
        raise InputError("watch does one picture after the other: leave out --workers and --ray")
    if settings.run.journal is False:
        raise InputError("the journal is what watch remembers by: leave out --no-journal")
    check_range("--every", interval, LEAST_INTERVAL, MOST_INTERVAL)
    factory = settings.factory
    held = HeldFactory(factory.choice, factory.device, factory.repair, inner=factory)
    return replace(settings, run=replace(settings.run, journal=True), factory=held)


def _add_report(tally: Tally, report: Report) -> None:
    tally.done += report.done
    tally.skipped += report.skipped
    tally.failed += report.failed
    tally.codes |= report.codes


def _exit_code(tally: Tally) -> int:
    """Nothing was left to do: the signal that ended the wait is the usual end."""
    return Report(tally.ended, tally.done, tally.skipped, tally.failed, 0.0, frozenset(tally.codes)).exit_code
