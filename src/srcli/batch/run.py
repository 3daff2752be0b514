"""One run, from what was asked to the report: plan everything, then let pictures pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from srcli.batch.journal.file import JOURNAL_NAME, result_key
from srcli.batch.journal.previous_runs import PreviousRuns
from srcli.batch.journal.writer import JournalWriter
from srcli.batch.listener import Listener
from srcli.batch.planning.decide import Decider
from srcli.batch.planning.inputs import InputFinder
from srcli.batch.planning.output_names import OutputNamer, OwnOutputs, least_factor
from srcli.batch.planning.plan import Item, Plan
from srcli.batch.planning.preflight import check_folders, check_space
from srcli.batch.planning.preview_file import check_preview_file
from srcli.batch.reading.reader import Readers
from srcli.batch.report import FAILED, Outcome, Report, Tally
from srcli.batch.settings import STDIO, BatchSettings
from srcli.batch.signals import watch_signals
from srcli.batch.stages import Inbox, Stages, Steps, StopRequest
from srcli.batch.workers.local import LocalWorker, Notify, Result, Workers
from srcli.batch.write_result import ResultWriter
from srcli.errors import InputError
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable


def run_batch(settings: BatchSettings, listener: Listener | None = None) -> Report:
    """Do the job to every picture. Raises what ends a run as a whole; what ends one picture is in the report."""
    with ExitStack() as stack:
        stop = StopRequest()
        stack.enter_context(watch_signals(stop))
        return _Run(settings, listener or Listener(), stop, stack).go()


def find_pictures(
    settings: BatchSettings, namer: OutputNamer, memory: PreviousRuns, readers: Readers
) -> tuple[Plan, int]:
    """All pictures to answer for, and how many files their folders hold besides."""
    for base in namer.bases(settings.input) if settings.run.journal is not False else ():
        memory.read(base / JOURNAL_NAME)
    finder = InputFinder(settings.input, namer.folder)
    plan = Plan(finder)
    own = plan.leave_out(OwnOutputs(settings, memory.made, readers.made))
    if (problem := plan.problem()) is not None:
        raise InputError(problem)
    return plan, finder.left_out + own


class _Run:
    """The parts of one run, and how they fit together."""

    def __init__(self, settings: BatchSettings, listener: Listener, stop: StopRequest, stack: ExitStack) -> None:
        self.settings, self.listener, self.stack = settings, listener, stack
        self.began = time.perf_counter()
        self.stop, self.tally, self.recipe = stop, Tally(), settings.recipe()
        self.readers = Readers(settings.input, settings.run.timeout)
        stack.callback(self.readers.close)
        self.delivery, self.memory = ResultWriter(settings.output, settings.job), PreviousRuns()
        self.logbook: JournalWriter | None = None

    def go(self) -> Report:
        settings = self.settings.run
        self.readers.start()
        plan = self.plan()
        mail: Inbox = SimpleQueue()
        bench = self.bench(mail.put)
        self.stack.callback(bench.close)
        stages = Steps(self.read, bench, self.write, self.readers.drop, self.step, self.listener.note)
        line = Stages(stages, self.stop, mail, settings.ahead, settings.timeout)
        self.stack.callback(self.stop.asked.set)
        for outcome in line.run(self.items(plan)):
            self.note(outcome)
        report = self.report(line, bench)
        self.listener.finished(report)
        if self.stop.error is not None and self.stop.signal is None:
            raise self.stop.error
        return report

    def plan(self) -> Plan:
        """Everything that can go wrong for all is found here, before a model is loaded."""
        settings = self.settings
        namer = OutputNamer(settings, self.readers.size)
        plan, left_out = find_pictures(settings, namer, self.memory, self.readers)
        if len(plan) > 1 and (namer.streams or namer.file):
            raise InputError(f"-o {settings.output.path} takes one picture, {len(plan)} were given: give a folder")
        if STDIO in settings.input.inputs and settings.output.path is None:
            raise InputError("a picture from stdin has no place of its own: give -o FILE, or -o - for stdout")
        plan.place(namer, settings.output.on_exists == "rename", settings.input)
        if settings.preview:
            check_preview_file(settings.preview, settings, plan, self.readers.made)
        self._tell_unmasked(plan)
        self._try_grounds(plan, namer)
        self._open_journal(plan, namer)
        self.tally.total = len(plan)
        self.listener.planned(len(plan), left_out)
        return plan

    def _tell_unmasked(self, plan: Plan) -> None:
        options = self.settings.input
        if options.mask is None:
            return
        tried = (item.found for item in plan if not item.found.problem)
        bare = (found.path for found in tried if options.mask_for(found.path, found.root) is None)
        if (first := next(bare, None)) is not None:
            more = sum(1 for _ in bare)
            which = printable(first) + (f" and {more} more of {len(plan)} pictures" if more else "")
            self.listener.note(f"no mask in {printable(options.mask)} for {which}: not mended")

    def _try_grounds(self, plan: Plan, namer: OutputNamer) -> None:
        if namer.streams:
            return
        check_folders(item.target.parent for item in plan if not item.found.problem)
        first = next((item for item in plan if not item.found.problem), None)
        if first is None:  # each has its own reason to fail, and says it when its turn comes
            return
        check_space(first.target.parent, plan.size, least_factor(self.settings.job), self.settings.output.format)

    def _open_journal(self, plan: Plan, namer: OutputNamer) -> None:
        wanted = self.settings.run.journal
        if not namer.streams and (len(plan) > 1 if wanted is None else wanted):
            self.logbook = JournalWriter(self.settings, namer.base(next(iter(plan)).found))
            self.stack.callback(self.logbook.close)

    def bench(self, tell: Notify) -> Workers:
        settings = self.settings
        if settings.run.ray is None and settings.run.workers == 1:
            return LocalWorker(settings.factory, settings.job, tell, settings.preview)
        from srcli.batch.workers.ray_cluster import Cluster

        return Cluster(settings, tell)

    def items(self, plan: Plan) -> Iterator[Item | Outcome]:
        settings = self.settings
        gate = Decider(plan, settings.input, self.memory, self.recipe, settings.output.on_exists, self.readers.made)
        return map(gate.decide, plan)

    def read(self, item: Item) -> Picture:
        if self.logbook:
            self.logbook.reading(item)
        picture = replace(self.readers.read(item.path, item.mask), name=printable(item.path))
        self.delivery.check(item, picture)
        return picture

    def write(self, item: Item, made: Result) -> Outcome:
        announce = partial(self.logbook.started, item, made) if self.logbook else None
        outcome = self.delivery.write(item, made, result_key(made.picture.sha256, item.recipe), announce)
        if self.logbook:
            self.logbook.done(outcome, made)
        made.settled()
        return outcome

    def step(self, item: Item, stage: str, done: int, total: int) -> None:
        self.listener.step(item.path, stage, done, total)

    def note(self, outcome: Outcome) -> None:
        self.tally.add(outcome)
        if self.logbook:
            self.logbook.failed(outcome)
        for text in outcome.notes:
            self.listener.note(f"{printable(outcome.source)}: {text}")
        self.listener.ended(outcome, self.tally)
        if outcome.status == FAILED and self.settings.run.fail_fast:
            self.stop.asked.set()

    def report(self, line: Stages, bench: Workers) -> Report:
        tally, seconds = self.tally, time.perf_counter() - self.began
        return Report(
            total=tally.total,
            done=tally.done,
            skipped=tally.skipped,
            failed=tally.failed,
            seconds=seconds,
            codes=frozenset(tally.codes),
            signal=self.stop.signal,
            journal=self.logbook.path if self.logbook else None,
            times={"loading": bench.loading, **line.times},
        )
