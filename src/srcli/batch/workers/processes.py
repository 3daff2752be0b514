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
from typing import Any

from srcli.batch.settings import BatchSettings, PipelineFactory
from srcli.batch.workers.pool import Events
from srcli.batch.workers.worker import Worker
from srcli.group_signals import block_group_signals, ignore_group_signals
from srcli.imaging.picture import Picture
from srcli.messages import Tell
from srcli.tasks import Job
from srcli.threads import count_usable_cores

PIPE_CLOSED = (EOFError, OSError)  # what a pipe raises when its other end has closed


@dataclass(eq=False)
class _Process:
    """One worker's process and the pipe to it."""

    process: BaseProcess
    pipe: Connection
    outbox: SimpleQueue[Picture | None] = field(default_factory=SimpleQueue)

    def end(self) -> None:
        self.outbox.put(None)
        self.process.kill()


class ProcessBackend:
    """One spawned process per worker, each with its own GPU, or else a share of the cores."""

    def __init__(self, settings: BatchSettings, tell: Tell) -> None:
        self._job, self._factories = settings.job, split_factory(settings)
        self.workers = len(self._factories)
        if self.workers < settings.run.workers:
            what = "GPU" if self._factories[0].device.device.startswith("cuda:") else "core"
            tell(f"{self.workers} workers instead of {settings.run.workers}: each needs a {what} of its own")
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, _Process] = {}
        self._free = list(range(self.workers))  # indexes of factories that no worker uses
        self._assigned: dict[int, int] = {}

    def start(self, events: Events) -> None:
        self._events = events

    def start_worker(self, number: int) -> None:
        self._assigned[number] = self._free.pop(0)
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=run_worker,
            args=(there, self._factories[self._assigned[number]], self._job),
            name="srcli-worker",
            daemon=True,
        )
        start_isolated(process)
        there.close()
        self._processes[number] = one = _Process(process, here)
        threading.Thread(target=send_queued, args=(here, one.outbox), daemon=True).start()
        threading.Thread(target=self._listen, args=(number, one), daemon=True).start()

    def send_picture(self, number: int, picture: Picture) -> None:
        self._processes[number].outbox.put(picture)

    def stop_worker(self, number: int) -> None:
        if (one := self._processes.pop(number, None)) is not None:
            one.end()
            self._free.append(self._assigned.pop(number))

    def close(self) -> None:
        for one in self._processes.values():
            one.end()
        for one in self._processes.values():
            one.process.join()

    def _listen(self, number: int, one: _Process) -> None:
        with contextlib.suppress(*PIPE_CLOSED):
            self._events.ready(number, one.pipe.recv())
            while True:
                self._events.computed(number, one.pipe.recv())
        self._events.lost(number, blame=True)


def send_queued(pipe: Connection, outbox: SimpleQueue[Any]) -> None:
    """Send queued messages until None; runs in its own thread, since a stalled receiver would block the sender."""
    with contextlib.suppress(*PIPE_CLOSED):
        while (message := outbox.get()) is not None:
            pipe.send(message)


def run_worker(pipe: Connection, factory: PipelineFactory, job: Job) -> None:
    """Run a worker process: load the pipeline, then compute pictures until the pipe closes."""
    isolate_process()
    inbox: SimpleQueue[Picture] = SimpleQueue()
    # Pictures are received while one is computed, so that the sender is not blocked and a closed pipe is noticed.
    threading.Thread(target=_receive_all, args=(pipe, inbox), daemon=True).start()
    worker = Worker(factory, job)
    with contextlib.suppress(*PIPE_CLOSED):
        pipe.send(worker.load())
        while True:
            pipe.send(worker.compute(inbox.get()))


def _receive_all(pipe: Connection, inbox: SimpleQueue[Picture]) -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except PIPE_CLOSED:
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


def split_factory(settings: BatchSettings) -> list[PipelineFactory]:
    """A factory for each worker: on its own GPU if there are any, else with its share of the cores."""
    factory, wanted = settings.factory, settings.run.workers
    device = factory.device
    gpus = _count_gpus() if device.device in ("auto", "cuda") else 0
    if gpus:
        names = [f"cuda:{number}" for number in range(min(gpus, wanted))]
        return [replace(factory, device=replace(device, device=name)) for name in names]
    cores = count_usable_cores()
    workers = min(wanted, cores)
    shared = replace(factory, device=replace(device, threads=device.threads or max(1, cores // workers)))
    return [shared] * workers


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()
