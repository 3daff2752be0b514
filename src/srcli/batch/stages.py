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
from srcli.batch.workers.base import LOADING, ComputedPicture, RunFailed, Workers, timed_out
from srcli.errors import MachineError, TooLarge
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable

STOPPING = "finishing the tile; press Ctrl-C again to stop now"
IN_A_ROW = 3  # consecutive machine failures that stop the run

Read = Callable[[Item], Picture]
Write = Callable[[Item, ComputedPicture], Outcome]


@dataclass(eq=False, slots=True)
class InProgress:
    """A picture in the pipeline, and when it started."""

    item: Item
    began: float = field(default_factory=time.perf_counter)
    began_work: float = 0.0


# What the main thread handles: news of a picture, a message for the user, or None to check the stop request.
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
    """The function of each stage, and callbacks."""

    read: Read
    bench: Workers
    write: Write
    stop_reading: Callable[[], None]
    on_begin: Callable[[Item, Picture], None]
    on_step: Callable[[Item, str, int, int], None]
    tell: Callable[[str], None]


class Stages:
    """Reads up to `ahead` pictures in advance and lets as many results wait for writing.

    The calling thread moves pictures between stages; the other threads each do one step and post the result.
    """

    def __init__(
        self, stages: Steps, stop: StopRequest, mail: Inbox, ahead: int = 2, timeout: float | None = None
    ) -> None:
        self._stages, self._stop, self._mail, self._ahead, self._timeout = stages, stop, mail, ahead, timeout
        hands = min(4, 1 + stages.bench.slots // 4)
        self._readers, self._writers = (ThreadPoolExecutor(hands, name) for name in ("read", "write"))
        self._stations: dict[str, set[InProgress]] = {"reading": set(), "computing": set(), "writing": set()}
        self._ready: deque[tuple[InProgress, Picture]] = deque()
        self._machine_failures = 0
        stop.wake = lambda: self._mail.put(None)
        self._busy = {"reading": 0.0, "computing": 0.0, "writing": 0.0}

    @property
    def times(self) -> dict[str, float]:
        """Seconds spent in each stage, and seconds that workers were idle, summed over the workers."""
        return self._busy | {"waiting": max(0.0, self._stages.bench.present - self._busy["computing"])}

    def run(self, items: Iterator[Item | Outcome]) -> Iterator[Outcome]:
        """Process all items and yield their outcomes; items that are outcomes already are passed through."""
        try:
            while True:
                yield from self._fill(items)
                if not any(self._stations.values()):
                    return
                news = self._mail.get()
                if isinstance(news, str):
                    self._stages.tell(news)
                elif news is not None:
                    yield from self._receive(*news)
                elif self._stop.signal is not None and self._stations["computing"]:
                    self._stages.tell(STOPPING)
        finally:
            self._stages.stop_reading()
            self._readers.shutdown(cancel_futures=True)
            self._writers.shutdown(cancel_futures=True)

    def _fill(self, items: Iterator[Item | Outcome]) -> Iterator[Outcome]:
        """Start as much work in every stage as its limits allow."""
        if self._stop.asked.is_set():
            self._ready.clear()
            self._stages.stop_reading()
            self._stages.bench.drop()
            return
        self._compute()
        while self._may_read() and (item := next(items, None)) is not None:
            if isinstance(item, Outcome):
                yield item
            else:
                flight = InProgress(item)
                self._post("reading", flight, self._readers.submit(self._timed, self._stages.read, item))

    def _compute(self) -> None:
        slots = self._stages.bench.slots
        computing, writing = self._stations["computing"], self._stations["writing"]
        while self._ready and len(computing) < slots and len(computing) + len(writing) < slots + self._ahead:
            flight, picture = self._ready.popleft()
            self._stages.on_begin(flight.item, picture)
            self._post("computing", flight, self._stages.bench.submit(picture, self._watch(flight)))

    def _may_read(self) -> bool:
        if self._stop.asked.is_set():
            return False
        if not self._ahead:
            return not self._ready and not any(self._stations.values())
        return len(self._stations["reading"]) + len(self._ready) < self._ahead + self._stages.bench.slots - 1

    def _watch(self, flight: InProgress) -> Callable[[str, int, int], None]:
        """Return a progress callback that enforces the timeout, without counting the time for loading models."""
        flight.began_work = time.perf_counter()

        def on_step(stage: str, done: int, total: int) -> None:
            if self._stop.asked.is_set():
                raise CancelledError
            now = time.perf_counter()
            if stage == LOADING:
                flight.began_work = now
            elif self._timeout and now - flight.began_work > self._timeout:
                raise timed_out(self._timeout, f"{printable(flight.item.path)} ")
            self._mail.put((flight, "step", (stage, done, total)))

        return on_step

    def _post(self, station: str, flight: InProgress, future: Future[Any]) -> None:
        self._stations[station].add(flight)
        future.add_done_callback(lambda done: self._mail.put((flight, station, done)))

    def _timed(self, work: Callable[..., Any], *values: object) -> tuple[Any, float]:
        began = time.perf_counter()
        return work(*values), time.perf_counter() - began

    def _receive(self, flight: InProgress, station: str, news: Any) -> Iterator[Outcome]:
        if station == "step":
            self._stages.on_step(flight.item, *news)
            return
        self._stations[station].remove(flight)
        error = None if news.cancelled() else news.exception()
        if error is not None:
            yield from self._fail(flight, error)
        elif not news.cancelled():
            yield from self._next(flight, station, news.result())

    def _next(self, flight: InProgress, station: str, result: Any) -> Iterator[Outcome]:
        """Pass a finished step to the next stage."""
        if station == "computing":
            self._busy[station] += result.seconds
            self._post("writing", flight, self._writers.submit(self._timed, self._stages.write, flight.item, result))
            return
        value, seconds = result
        self._busy[station] += seconds
        if station == "reading":
            self._ready.append((flight, value))
        else:
            self._machine_failures = 0
            yield value

    def _fail(self, flight: InProgress, error: BaseException) -> Iterator[Outcome]:
        if isinstance(error, CancelledError) or self._stop.signal is not None:
            return  # cancelled, or failed because the run is ending
        if isinstance(error, BrokenPipeError):  # the reader of stdout has closed it: end the run
            self._end(error)
            return
        if isinstance(error, RunFailed):
            self._end(error.__cause__ or error)
            return
        machine = isinstance(error, MachineError) and not isinstance(error, TooLarge)
        self._machine_failures = self._machine_failures + 1 if machine else 0
        seconds, item = time.perf_counter() - flight.began, flight.item
        yield outcome_of_error(item.path, error, seconds, item.found.frame)
        if self._machine_failures >= IN_A_ROW:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        self._stop.error = self._stop.error or error
        self._stop.asked.set()
