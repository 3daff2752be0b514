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

PICTURES_PER_WORKER = 2  # pictures per worker: one being computed, one waiting
MOST_DEATHS = 2  # of workers, while they compute the same picture
MOST_FAILED_STARTS = 3  # workers that may die while they load models
START_TIMEOUT = 300.0  # seconds without a ready worker until the run ends


class Events(Protocol):
    """What a backend reports, from any thread."""

    def ready(self, number: int, reply: Reply) -> None: ...
    def computed(self, number: int, reply: Reply) -> None:
        """The worker has computed its current picture; pictures are computed in the order they were sent."""

    def lost(self, number: int, blame: bool) -> None:
        """A worker died. `blame`: its current picture may be the reason."""

    def ended(self, error: BaseException) -> None:
        """No worker can be started any more."""


class WorkerBackend(Protocol):
    """Starts workers, which it knows by number, and sends them pictures. Called from one thread."""

    workers: int  # the largest number at a time

    def start(self, events: Events) -> None: ...
    def start_worker(self, number: int) -> None: ...
    def send_picture(self, number: int, picture: Picture) -> None: ...
    def stop_worker(self, number: int) -> None: ...
    def close(self) -> None: ...


@dataclass(eq=False)
class PictureTask:
    """A submitted picture, its future, and how many workers died while they computed it."""

    picture: Picture
    future: Future[ComputedPicture] = field(default_factory=Future)
    deaths: int = 0
    timer: threading.Timer | None = None


