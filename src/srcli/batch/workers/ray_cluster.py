"""Workers as actors of a Ray cluster, on this machine or others.

A process of its own speaks to Ray: the library ends the process it is in when the cluster goes, and takes over its
signals and its environment. Nothing of Ray is ever started here, so no port is opened but those of a cluster's member.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from srcli.batch.settings import BatchSettings, PipelineFactory, RunOptions
from srcli.batch.workers.pool import Events
from srcli.batch.workers.processes import GONE, isolate_process, start_isolated
from srcli.batch.workers.worker import Reply, Worker
from srcli.errors import InputError, MachineError
from srcli.imaging.picture import Picture
from srcli.messages import Tell

FAREWELL = 20.0  # seconds in which a gateway may take its leave of the cluster
CHECK = 2.0  # seconds without news, after which the gateway looks whether its own node is still there


class ClusterLost(Exception):
    """The node that this process is connected to is gone: nothing more will come from the cluster."""


class RayBackend:
    """Sends a gateway process to the cluster, and passes on what it says."""

    def __init__(self, settings: BatchSettings, tell: Tell) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=run_gateway, args=(there, settings), name="srcli-ray", daemon=True)
        start_isolated(self._process)
        there.close()
        try:
            found = self._pipe.recv()
        except GONE as error:
            raise MachineError("the Ray library ends at once: see `python -c 'import ray; ray.init()'`") from error
        if isinstance(found, BaseException):
            raise found
        self.workers: int = found
        self._sending: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._closed = False

    def start(self, events: Events) -> None:
        for target in (self._send_all, partial(self._listen, events)):
            threading.Thread(target=target, daemon=True).start()

    def hire(self, seat: int) -> None:
        self._sending.put(("hire", seat))

    def give(self, seat: int, picture: Picture) -> None:
        self._sending.put(("give", seat, picture))

    def dismiss(self, seat: int) -> None:
        self._sending.put(("dismiss", seat))

    def close(self) -> None:
        self._closed = True
        self._sending.put(("leave",))
        self._sending.put(None)
        self._process.join(FAREWELL)
        self._process.kill()
        self._process.join()

    def _send_all(self) -> None:
        with contextlib.suppress(*GONE):
            while (message := self._sending.get()) is not None:
                self._pipe.send(message)

    def _listen(self, events: Events) -> None:
        with contextlib.suppress(*GONE):
            while True:
                name, *values = self._pipe.recv()
                getattr(events, name)(*values)
        if not self._closed:
            events.ended(MachineError("the Ray cluster is lost: start it again, and run the same command again"))


class RayWorker(Worker):
    """The actor. Its replies say which node it is on."""

    def __init__(self, *words: Any) -> None:
        import ray

        super().__init__(*words)
        self.node = ray.get_runtime_context().get_node_id()


def run_gateway(pipe: Connection, settings: BatchSettings) -> None:
    """The gateway's process: say how many workers there can be, then do as told until the pipe closes."""
    isolate_process()
    try:
        ray = connect_cluster(settings.run)
        workers, share = plan_shares(ray, settings.run, settings.factory)
    except Exception as error:
        pipe.send(error if isinstance(error, (InputError, MachineError)) else MachineError(f"Ray fails: {error}"))
        return
    pipe.send(workers)
    isolate_process()  # Ray has put handlers of its own in place
    _silence_process()
    with contextlib.suppress(*GONE):
        try:
            _Gateway(ray, pipe, settings, share).serve()
        except (ClusterLost, ray.exceptions.RayError):
            os._exit(1)  # Ray would wait for the cluster to take its leave
        except Exception as error:
            pipe.send(("ended", MachineError(f"Ray fails ({type(error).__name__}: {error}): run again")))
    ray.shutdown()


def _silence_process() -> None:
    """Ray prints pages about a node that goes. The run says it in one line; Ray's own logs have the rest."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


class _Gateway:
    """Everything happens in one thread, which is posted to: Ray's callbacks may not call Ray."""

    def __init__(self, ray: Any, pipe: Connection, settings: BatchSettings, share: dict[str, int]) -> None:
        factory = settings.factory
        if "num_cpus" in share and share["num_cpus"]:
            threads = factory.device.threads or share["num_cpus"]
            factory = replace(factory, device=replace(factory.device, threads=threads))
        self._ray, self._pipe = ray, pipe
        self._actor = partial(ray.remote(RayWorker).options(**share).remote, factory, settings.job)
        self._posted: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        self._own_node: str = ray.get_runtime_context().get_node_id()

    def serve(self) -> None:
        """Raises ClusterLost. Where the head is gone, Ray itself ends the process, after a minute."""
        threading.Thread(target=self._receive_all, daemon=True).start()
        while True:
            try:
                work = self._posted.get(timeout=CHECK)
            except Empty:
                if not self._is_alive(self._own_node):
                    raise ClusterLost from None
                continue
            if work is None:
                return
            work()

    def _receive_all(self) -> None:
        with contextlib.suppress(*GONE):
            while (message := self._pipe.recv())[0] != "leave":
                name, *values = message
                self._posted.put(partial(getattr(self, name), *values))
        self._posted.put(None)

    def hire(self, seat: int) -> None:
        self._actors[seat] = actor = self._actor()
        self._watch(actor.load.remote(), seat, "ready")

    def give(self, seat: int, picture: Picture) -> None:
        if seat in self._actors:
            self._watch(self._actors[seat].compute.remote(picture), seat, "computed")

    def dismiss(self, seat: int) -> None:
        if (actor := self._actors.pop(seat, None)) is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)

    def _watch(self, reference: Any, seat: int, event: str) -> None:
        reference.future().add_done_callback(lambda done: self._posted.put(partial(self._report, seat, event, done)))

    def _report(self, seat: int, event: str, done: Future[Reply]) -> None:
        if seat not in self._actors:
            return
        try:
            reply = done.result()
        except self._ray.exceptions.RayError:
            self.dismiss(seat)
            self._pipe.send(("lost", seat, self._is_alive(self._nodes.get(seat, ""))))
            return
        self._nodes[seat] = reply.node
        self._pipe.send((event, seat, reply))

    def _is_alive(self, node: str) -> bool:
        """A worker that went with its machine says nothing about the picture."""
        return any(found["Alive"] and found["NodeID"] == node for found in self._ray.nodes())


def connect_cluster(options: RunOptions) -> Any:
    """The Ray library, connected to the cluster that was named."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # or else whoever reaches a port may run code
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray needs one more package: pip install 'srcli[cluster]'") from error
    address = options.cluster or "auto"
    _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=True)
    except Exception as error:
        raise _no_cluster(address, error) from error
    return ray


def _knock(address: str) -> None:
    """Does anybody answer? Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> MachineError:
    what = "the cluster's token is missing or another" if "uthenticat" in f"{type(error).__name__}{error}" else ""
    return MachineError(
        f"no Ray cluster at {address!r} ({what or type(error).__name__}): start one with `ray start --head`,"
        " and give both the same token (see docs/scale.md)"
    )


def plan_shares(ray: Any, options: RunOptions, factory: PipelineFactory) -> tuple[int, dict[str, int]]:
    """How many workers, and what each needs: a GPU where there are some, else cores."""
    has = ray.cluster_resources()
    gpus, cores = int(has.get("GPU", 0)), max(1, int(has.get("CPU", 1)))
    if gpus and factory.device.device != "cpu":
        return (options.workers if options.workers > 1 else gpus), {"num_gpus": 1, "num_cpus": 0}
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    workers = options.workers if options.workers > 1 else nodes
    return workers, {"num_cpus": max(1, cores // workers)}
