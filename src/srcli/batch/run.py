"""Run a batch: plan all pictures, process them, and return a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from srcli.batch.journal.file import JOURNAL_NAME, result_key
from srcli.batch.journal.previous_runs import PreviousRuns
from srcli.batch.journal.writer import JournalWriter
from srcli.batch.listener import Listener
from srcli.batch.planning.decide import Decider
from srcli.batch.planning.inputs import InputFinder
from srcli.batch.planning.map_files import MapNamer
from srcli.batch.planning.output_names import OutputNamer, OwnOutputs, least_factor
from srcli.batch.planning.plan import BatchPlan, Item
from srcli.batch.planning.preflight import check_folders, check_output_space, check_preview_file
from srcli.batch.reading.reader import ReaderPool
from srcli.batch.report import FAILED, Outcome, Report, Tally
from srcli.batch.settings import STDIO, BatchSettings
from srcli.batch.signals import watch_signals
from srcli.batch.stages import Inbox, Stages, Steps, StopRequest
from srcli.batch.workers.base import ComputedPicture, Workers
from srcli.batch.workers.local import LocalWorker
from srcli.batch.write_result import ResultWriter
from srcli.errors import InputError
from srcli.imaging.picture import Picture
from srcli.imaging.printable import format_count, printable
from srcli.messages import Tell
from srcli.tasks import LOADING

if TYPE_CHECKING:
    from srcli.batch.workers.pool import WorkerBackend


IsWanted = Callable[[Path], bool]


def run_batch(
    settings: BatchSettings,
    listener: Listener,
    only: IsWanted | None = None,
    previous: PreviousRuns | None = None,
) -> Report:
    """Process every picture. Raises errors that end the whole run; failures of single pictures are in the report.

    `only`: whether to take a file of the named folders; with it, a run without any picture is no error.
    `previous`: earlier runs, if their journals have been read; only what was added since is read.
    """
    with ExitStack() as stack:
        stop = StopRequest()
        stack.enter_context(watch_signals(stop, listener.cut_off))
        return _Run(settings, listener, stop, stack, only, previous or PreviousRuns()).run()


def plan_pictures(
    settings: BatchSettings,
    namer: OutputNamer,
    previous: PreviousRuns,
    readers: ReaderPool,
    only: IsWanted | None = None,
) -> tuple[BatchPlan, int, int]:
    """Return the plan, the number of files that are not pictures, and the number of earlier results left out."""
    for folder in namer.journal_folders(settings.input) if settings.run.journal is not False else ():
        previous.read(folder / JOURNAL_NAME)
    finder = InputFinder(settings.input, namer.folder)
    plan = BatchPlan(finder)
    own = plan.leave_out(OwnOutputs(settings, previous.wrote, readers.provenance))
    if only is not None:
        plan.leave_out(lambda path, has_source: not only(path))
    elif (problem := plan.problem()) is not None:
        raise InputError(f"{problem}; {describe_own_results(own)}" if own else problem)
    if settings.input.frames == "all":
        plan.split_frames(readers.count_frames)
    return plan, finder.left_out, own


def has_work(settings: BatchSettings) -> bool:
    """Whether there is any picture to process. Raises the errors that would end a run before its first picture."""
    if STDIO in settings.input.inputs:
        return True
    readers, previous = ReaderPool(settings.input), PreviousRuns()
    try:
        namer = OutputNamer(settings, readers.size)
        plan, _, _ = plan_pictures(settings, namer, previous, readers)
        plan.place(namer, settings.output.on_exists == "rename", settings.input)
        decider = Decider(settings, plan, previous, readers.provenance)
        return any(isinstance(decider.decide(item), Item) for item in plan)
    finally:
        readers.close()


def describe_own_results(count: int) -> str:
    """The message about earlier results that were found among the inputs."""
    return f"{format_count(count, 'result')} of earlier runs left out: name a file to include it"


@dataclass
class _Run:
    """One run: its settings, and the objects that do its work."""

    settings: BatchSettings
    listener: Listener
    stop: StopRequest
    stack: ExitStack  # closed at the end of the run
    only: IsWanted | None
    previous: PreviousRuns
    journal: JournalWriter | None = None

    def __post_init__(self) -> None:
        self.began, self.tally = time.perf_counter(), Tally()
        self.readers = ReaderPool(self.settings.input, self.settings.run.timeout)
        self.stack.callback(self.readers.close)
        self.writer = ResultWriter(self.settings.output, self.settings.job, self.readers.provenance)

    def run(self) -> Report:
        options = self.settings.run
        self.readers.start()
        plan = self.plan()
        inbox: Inbox = SimpleQueue()
        workers = self.start_workers(inbox.put)
        self.stack.callback(workers.close)
        steps = Steps(self.read, workers, self.write, self.readers.drop, self.begin, self.step, self.listener.note)
        stages = Stages(steps, self.stop, inbox, options.ahead, options.timeout)
        self.stack.callback(self.stop.asked.set)
        for outcome in stages.run(self.items(plan)):
            self.record(outcome)
        report = self.report(stages, workers)
        if self.journal:
            self.journal.end(report.left)
        self.listener.finished(report)
        if self.stop.error is not None and self.stop.signal is None:
            raise self.stop.error
        return report

    def plan(self) -> BatchPlan:
        """Plan the run and check everything that would fail for all pictures, before a model is loaded."""
        settings = self.settings
        namer = OutputNamer(settings, self.readers.size)
        plan, other_files, own = plan_pictures(settings, namer, self.previous, self.readers, self.only)
        if len(plan) > 1 and (namer.streams or (namer.file and plan.count_files() > 1)):
            raise InputError(f"-o {settings.output.path} takes one picture, {len(plan)} were given: give a folder")
        if STDIO in settings.input.inputs and settings.output.path is None:
            raise InputError("a picture from stdin has no folder for its result: give -o FILE, or -o - for stdout")
        plan.place(namer, settings.output.on_exists == "rename", settings.input)
        check_folders(MapNamer.from_settings(settings).folders(plan), "--map")
        if settings.preview:
            check_preview_file(settings.preview, settings, plan, self.readers.provenance)
        if own and self.only is None:
            self.listener.note(describe_own_results(own))
        for role, place in settings.input.named_sides().items():
            self._report_missing_sides(plan, role, place)
        self._check_folders(plan, namer)
        self._open_journal(plan, namer)
        self.tally.total = len(plan)
        self.listener.planned(len(plan), other_files + own)
        return plan

    def _report_missing_sides(self, plan: BatchPlan, role: str, place: Path) -> None:
        """Tell the user for which pictures there is no mask, hint or reference in `place`."""
        options = self.settings.input
        readable = (item.found for item in plan if not item.found.problem)
        without = (found.path for found in readable if role not in options.sides_for(found.path, found.root).by_role())
        if (first := next(without, None)) is not None:
            more = sum(1 for _ in without)
            which = printable(first) + (f" and {more} more of {len(plan)} pictures" if more else "")
            effect = "not repaired" if role == "mask" else "not guided by one"
            self.listener.note(f"no {role} in {printable(place)} for {which}: {effect}")

    def _check_folders(self, plan: BatchPlan, namer: OutputNamer) -> None:
        if namer.streams:
            return
        check_folders(item.target.parent for item in plan if not item.found.problem)
        first = next((item for item in plan if not item.found.problem), None)
        if first is None:  # every picture has a problem of its own, reported in its turn
            return
        check_output_space(first.target.parent, plan.size, least_factor(self.settings.job), self.settings.output.format)

    def _open_journal(self, plan: BatchPlan, namer: OutputNamer) -> None:
        wanted = self.settings.run.journal
        if len(plan) and not namer.streams and (len(plan) > 1 if wanted is None else wanted):
            self.journal = JournalWriter(self.settings, namer.journal_folder(next(iter(plan)).found), len(plan))
            self.stack.callback(self.journal.close)

    def start_workers(self, tell: Tell) -> Workers:
        settings = self.settings
        if settings.run.cluster is None and settings.run.workers == 1:
            return LocalWorker(settings.factory, settings.job, tell, settings.preview)
        from srcli.batch.workers.pool import WorkerPool

        return WorkerPool(_choose_backend(settings, tell), settings.run.timeout, tell)

    def items(self, plan: BatchPlan) -> Iterator[Item | Outcome]:
        confirm = self.journal.add_confirmed if self.journal else None
        decider = Decider(self.settings, plan, self.previous, self.readers.provenance, confirm)
        return map(decider.decide, plan)

    def read(self, item: Item) -> Picture:
        if self.journal:
            self.journal.note_reading(item)
        picture = self.readers.read(item.path, item.sides, item.found.frame)
        picture = replace(picture, name=printable(item.path) + (f", {item.found.frame}" if item.found.frame else ""))
        self.writer.check(item, picture)
        return picture

    def write(self, item: Item, result: ComputedPicture) -> Outcome:
        announce = partial(self.journal.add_started, item, result) if self.journal else None
        outcome = self.writer.write(item, result, result_key(result.picture.sha256, item.recipe), announce)
        if self.journal:
            self.journal.add_done(outcome, result)
        result.drop_resume_states()
        return outcome

    def begin(self, item: Item, picture: Picture) -> None:
        size = picture.width, picture.height
        self.listener.begun(item.path, size, self.settings.job.target(*size))

    def step(self, item: Item, stage: str, done: int, total: int) -> None:
        self.listener.step(item.path, stage, done, total)

    def record(self, outcome: Outcome) -> None:
        self.tally.add(outcome)
        if self.journal:
            self.journal.add_failed(outcome)
        for text in outcome.notes:
            self.listener.note(f"{printable(outcome.source)}: {text}")
        self.listener.ended(outcome, self.tally)
        if outcome.status == FAILED and self.settings.run.fail_fast:
            self.stop.asked.set()

    def report(self, stages: Stages, workers: Workers) -> Report:
        return Report(
            **vars(self.tally),
            seconds=time.perf_counter() - self.began,
            signal=self.stop.signal,
            journal=self.journal.path if self.journal else None,
            times={LOADING: workers.loading, **stages.times},
        )


def _choose_backend(settings: BatchSettings, tell: Tell) -> WorkerBackend:
    if settings.run.cluster is None:
        from srcli.batch.workers.processes import ProcessBackend

        return ProcessBackend(settings, tell)
    from srcli.batch.workers.ray_cluster import RayBackend

    return RayBackend(settings, tell)
