"""Many workers, by Ray: one loaded pipeline each, here or on other machines. Files stay with the run itself."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from srcli.batch.settings import BatchSettings, PipelineFactory, RunOptions
from srcli.batch.signals import restore_signals
from srcli.batch.workers.local import Notify, OnStep, Result, RunFailed, compute_picture
from srcli.errors import InputError, MachineError, PictureError, SrcliError
from srcli.imaging.picture import Picture
from srcli.tasks import Job

if TYPE_CHECKING:
    from srcli.pipeline import Pipeline

DEPTH = 2  # pictures with a worker: one in hand, one on its way
STRIKES = 2  # workers that may die over a picture
PATIENCE = 300.0  # seconds without any worker, after which the run ends
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker made, or what went wrong, and what was said on the way. Its first one tells where it is."""

    result: Result | BaseException | None
    said: list[str]
    node: str


class Worker:
    """Lives in a process of its own, and holds one pipeline."""

    def __init__(self, factory: PipelineFactory, job: Job) -> None:
        import ray

        self._factory, self._job = factory, job
        self._pipeline: Pipeline | None = None
        self._said: list[str] = []
        self._node = ray.get_runtime_context().get_node_id()

    def load(self) -> Reply:
        """Make ready."""
        return self._reply(self._load)

    def make(self, picture: Picture) -> Reply:
        """Compute a picture."""
        return self._reply(partial(self._make, picture))

    def _load(self) -> None:
        self._pipeline = self._factory.load(self._said.append)

    def _make(self, picture: Picture) -> Result:
        if self._pipeline is None:
            raise MachineError("a worker was not ready: run again")
        return compute_picture(self._pipeline, picture, self._job, lambda stage, done, total: None).settled()

    def _reply(self, work: Callable[[], Result | None]) -> Reply:
        """An error is a result too: what comes back raised is Ray's own, and means a lost worker."""
        result: Result | BaseException | None
        try:
            result = work()
        except RunFailed as error:
            result = error.__cause__ or error
        except Exception as error:
            result = error
        said = self._said.copy()
        self._said.clear()
        return Reply(result, said, self._node)


@dataclass(eq=False)
class Task:
    """A picture that somebody waits for."""

    picture: Any  # Ray's reference to it
    future: Future[Result] = field(default_factory=Future)
    strikes: int = 0
    timer: threading.Timer | None = None


@dataclass(eq=False)
class Seat:
    """A worker's place, with the pictures that are there. Who dies is replaced."""

    actor: Any
    ready: float = 0.0  # the moment; none yet
    node: str = ""
    tasks: deque[Task] = field(default_factory=deque)


