"""One run, from what was asked to the report: plan everything, then let pictures pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from srcli.batch.bench import Bench, Local, Made, Tell
from srcli.batch.deliver import Delivery
from srcli.batch.gate import Gate
from srcli.batch.grounds import check_space, prepare
from srcli.batch.inputs import Finder
from srcli.batch.journal import NAME, key
from srcli.batch.line import Line, Mail, Stages, Stop
from srcli.batch.listener import Listener
from srcli.batch.logbook import Logbook
from srcli.batch.naming import Namer, Ours, least_factor
from srcli.batch.orders import STREAM, Orders
from srcli.batch.past import Memory
from srcli.batch.plan import Item, Plan
from srcli.batch.preview import make_way
from srcli.batch.reader import Readers
from srcli.batch.report import FAILED, Outcome, Report, Tally
from srcli.batch.signals import watching
from srcli.errors import InputError
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable


def run(orders: Orders, listener: Listener | None = None) -> Report:
    """Do the job to every picture. Raises what ends a run as a whole; what ends one picture is in the report."""
    with ExitStack() as stack:
        stop = Stop()
        stack.enter_context(watching(stop))
        return _Run(orders, listener or Listener(), stop, stack).go()


def find(orders: Orders, namer: Namer, memory: Memory, readers: Readers) -> tuple[Plan, int]:
    """All pictures to answer for, and how many files their folders hold besides."""
    for base in namer.bases(orders.intake) if orders.conduct.journal is not False else ():
        memory.read(base / NAME)
    finder = Finder(orders.intake, namer.folder)
    plan = Plan(finder)
    own = plan.leave_out(Ours(orders, memory.made, readers.made))
    if (problem := plan.problem()) is not None:
        raise InputError(problem)
    return plan, finder.left_out + own


class _Run:
    """The parts of one run, and how they fit together."""

    def __init__(self, orders: Orders, listener: Listener, stop: Stop, stack: ExitStack) -> None:
        self.orders, self.listener, self.stack = orders, listener, stack
        self.began = time.perf_counter()
        self.stop, self.tally, self.recipe = stop, Tally(), orders.recipe()
        self.readers = Readers(orders.intake, orders.conduct.timeout)
        stack.callback(self.readers.close)
        self.delivery, self.memory = Delivery(orders.outlet, orders.job), Memory()
        self.logbook: Logbook | None = None

    def go(self) -> Report:
        orders = self.orders.conduct
        self.readers.start()
        plan = self.plan()
        mail: Mail = SimpleQueue()
        bench = self.bench(mail.put)
        self.stack.callback(bench.close)
        stages = Stages(self.read, bench, self.write, self.readers.drop, self.step, self.listener.note)
        line = Line(stages, self.stop, mail, orders.ahead, orders.timeout)
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
        orders = self.orders
        namer = Namer(orders, self.readers.size)
        plan, left_out = find(orders, namer, self.memory, self.readers)
        if len(plan) > 1 and (namer.streams or namer.file):
            raise InputError(f"-o {orders.outlet.path} takes one picture, {len(plan)} were given: give a folder")
        if STREAM in orders.intake.inputs and orders.outlet.path is None:
            raise InputError("a picture from stdin has no place of its own: give -o FILE, or -o - for stdout")
        plan.place(namer, orders.outlet.on_exists == "rename", orders.intake)
        if orders.preview:
            make_way(orders.preview, orders, plan, self.readers.made)
        self._tell_unmasked(plan)
        self._try_grounds(plan, namer)
        self._open_journal(plan, namer)
        self.tally.total = len(plan)
        self.listener.planned(len(plan), left_out)
        return plan

    def _tell_unmasked(self, plan: Plan) -> None:
        intake = self.orders.intake
        if intake.mask is None:
            return
        tried = (item.found for item in plan if not item.found.problem)
        bare = (found.path for found in tried if intake.mask_for(found.path, found.root) is None)
        if (first := next(bare, None)) is not None:
            more = sum(1 for _ in bare)
            which = printable(first) + (f" and {more} more of {len(plan)} pictures" if more else "")
            self.listener.note(f"no mask in {printable(intake.mask)} for {which}: not mended")

    def _try_grounds(self, plan: Plan, namer: Namer) -> None:
        if namer.streams:
            return
        prepare(item.target.parent for item in plan if not item.found.problem)
        first = next((item for item in plan if not item.found.problem), None)
        if first is None:  # each has its own reason to fail, and says it when its turn comes
            return
        check_space(first.target.parent, plan.size, least_factor(self.orders.job), self.orders.outlet.format)

    def _open_journal(self, plan: Plan, namer: Namer) -> None:
        wanted = self.orders.conduct.journal
        if not namer.streams and (len(plan) > 1 if wanted is None else wanted):
            self.logbook = Logbook(self.orders, namer.base(next(iter(plan)).found))
            self.stack.callback(self.logbook.close)

    def bench(self, tell: Tell) -> Bench:
        orders = self.orders
        if orders.conduct.ray is None and orders.conduct.workers == 1:
            return Local(orders.maker, orders.job, tell, orders.preview)
        from srcli.batch.cluster import Cluster

        return Cluster(orders, tell)

    def items(self, plan: Plan) -> Iterator[Item | Outcome]:
        orders = self.orders
        gate = Gate(plan, orders.intake, self.memory, self.recipe, orders.outlet.on_exists, self.readers.made)
        return map(gate.decide, plan)

    def read(self, item: Item) -> Picture:
        if self.logbook:
            self.logbook.reading(item)
        picture = replace(self.readers.read(item.path, item.mask), name=printable(item.path))
        self.delivery.check(item, picture)
        return picture

    def write(self, item: Item, made: Made) -> Outcome:
        announce = partial(self.logbook.started, item, made) if self.logbook else None
        outcome = self.delivery.write(item, made, key(made.picture.sha256, item.recipe), announce)
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
        if outcome.status == FAILED and self.orders.conduct.fail_fast:
            self.stop.asked.set()

    def report(self, line: Line, bench: Bench) -> Report:
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
