"""Distribute pictures among several workers; files are read and written by the run itself.

A backend starts workers and talks to them: local processes, or a Ray cluster.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from srcli.batch.workers.base import ComputedPicture, OnPictureStep, RunFailed, timed_out
from srcli.batch.workers.worker import Reply
from srcli.errors import MachineError, PictureError, SrcliError
from srcli.imaging.picture import Picture
from srcli.messages import Tell

QUEUE_DEPTH = 2  # pictures per worker: one being computed, one waiting
STRIKES = 2  # workers that may die while computing the same picture
STILLBORN = 3  # workers that may die before they are ready
START_TIMEOUT = 300.0  # seconds without a ready worker until the run ends


class Events(Protocol):
    """What a backend reports, from any thread."""

    def ready(self, seat: int, reply: Reply) -> None: ...
    def computed(self, seat: int, reply: Reply) -> None:
        """The worker has computed its current picture; pictures are computed in the order they were given."""
        ...

    def lost(self, seat: int, blame: bool) -> None:
        """A worker died. `blame`: its current picture may be the reason."""
        ...

    def ended(self, error: BaseException) -> None:
        """No more workers can be started."""
        ...


class WorkerBackend(Protocol):
    """Starts workers and sends them pictures. Called from one thread."""

    workers: int  # how many there can be

    def start(self, events: Events) -> None: ...
    def hire(self, seat: int) -> None: ...
    def give(self, seat: int, picture: Picture) -> None: ...
    def dismiss(self, seat: int) -> None: ...
    def close(self) -> None: ...


@dataclass(eq=False)
class PictureTask:
    """A submitted picture and its future."""

    picture: Picture
    future: Future[ComputedPicture] = field(default_factory=Future)
    strikes: int = 0
    timer: threading.Timer | None = None


@dataclass(eq=False)
class Seat:
    """A worker and the pictures assigned to it."""

    number: int
    hired: float = field(default_factory=time.perf_counter)
    ready: float = 0.0  # time when it became ready; 0 before that
    tasks: deque[PictureTask] = field(default_factory=deque)


class WorkerPool:
    """Assigns pictures to free workers, and replaces workers that die.

    All state is handled by one thread, to which calls are posted.
    """

    def __init__(self, backend: WorkerBackend, timeout: float | None, tell: Tell) -> None:
        self._backend, self._timeout, self._tell = backend, timeout, tell
        self._posted: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: deque[PictureTask] = deque()
        self._seats: dict[int, Seat] = {}
        self._hired = self._stillborn = 0
        self._patience: threading.Timer | None = None
        self._failure: BaseException | None = None
        self.slots, self.loading, self._last = QUEUE_DEPTH * backend.workers, 0.0, 0.0
        backend.start(self)
        self._thread = threading.Thread(target=self._serve, name="workers", daemon=True)
        self._thread.start()

    @property
    def present(self) -> float:
        return sum(max(0.0, self._last - seat.ready) for seat in self._seats.values() if seat.ready)

    def submit(self, picture: Picture, on_step: OnPictureStep) -> Future[ComputedPicture]:
        task = PictureTask(picture)
        self._posted.put(partial(self._accept, task))
        return task.future

    def drop(self) -> None:
        self._posted.put(self._cancel_all)

    def close(self) -> None:
        self._posted.put(None)
        self._thread.join()
        for timer in (self._patience, *(task.timer for seat in self._seats.values() for task in seat.tasks)):
            if timer is not None:
                timer.cancel()
        self._backend.close()

    def ready(self, seat: int, reply: Reply) -> None:
        self._posted.put(partial(self._on_ready, seat, reply))

    def computed(self, seat: int, reply: Reply) -> None:
        self._posted.put(partial(self._on_computed, seat, reply))

    def lost(self, seat: int, blame: bool) -> None:
        self._posted.put(partial(self._replace, seat, blame))

    def ended(self, error: BaseException) -> None:
        self._posted.put(partial(self._end, error))

    def _serve(self) -> None:
        while (work := self._posted.get()) is not None:
            try:
                work()
            except Exception as error:
                self._end(MachineError(f"the workers cannot be reached ({type(error).__name__}: {error}): run again"))

    def _accept(self, task: PictureTask) -> None:
        if self._failure is not None:
            _fail(task, self._failure)
            return
        self._waiting.append(task)
        pictures = len(self._waiting) + sum(len(seat.tasks) for seat in self._seats.values())
        if len(self._seats) < min(self._backend.workers, pictures):  # an idle worker would waste memory and cores
            self._hire()
        self._deal()

    def _cancel_all(self) -> None:
        for task in self._all_tasks():
            task.future.cancel()
        self._waiting.clear()

    def _all_tasks(self) -> list[PictureTask]:
        return [*self._waiting, *(task for seat in self._seats.values() for task in seat.tasks)]

    def _hire(self) -> None:
        """Start a worker. It gets pictures once it has loaded its models, which may fail for lack of memory."""
        self._hired += 1
        self._seats[self._hired] = Seat(self._hired)
        self._backend.hire(self._hired)
        if self._patience is None and not any(seat.ready for seat in self._seats.values()):
            self._patience = threading.Timer(START_TIMEOUT, self._posted.put, (self._give_up,))
            self._patience.daemon = True
            self._patience.start()

    def _on_ready(self, number: int, reply: Reply) -> None:
        seat = self._seats.get(number)
        if seat is None:
            return
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._pass_on(reply)
        if isinstance(reply.result, BaseException):
            self._end(reply.result)
            return
        seat.ready = self._last = time.perf_counter()
        self.loading = max(self.loading, seat.ready - seat.hired)
        self._deal()

    def _deal(self) -> None:
        """Give waiting pictures to the workers with the fewest."""
        while self._waiting:
            free = [seat for seat in self._seats.values() if seat.ready and len(seat.tasks) < QUEUE_DEPTH]
            if not free:
                return
            seat, task = min(free, key=lambda seat: len(seat.tasks)), self._waiting.popleft()
            seat.tasks.append(task)
            self._backend.give(seat.number, task.picture)
            self._start_timer(seat)

    def _start_timer(self, seat: Seat) -> None:
        """Start the timeout of the current picture."""
        if self._timeout is not None and seat.tasks and seat.tasks[0].timer is None:
            task = seat.tasks[0]
            task.timer = threading.Timer(self._timeout, self._posted.put, (partial(self._expire, seat, task),))
            task.timer.daemon = True
            task.timer.start()

    def _on_computed(self, number: int, reply: Reply) -> None:
        seat = self._seats.get(number)
        if seat is None or not seat.tasks:
            return  # its worker was dismissed before
        self._pass_on(reply)
        self._last = time.perf_counter()
        task = seat.tasks[0]
        _remove(seat, task)
        if isinstance(reply.result, ComputedPicture):
            _finish(task, reply.result)
        elif isinstance(reply.result, SrcliError) and not isinstance(reply.result, (PictureError, MachineError)):
            self._end(reply.result)
        else:
            _fail(task, reply.result)
        self._start_timer(seat)
        self._deal()

    def _pass_on(self, reply: Reply) -> None:
        for text in reply.said:
            self._tell(text)

    def _expire(self, seat: Seat, task: PictureTask) -> None:
        if task in seat.tasks:
            _remove(seat, task)
            _fail(task, timed_out(self._timeout))
            self._replace(seat.number, blame=False)

    def _replace(self, number: int, blame: bool) -> None:
        """Replace a worker that died, and give its pictures to others."""
        seat = self._seats.pop(number, None)
        if seat is None or self._failure is not None:
            return
        self._backend.dismiss(number)
        self._stillborn += not seat.ready
        if self._stillborn >= STILLBORN:
            self._end(MachineError("workers die while they load models: free some memory, or use fewer --workers"))
            return
        if blame and seat.tasks:
            seat.tasks[0].strikes += 1
        again = [task for task in seat.tasks if task.strikes < STRIKES and not task.future.cancelled()]
        if again:
            self._tell("a worker died: other workers take over its pictures")
        for task in list(seat.tasks):
            _remove(seat, task)
            if task.strikes >= STRIKES:
                _fail(task, PictureError("two workers died while they computed it: free some memory", "killed"))
        self._waiting.extendleft(reversed(again))
        self._hire()
        self._deal()

    def _give_up(self) -> None:
        self._end(MachineError(f"no worker could be started in {START_TIMEOUT:g} seconds: use fewer --workers"))

    def _end(self, error: BaseException) -> None:
        """Fail all waiting pictures, and those to come."""
        self._failure = failure = RunFailed()
        failure.__cause__ = error
        for task in self._all_tasks():
            _fail(task, failure)
        self._waiting.clear()


def _remove(seat: Seat, task: PictureTask) -> None:
    seat.tasks.remove(task)
    if task.timer is not None:
        task.timer.cancel()
        task.timer = None


def _finish(task: PictureTask, result: ComputedPicture) -> None:
    if not task.future.done():
        task.future.set_result(result)


def _fail(task: PictureTask, error: BaseException | None) -> None:
    if not task.future.done():
        task.future.set_exception(error)