@dataclass(eq=False)
class PoolWorker:
    """A worker and the pictures assigned to it."""

    number: int
    started: float = field(default_factory=time.perf_counter)
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
        self._workers: dict[int, PoolWorker] = {}
        self._started = self._failed_starts = 0
        self._start_timeout: threading.Timer | None = None
        self._failure: BaseException | None = None
        self.slots, self.loading, self._last = PICTURES_PER_WORKER * backend.workers, 0.0, 0.0
        backend.start(self)
        self._thread = threading.Thread(target=self._serve, name="workers", daemon=True)
        self._thread.start()

    @property
    def present(self) -> float:
        return sum(max(0.0, self._last - worker.ready) for worker in self._workers.values() if worker.ready)

    def submit(self, picture: Picture, on_step: OnPictureStep) -> Future[ComputedPicture]:
        task = PictureTask(picture)
        self._posted.put(partial(self._accept, task))
        return task.future

    def drop(self) -> None:
        self._posted.put(self._cancel_all)

    def close(self) -> None:
        self._posted.put(None)
        self._thread.join()
        for timer in (self._start_timeout, *(task.timer for worker in self._workers.values() for task in worker.tasks)):
            if timer is not None:
                timer.cancel()
        self._backend.close()

    def ready(self, number: int, reply: Reply) -> None:
        self._posted.put(partial(self._on_ready, number, reply))

    def computed(self, number: int, reply: Reply) -> None:
        self._posted.put(partial(self._on_computed, number, reply))

    def lost(self, number: int, blame: bool) -> None:
        self._posted.put(partial(self._replace, number, blame))

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
            _fail_task(task, self._failure)
            return
        self._waiting.append(task)
        pictures = len(self._waiting) + sum(len(worker.tasks) for worker in self._workers.values())
        if len(self._workers) < min(self._backend.workers, pictures):  # an idle worker would waste memory and cores
            self._start_worker()
        self._assign_waiting()

    def _cancel_all(self) -> None:
        for task in self._all_tasks():
            task.future.cancel()
        self._waiting.clear()

    def _all_tasks(self) -> list[PictureTask]:
        return [*self._waiting, *(task for worker in self._workers.values() for task in worker.tasks)]

    def _start_worker(self) -> None:
        """Start a worker. It gets pictures once it has loaded its models, which may fail for lack of memory."""
        self._started += 1
        self._workers[self._started] = PoolWorker(self._started)
        self._backend.start_worker(self._started)
        if self._start_timeout is None and not any(worker.ready for worker in self._workers.values()):
            text = f"no worker could be started in {START_TIMEOUT:g} seconds: use fewer --workers"
            end = partial(self._end, MachineError(text))
            self._start_timeout = threading.Timer(START_TIMEOUT, self._posted.put, (end,))
            self._start_timeout.daemon = True
            self._start_timeout.start()

    def _on_ready(self, number: int, reply: Reply) -> None:
        worker = self._workers.get(number)
        if worker is None:
            return
        if self._start_timeout is not None:
            self._start_timeout.cancel()
            self._start_timeout = None
        self._forward_messages(reply)
        if isinstance(reply.result, BaseException):
            self._end(reply.result)
            return
        worker.ready = self._last = time.perf_counter()
        self.loading = max(self.loading, worker.ready - worker.started)
        self._assign_waiting()

    def _assign_waiting(self) -> None:
        """Give waiting pictures to the workers with the fewest."""
        while self._waiting:
            free = [
                worker for worker in self._workers.values() if worker.ready and len(worker.tasks) < PICTURES_PER_WORKER
            ]
            if not free:
                return
            worker, task = min(free, key=lambda worker: len(worker.tasks)), self._waiting.popleft()
            worker.tasks.append(task)
            self._backend.send_picture(worker.number, task.picture)
            self._start_timer(worker)

    def _start_timer(self, worker: PoolWorker) -> None:
        """Start the timeout of the current picture."""
        if self._timeout is not None and worker.tasks and worker.tasks[0].timer is None:
            task = worker.tasks[0]
            task.timer = threading.Timer(self._timeout, self._posted.put, (partial(self._expire, worker, task),))
            task.timer.daemon = True
            task.timer.start()

    def _on_computed(self, number: int, reply: Reply) -> None:
        worker = self._workers.get(number)
        if worker is None or not worker.tasks:
            return  # its worker was stopped before
        self._forward_messages(reply)
        self._last = time.perf_counter()
        task = worker.tasks[0]
        _remove_task(worker, task)
        if isinstance(reply.result, ComputedPicture):
            _finish_task(task, reply.result)
        elif isinstance(reply.result, SrcliError) and not isinstance(reply.result, (PictureError, MachineError)):
            self._end(reply.result)
        else:
            _fail_task(task, reply.result)
        self._start_timer(worker)
        self._assign_waiting()

    def _forward_messages(self, reply: Reply) -> None:
        for text in reply.messages:
            self._tell(text)

    def _expire(self, worker: PoolWorker, task: PictureTask) -> None:
        if task in worker.tasks:
            _remove_task(worker, task)
            _fail_task(task, timed_out(self._timeout))
            self._replace(worker.number, blame=False)

    def _replace(self, number: int, blame: bool) -> None:
        """Replace a worker that died, and give its pictures to others."""
        worker = self._workers.pop(number, None)
        if worker is None or self._failure is not None:
            return
        self._backend.stop_worker(number)
        self._failed_starts += not worker.ready
        if self._failed_starts >= MOST_FAILED_STARTS:
            self._end(MachineError("workers die while they load models: free some memory, or use fewer --workers"))
            return
        if blame and worker.tasks:
            worker.tasks[0].deaths += 1
        again = [task for task in worker.tasks if task.deaths < MOST_DEATHS and not task.future.cancelled()]
        if again:
            self._tell("a worker died: other workers take over its pictures")
        for task in list(worker.tasks):
            _remove_task(worker, task)
            if task.deaths >= MOST_DEATHS:
                _fail_task(task, PictureError("two workers died while they computed it: free some memory", "killed"))
        self._waiting.extendleft(reversed(again))
        self._start_worker()
        self._assign_waiting()

    def _end(self, error: BaseException) -> None:
        """Fail all waiting pictures, and those to come."""
        self._failure = failure = RunFailed()
        failure.__cause__ = error
        for task in self._all_tasks():
            _fail_task(task, failure)
        self._waiting.clear()


def _remove_task(worker: PoolWorker, task: PictureTask) -> None:
    worker.tasks.remove(task)
    if task.timer is not None:
        task.timer.cancel()
        task.timer = None


def _finish_task(task: PictureTask, result: ComputedPicture) -> None:
    if not task.future.done():
        task.future.set_result(result)


def _fail_task(task: PictureTask, error: BaseException | None) -> None:
    if not task.future.done():
        task.future.set_exception(error)
