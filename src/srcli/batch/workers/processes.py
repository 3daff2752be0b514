"""Workers as spawned processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from srcli.batch.group_signals import block_group_signals, ignore_group_signals
from srcli.batch.settings import BatchSettings, PipelineFactory
from srcli.batch.workers.pool import Events
from srcli.batch.workers.worker import Worker
from srcli.imaging.picture import Picture
from srcli.messages import Tell
from srcli.tasks import Job

GONE = (EOFError, OSError)  # what a pipe raises when its other end has closed


@dataclass(eq=False)
class _Process:
    """One worker's process and the pipe to it."""

    process: BaseProcess
    pipe: Connection
    outbox: SimpleQueue[Picture | None] = field(default_factory=SimpleQueue)

    def send_all(self) -> None:
        """Send queued pictures; runs in its own thread, since a stalled worker would block the others."""
        with contextlib.suppress(*GONE):
            while (picture := self.outbox.get()) is not None:
                self.pipe.send(picture)

    def end(self) -> None:
        self.outbox.put(None)
        self.process.kill()


class ProcessBackend:
    """One spawned process per worker, each with its own GPU, or else a share of the cores."""

    def __init__(self, settings: BatchSettings, tell: Tell) -> None:
        self._job, self._factories = settings.job, factories_of(settings)
        self.workers = len(self._factories)
        if self.workers < settings.run.workers:
            what = "GPU" if self._factories[0].device.device.startswith("cuda:") else "core"
            tell(f"{self.workers} workers instead of {settings.run.workers}: each needs a {what} of its own")
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, _Process] = {}
        self._free = list(range(self.workers))  # indexes of factories that no worker uses
        self._held: dict[int, int] = {}

    def start(self, events: Events) -> None:
        self._events = events

    def hire(self, seat: int) -> None:
        self._held[seat] = self._free.pop(0)
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=run_worker,
            args=(there, self._factories[self._held[seat]], self._job),
            name="srcli-worker",
            daemon=True,
        )
        start_isolated(process)
        there.close()
        self._processes[seat] = one = _Process(process, here)
        threading.Thread(target=one.send_all, daemon=True).start()
        threading.Thread(target=self._listen, args=(seat, one), daemon=True).start()

    def give(self, seat: int, picture: Picture) -> None:
        self._processes[seat].outbox.put(picture)

    def dismiss(self, seat: int) -> None:
        if (one := self._processes.pop(seat, None)) is not None:
            one.end()
            self._free.append(self._held.pop(seat))

    def close(self) -> None:
        for one in self._processes.values():
            one.end()
        for one in self._processes.values():
            one.process.join()

    def _listen(self, seat: int, one: _Process) -> None:
        with contextlib.suppress(*GONE):
            self._events.ready(seat, one.pipe.recv())
            while True:
                self._events.computed(seat, one.pipe.recv())
        self._events.lost(seat, blame=True)


def run_worker(pipe: Connection, factory: PipelineFactory, job: Job) -> None:
    """Run a worker process: load the pipeline, then compute pictures until the pipe closes."""
    isolate_process()
    inbox: SimpleQueue[Picture] = SimpleQueue()
    # Pictures are received while one is computed, so that the sender is not blocked and a closed pipe is noticed.
    threading.Thread(target=_receive_all, args=(pipe, inbox), daemon=True).start()
    worker = Worker(factory, job)
    with contextlib.suppress(*GONE):
        pipe.send(worker.load())
        while True:
            pipe.send(worker.compute(inbox.get()))


def _receive_all(pipe: Connection, inbox: SimpleQueue[Picture]) -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except GONE:
        os._exit(0)  # the run has ended or was killed


def start_isolated(process: BaseProcess) -> None:
    """Start a process that no signal to the whole group can end before it calls `isolate_process`."""
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # it takes the block away when it starts
    with block_group_signals():
        process.start()


def isolate_process() -> None:
    """Ignore signals, which only the run reacts to, and send stdout to stderr, since stdout is for results."""
    ignore_group_signals()
    with contextlib.suppress(OSError):
        os.dup2(2, 1)


def factories_of(settings: BatchSettings) -> list[PipelineFactory]:
    """One for each worker: on a GPU of its own where there are some, else with its share of the cores."""
    factory, wanted = settings.factory, settings.run.workers
    device = factory.device
    gpus = _count_gpus() if device.device in ("auto", "cuda") else 0
    if gpus:
        names = [f"cuda:{number}" for number in range(min(gpus, wanted))]
        return [replace(factory, device=replace(device, device=name)) for name in names]
    cores = usable_cores()
    workers = min(wanted, cores)
    shared = replace(factory, device=replace(device, threads=device.threads or max(1, cores // workers)))
    return [shared] * workers


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