class Cluster:
    """Deals pictures to workers as they have hands free.

    All of it happens in one thread of its own, which gets everything by post: Ray's callbacks may not call Ray.
    """

    def __init__(self, settings: BatchSettings, tell: Notify) -> None:
        self._tell, self._timeout = tell, settings.run.timeout
        self._ray = connect(settings.run)
        self._workers, self._share = shares(self._ray, settings.run, settings.factory)
        if self._workers < settings.run.workers:
            tell(f"{self._workers} workers instead of {settings.run.workers}: each needs a core of its own")
        factory = settings.factory
        if "num_cpus" in self._share:
            factory = replace(
                factory, device=replace(factory.device, threads=factory.device.threads or self._share["num_cpus"])
            )
        self._hire = partial(self._ray.remote(Worker).options(**self._share).remote, factory, settings.job)
        self._post: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: deque[Task] = deque()
        self._seats: list[Seat] = []
        self._patience: threading.Timer | None = None
        self._ended: BaseException | None = None
        self.slots, self.loading, self._last = DEPTH * self._workers, 0.0, 0.0
        self._thread = threading.Thread(target=self._serve, name="cluster", daemon=True)
        self._thread.start()

    @property
    def present(self) -> float:
        return sum(max(0.0, self._last - seat.ready) for seat in self._seats if seat.ready)

    def submit(self, picture: Picture, on_step: OnStep) -> Future[Result]:
        task = Task(self._ray.put(picture))
        self._post.put(partial(self._accept, task))
        return task.future

    def drop(self) -> None:
        self._post.put(self._drop)

    def close(self) -> None:
        self._post.put(None)
        self._thread.join()
        for timer in (self._patience, *(task.timer for seat in self._seats for task in seat.tasks)):
            if timer is not None:
                timer.cancel()
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._ray.shutdown()

    def _serve(self) -> None:
        while (work := self._post.get()) is not None:
            try:
                work()
            except Exception as error:  # the connection itself is gone
                self._end(MachineError(f"the Ray cluster is lost ({type(error).__name__}): start it again"))

    def _accept(self, task: Task) -> None:
        if self._ended is not None:
            _fail(task, self._ended)
            return
        self._waiting.append(task)
        pictures = len(self._waiting) + sum(len(seat.tasks) for seat in self._seats)
        if len(self._seats) < min(self._workers, pictures):  # a worker too many is memory and cores for nothing
            self._seat()
        self._deal()

    def _drop(self) -> None:
        for task in (*self._waiting, *(task for seat in self._seats for task in seat.tasks)):
            task.future.cancel()
        self._waiting.clear()

    def _seat(self) -> None:
        """Hire a worker. It gets pictures once it has answered: until then nobody knows if there is room for it."""
        seat = Seat(self._hire())
        self._seats.append(seat)
        loaded = seat.actor.load.remote().future()
        began = time.perf_counter()
        loaded.add_done_callback(lambda done: self._post.put(partial(self._loaded, seat, began, done)))
        if self._patience is None and not any(s.ready for s in self._seats):
            self._patience = threading.Timer(PATIENCE, self._post.put, (self._give_up,))
            self._patience.daemon = True
            self._patience.start()

    def _loaded(self, seat: Seat, began: float, done: Future[Any]) -> None:
        try:
            reply: Reply = done.result()
        except self._ray.exceptions.RayError:
            self._lose(seat, blame=False)
            return
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._hear(reply)
        if isinstance(reply.result, BaseException):
            self._end(reply.result)
            return
        seat.node = reply.node
        self.loading = max(self.loading, time.perf_counter() - began)
        seat.ready = self._last = time.perf_counter()
        self._deal()

    def _deal(self) -> None:
        """Give waiting pictures to the workers with the fewest."""
        while self._waiting:
            free = [seat for seat in self._seats if seat.ready and len(seat.tasks) < DEPTH]
            if not free:
                return
            self._give(min(free, key=lambda seat: len(seat.tasks)), self._waiting.popleft())

    def _give(self, seat: Seat, task: Task) -> None:
        seat.tasks.append(task)
        made = seat.actor.make.remote(task.picture).future()
        made.add_done_callback(lambda done: self._post.put(partial(self._made, seat, task, done)))
        self._mind(seat)

    def _mind(self, seat: Seat) -> None:
        """The time of the picture in hand runs."""
        if self._timeout is not None and seat.tasks and seat.tasks[0].timer is None:
            task = seat.tasks[0]
            task.timer = threading.Timer(self._timeout, self._post.put, (partial(self._expire, seat, task),))
            task.timer.daemon = True
            task.timer.start()

    def _made(self, seat: Seat, task: Task, done: Future[Any]) -> None:
        if task not in seat.tasks:
            return  # its worker was given up before
        try:
            reply: Reply = done.result()
        except self._ray.exceptions.RayError:
            # A worker that went with its machine says nothing about the picture.
            self._lose(seat, blame=any(n["Alive"] and n["NodeID"] == seat.node for n in self._ray.nodes()))
            return
        self._hear(reply)
        self._last = time.perf_counter()
        _leave(seat, task)
        if isinstance(reply.result, Result):
            _settle(task, reply.result)
        elif isinstance(reply.result, SrcliError) and not isinstance(reply.result, (PictureError, MachineError)):
            self._end(reply.result)
        else:
            _fail(task, reply.result)
        self._mind(seat)
        self._deal()

    def _hear(self, reply: Reply) -> None:
        for text in reply.said:
            self._tell(text)

    def _expire(self, seat: Seat, task: Task) -> None:
        if task in seat.tasks:
            _leave(seat, task)
            _fail(task, PictureError(f"took longer than {self._timeout:g} seconds: raise --timeout", "timeout"))
            self._lose(seat, blame=False)

    def _lose(self, seat: Seat, blame: bool) -> None:
        """A worker is gone: its pictures are done again by others, and another takes its place."""
        if seat not in self._seats:
            return
        self._seats.remove(seat)
        with suppress(Exception):
            self._ray.kill(seat.actor)
        if blame and seat.tasks:
            seat.tasks[0].strikes += 1
        again = [task for task in seat.tasks if task.strikes < STRIKES and not task.future.cancelled()]
        if again:
            self._tell("a worker was lost: what it had is done again by others")
        for task in list(seat.tasks):
            _leave(seat, task)
            if task.strikes >= STRIKES:
                _fail(task, PictureError("the worker that computed it died, twice: free some memory for it", "killed"))
        self._waiting.extendleft(reversed(again))
        self._seat()
        self._deal()

    def _give_up(self) -> None:
        self._end(MachineError(f"no worker could be started in {PATIENCE:g} seconds: see `ray status` for its room"))

    def _end(self, error: BaseException) -> None:
        """Nothing can be made any more."""
        self._ended = fatal = RunFailed()
        fatal.__cause__ = error
        for task in (*self._waiting, *(task for seat in self._seats for task in seat.tasks)):
            _fail(task, fatal)
        self._waiting.clear()


