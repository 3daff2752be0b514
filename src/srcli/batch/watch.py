"""Watch folders and process new pictures once they are complete. Each round is a batch with a journal.

Folders are polled instead of using file system notifications: that also works on network shares, which send none, and
misses nothing that was added while the program was busy or not running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.batch.journal.file import FileStamp
from srcli.batch.journal.previous_runs import PreviousRuns
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
# Runs a batch over those of the inputs for which the function is true; the journals of all rounds are read once.
RunRound = Callable[[BatchSettings, Callable[[Path], bool], PreviousRuns], Report]


@dataclass
class FolderWatch:
    """The files seen in the folders, and those that a batch has processed."""

    settings: BatchSettings
    _seen: dict[Path, FileStamp] = field(default_factory=dict)
    _done: dict[Path, FileStamp] = field(default_factory=dict)

    def find_complete(self) -> dict[Path, FileStamp]:
        """Files that have not changed since the last call, and that no batch has processed in this state."""
        now = dict(self._scan_folders())
        complete = {path: stamp for path, stamp in now.items() if stamp.size and self._seen.get(path) == stamp}
        self._seen = now
        self._done = {path: stamp for path, stamp in self._done.items() if path in now}
        return {path: stamp for path, stamp in complete.items() if self._done.get(path) != stamp}

    def mark_done(self, files: dict[Path, FileStamp]) -> None:
        """Leave these files out from now on, unless they change."""
        self._done |= files

    def _scan_folders(self) -> dict[Path, FileStamp]:
        output = self.settings.output.path
        found = dict[Path, FileStamp]()
        for file in InputFinder(self.settings.input, None if output is None else Path(output)):
            try:
                found[file.path] = FileStamp.of(file.path)
            except OSError:  # deleted in the meantime
                continue
        return {path: stamp for path, stamp in found.items() if not is_dir(path)}


@dataclass(frozen=True, slots=True)
class CachedFactory(PipelineFactory):
    """Loads the pipeline once, and returns the same one to all later batches."""

    inner: PipelineFactory = field(kw_only=True)
    _loaded: list[EnginePipeline] = field(default_factory=list, compare=False)

    def load(self, tell: Callable[[str], None], preview: Path | None = None) -> EnginePipeline:
        if not self._loaded:
            self._loaded.append(self.inner.load(tell, preview))
        forward_messages(tell)
        return self._loaded[0]


def watch_folders(settings: BatchSettings, interval: float, run_round: RunRound, tell: Tell) -> int:
    """Run a batch whenever pictures are complete, until a signal. Returns the exit code of all batches together."""
    settings = prepare_settings(settings, interval)
    tell(f"watching {', '.join(printable(Path(name)) for name in settings.input.inputs)}; Ctrl-C ends it")
    watch, tally, previous = FolderWatch(settings), Tally(), PreviousRuns()
    stop = StopRequest(wake=lambda: None)
    with watch_signals(stop, lambda: None):
        while not stop.asked.is_set():
            for report in _run_rounds(settings, watch, run_round, previous):
                tally.add_counts(report)
                if report.signal is not None and report.left:
                    return report.exit_code
                if report.signal is not None or (report.failed and settings.run.fail_fast):
                    return tally.exit_code
            stop.asked.wait(interval)
    return tally.exit_code


def _run_rounds(
    settings: BatchSettings, watch: FolderWatch, run_round: RunRound, previous: PreviousRuns
) -> Iterator[Report]:
    """Run one batch of all complete files, or one batch for each if two of their results would have the same name."""
    complete = watch.find_complete()
    watch.mark_done(complete)
    if not complete:
        return
    try:
        yield run_round(settings, complete.__contains__, previous)
    except SameTarget:
        for path in sorted(complete):
            yield run_round(settings, {path}.__contains__, previous)


def prepare_settings(settings: BatchSettings, interval: float) -> BatchSettings:
    """The settings of each batch. Raises InputError for options that do not work with watch."""
    options = settings.input
    if options.listed is not None or not options.inputs:
        raise InputError("watch takes folders and no list: name them")
    if wrong := [name for name in options.inputs if not is_dir(Path(name))]:
        raise InputError(f"{printable(Path(wrong[0]))} is not a folder: name folders to watch")
    if settings.output.path == STDIO:
        raise InputError("-o - takes one picture, but watch makes many: give a folder")
    if settings.run.workers > 1 or settings.run.ray is not None:
        raise InputError("watch uses one process: leave out --workers and --ray")
    if settings.run.journal is False:
        raise InputError("watch finds what is done in the journal: leave out --no-journal")
    check_range("--every", interval, LEAST_INTERVAL, MOST_INTERVAL)
    factory = settings.factory
    cached = CachedFactory(factory.choice, factory.device, factory.repair, inner=factory)
    return replace(settings, run=replace(settings.run, journal=True), factory=cached)
