"""Pipeline of three stages (read, compute, write), each with its own threads and bounded queues."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from srcli.batch.planning.plan import Item
from srcli.batch.report import Outcome, outcome_of_error
from srcli.batch.workers.base import ComputedPicture, RunFailed, Workers, timed_out
from srcli.errors import MachineError, TooLarge
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable
from srcli.tasks import LOADING

STOPPING = "finishing the tile; press Ctrl-C again to stop now"
MOST_MACHINE_FAILURES = 3  # in a row; then the run stops


@dataclass(eq=False, slots=True)
class InProgress:
    """A picture in the pipeline, and when it started."""

    item: Item
    began: float = field(default_factory=time.perf_counter)
    began_work: float = 0.0


# What the main thread handles: an event of a picture, a message for the user, or None to check the stop request.
Inbox = SimpleQueue[tuple[InProgress, str, Any] | str | None]


@dataclass
class StopRequest:
    """A request to end the run early, and its reason."""

    signal: int | None = None
    error: BaseException | None = None
    asked: threading.Event = field(default_factory=threading.Event)
    wake: Callable[[], None] | None = None  # wakes the main thread while a run is in progress


@dataclass(frozen=True, slots=True)
class Steps:
    """The functions of the stages, and callbacks."""

    read: Callable[[Item], Picture]
    workers: Workers
    write: Callable[[Item, ComputedPicture], Outcome]
    stop_reading: Callable[[], None]
    on_begin: Callable[[Item, Picture], None]
    on_step: Callable[[Item, str, int, int], None]
    tell: Callable[[str], None]


class Stages:
    """Reads up to `ahead` pictures in advance and lets as many results wait for writing.

    The calling thread moves pictures between stages; the other threads each do one step and post the result.
    """

    def __init__(
        self, steps: Steps, stop: StopRequest, inbox: Inbox, ahead: int = 2, timeout: float | None = None
    ) -> None:
        self._steps, self._stop, self._inbox, self._ahead, self._timeout = steps, stop, inbox, ahead, timeout
        threads = min(4, 1 + steps.workers.slots // 4)
        self._readers, self._writers = (ThreadPoolExecutor(threads, name) for name in ("read", "write"))
        self._in_progress: dict[str, set[InProgress]] = {"reading": set(), "computing": set(), "writing": set()}
        self._ready: deque[tuple[InProgress, Picture]] = deque()
        self._machine_failures = 0
        stop.wake = lambda: self._inbox.put(None)
        self._seconds = {"reading": 0.0, "computing": 0.0, "writing": 0.0}

    @property
    def times(self) -> dict[str, float]:
        """Seconds spent in each stage, and seconds that workers were idle, summed over the workers."""
        return self._seconds | {"waiting": max(0.0, self._steps.workers.present - self._seconds["computing"])}

    def run(self, items: Iterator[Item | Outcome]) -> Iterator[Outcome]:
        """Process all items and yield their outcomes; items that are outcomes already are passed through."""
        try:
            while True:
                yield from self._fill(items)
                if not any(self._in_progress.values()):
                    return
                event = self._inbox.get()
                if isinstance(event, str):
                    self._steps.tell(event)
                elif event is not None:
                    yield from self._handle_event(*event)
                elif self._stop.signal is not None and self._in_progress["computing"]:
                    self._steps.tell(STOPPING)
        finally:
            self._steps.stop_reading()
            self._readers.shutdown(cancel_futures=True)
            self._writers.shutdown(cancel_futures=True)

    def _fill(self, items: Iterator[Item | Outcome]) -> Iterator[Outcome]:
        """Start as much work in every stage as its limits allow."""
        if self._stop.asked.is_set():
            self._ready.clear()
            self._steps.stop_reading()
            self._steps.workers.drop()
            return
        self._start_computing()
        while self._can_read() and (item := next(items, None)) is not None:
            if isinstance(item, Outcome):
                yield item
            else:
                work = InProgress(item)
                self._track("reading", work, self._readers.submit(self._run_timed, self._steps.read, item))

    def _start_computing(self) -> None:
        slots = self._steps.workers.slots
        computing, writing = self._in_progress["computing"], self._in_progress["writing"]
        while self._ready and len(computing) < slots and len(computing) + len(writing) < slots + self._ahead:
            work, picture = self._ready.popleft()
            self._steps.on_begin(work.item, picture)
            self._track("computing", work, self._steps.workers.submit(picture, self._progress_callback(work)))

    def _can_read(self) -> bool:
        if self._stop.asked.is_set():
            return False
        if not self._ahead:
            return not self._ready and not any(self._in_progress.values())
        return len(self._in_progress["reading"]) + len(self._ready) < self._ahead + self._steps.workers.slots - 1

    def _progress_callback(self, work: InProgress) -> Callable[[str, int, int], None]:
        """Return a progress callback that enforces the timeout, without counting the time for loading models."""
        work.began_work = time.perf_counter()

        def on_step(stage: str, done: int, total: int) -> None:
            if self._stop.asked.is_set():
                raise CancelledError
            now = time.perf_counter()
            if stage == LOADING:
                work.began_work = now
            elif self._timeout and now - work.began_work > self._timeout:
                raise timed_out(self._timeout, f"{printable(work.item.path)} ")
            self._inbox.put((work, "step", (stage, done, total)))

        return on_step

    def _track(self, stage: str, work: InProgress, future: Future[Any]) -> None:
        self._in_progress[stage].add(work)
        future.add_done_callback(lambda done: self._inbox.put((work, stage, done)))

    def _run_timed(self, function: Callable[..., Any], *values: object) -> tuple[Any, float]:
        began = time.perf_counter()
        return function(*values), time.perf_counter() - began

    def _handle_event(self, work: InProgress, stage: str, event: Any) -> Iterator[Outcome]:
        if stage == "step":
            self._steps.on_step(work.item, *event)
            return
        self._in_progress[stage].remove(work)
        error = None if event.cancelled() else event.exception()
        if error is not None:
            yield from self._fail(work, error)
        elif not event.cancelled():
            yield from self._pass_on(work, stage, event.result())

    def _pass_on(self, work: InProgress, stage: str, result: Any) -> Iterator[Outcome]:
        """Pass a finished step to the next stage."""
        if stage == "computing":
            self._seconds[stage] += result.seconds
            self._track("writing", work, self._writers.submit(self._run_timed, self._steps.write, work.item, result))
            return
        value, seconds = result
        self._seconds[stage] += seconds
        if stage == "reading":
            self._ready.append((work, value))
        else:
            self._machine_failures = 0
            yield value

    def _fail(self, work: InProgress, error: BaseException) -> Iterator[Outcome]:
        if isinstance(error, CancelledError) or self._stop.signal is not None:
            return  # cancelled, or failed because the run is ending
        if isinstance(error, BrokenPipeError):  # the reader of stdout has closed it: end the run
            self._end(error)
            return
        if isinstance(error, RunFailed):
            self._end(error.__cause__ or error)
            return
        machine_failed = isinstance(error, MachineError) and not isinstance(error, TooLarge)
        self._machine_failures = self._machine_failures + 1 if machine_failed else 0
        seconds, item = time.perf_counter() - work.began, work.item
        yield outcome_of_error(item.path, error, seconds, item.found.frame)
        if self._machine_failures >= MOST_MACHINE_FAILURES:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        self._stop.error = self._stop.error or error
        self._stop.asked.set()