def _leave(seat: Seat, task: Task) -> None:
    seat.tasks.remove(task)
    if task.timer is not None:
        task.timer.cancel()
        task.timer = None


def _settle(task: Task, made: Result) -> None:
    if not task.future.done():
        task.future.set_result(made)


def _fail(task: Task, error: BaseException | None) -> None:
    if not task.future.done():
        task.future.set_exception(error)


def connect(options: RunOptions) -> Any:
    """The Ray library, connected: to the cluster that was named, or to one that starts here and ends with the run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    os.environ.setdefault("RAY_worker_niceness", str(os.nice(0)))  # Ray's own 15 yields to all else
    try:
        import ray
    except ImportError as error:
        raise InputError("--workers and --ray need one more package: pip install 'srcli[cluster]'") from error
    address = options.ray or LOCAL
    _knock(address)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    here = {"include_dashboard": False}
    try:
        with restore_signals():
            ray.init(address=address, **quiet, **(here if address == LOCAL else {}))
    except Exception as error:
        raise _nobody(address, error) from error
    return ray


def _knock(address: str) -> None:
    """Is anybody there? Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise _nobody(address, error) from error


def _nobody(address: str, error: Exception) -> MachineError:
    return MachineError(f"no Ray cluster at {address!r} ({type(error).__name__}): start one with `ray start --head`")


def shares(ray: Any, options: RunOptions, factory: PipelineFactory) -> tuple[int, dict[str, int]]:
    """How many workers, and what each needs: a GPU where there are some, else cores."""
    has = ray.cluster_resources()
    gpus, cores = int(has.get("GPU", 0)), max(1, int(has.get("CPU", 1)))
    if gpus and factory.device.device != "cpu":
        return (options.workers if options.workers > 1 else gpus), {"num_gpus": 1, "num_cpus": 0}
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    workers = options.workers if options.workers > 1 else nodes
    if options.ray in (None, LOCAL):  # a cluster may grow
        workers = min(workers, cores)
    return workers, {"num_cpus": max(1, cores // workers)}
