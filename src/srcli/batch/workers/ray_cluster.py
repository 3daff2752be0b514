"""Workers as actors of a Ray cluster, on this machine or others.

A separate process, the gateway, talks to Ray: the library ends its process when the cluster is lost, and changes signal
handlers and environment. No Ray cluster is started here, so no port is opened but those of a member of a cluster.
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
from srcli.batch.workers.processes import PIPE_CLOSED, isolate_process, send_queued, start_isolated
from srcli.batch.workers.worker import Reply, Worker
from srcli.errors import InputError, MachineError
from srcli.imaging.picture import Picture
from srcli.messages import Tell

LEAVE_TIMEOUT = 20.0  # seconds for a gateway to disconnect from the cluster
NODE_CHECK_INTERVAL = 2.0  # seconds without a message until the gateway checks that its own node is alive


class ClusterLost(Exception):
    """The node that this process is connected to is gone."""


class RayBackend:
    """Starts the gateway process and exchanges messages with it."""

    def __init__(self, settings: BatchSettings, tell: Tell) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=run_gateway, args=(there, settings), name="srcli-ray", daemon=True)
        start_isolated(self._process)
        there.close()
        try:
            answer = self._pipe.recv()
        except PIPE_CLOSED as error:
            raise MachineError("the Ray library ends at once: see `python -c 'import ray; ray.init()'`") from error
        if isinstance(answer, BaseException):
            raise answer
        self.workers: int = answer
        self._sending: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._closed = False

    def start(self, events: Events) -> None:
        threading.Thread(target=send_queued, args=(self._pipe, self._sending), daemon=True).start()
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def start_worker(self, number: int) -> None:
        self._sending.put(("start_worker", number))

    def send_picture(self, number: int, picture: Picture) -> None:
        self._sending.put(("send_picture", number, picture))

    def stop_worker(self, number: int) -> None:
        self._sending.put(("stop_worker", number))

    def close(self) -> None:
        self._closed = True
        self._sending.put(("leave",))
        self._sending.put(None)
        self._process.join(LEAVE_TIMEOUT)
        self._process.kill()
        self._process.join()

    def _listen(self, events: Events) -> None:
        with contextlib.suppress(*PIPE_CLOSED):
            while True:
                name, *values = self._pipe.recv()
                getattr(events, name)(*values)
        if not self._closed:
            events.ended(MachineError("the Ray cluster is lost: start it again, and run the same command again"))


class RayWorker(Worker):
    """The actor that runs on a node. Its replies name the node."""

    def __init__(self, *arguments: Any) -> None:
        import ray

        super().__init__(*arguments)
        self.node = ray.get_runtime_context().get_node_id()


def run_gateway(pipe: Connection, settings: BatchSettings) -> None:
    """Run the gateway: send the number of workers, then follow commands until the pipe closes."""
    isolate_process()
    try:
        ray = connect_cluster(settings.run)
        workers, share = plan_shares(ray, settings.run, settings.factory)
    except Exception as error:
        pipe.send(error if isinstance(error, (InputError, MachineError)) else MachineError(f"Ray fails: {error}"))
        return
    pipe.send(workers)
    isolate_process()  # again: Ray has installed its own handlers
    _silence_process()
    with contextlib.suppress(*PIPE_CLOSED):
        try:
            _Gateway(ray, pipe, settings, share).serve()
        except (ClusterLost, ray.exceptions.RayError):
            os._exit(1)  # a regular exit would wait for the cluster
        except Exception as error:
            pipe.send(("ended", MachineError(f"Ray fails ({type(error).__name__}: {error}): run again")))
    ray.shutdown()


def _silence_process() -> None:
    """Discard stdout and stderr: Ray prints pages about a lost node, which the run reports in one line."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


class _Gateway:
    """Starts and watches actors. All in one thread, which runs posted functions: Ray's callbacks may not call Ray."""

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
        """Run posted functions until the end. Raises ClusterLost; if the head is lost, Ray ends the process."""
        threading.Thread(target=self._receive_all, daemon=True).start()
        while True:
            try:
                work = self._posted.get(timeout=NODE_CHECK_INTERVAL)
            except Empty:
                if not self._is_alive(self._own_node):
                    raise ClusterLost from None
                continue
            if work is None:
                return
            work()

    def _receive_all(self) -> None:
        with contextlib.suppress(*PIPE_CLOSED):
            while (message := self._pipe.recv())[0] != "leave":
                name, *values = message
                self._posted.put(partial(getattr(self, name), *values))
        self._posted.put(None)

    def start_worker(self, number: int) -> None:
        self._actors[number] = actor = self._actor()
        self._watch(actor.load.remote(), number, "ready")

    def send_picture(self, number: int, picture: Picture) -> None:
        if number in self._actors:
            self._watch(self._actors[number].compute.remote(picture), number, "computed")

    def stop_worker(self, number: int) -> None:
        if (actor := self._actors.pop(number, None)) is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)

    def _watch(self, reference: Any, number: int, event: str) -> None:
        reference.future().add_done_callback(lambda done: self._posted.put(partial(self._report, number, event, done)))

    def _report(self, number: int, event: str, done: Future[Reply]) -> None:
        if number not in self._actors:
            return
        try:
            reply = done.result()
        except self._ray.exceptions.RayError:
            self.stop_worker(number)
            self._pipe.send(("lost", number, self._is_alive(self._nodes.get(number, ""))))
            return
        self._nodes[number] = reply.node
        self._pipe.send((event, number, reply))

    def _is_alive(self, node: str) -> bool:
        """Whether a node is alive: a worker that died with its node was not killed by its picture."""
        return any(found["Alive"] and found["NodeID"] == node for found in self._ray.nodes())


def connect_cluster(options: RunOptions) -> Any:
    """Connect to the cluster and return the Ray library."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no usage statistics
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it, whoever reaches a port may run code
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray needs one more package: pip install 'srcli[cluster]'") from error
    address = options.cluster or "auto"
    _check_port(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=True)
    except Exception as error:
        raise _no_cluster(address, error) from error
    return ray


def _check_port(address: str) -> None:
    """Raise MachineError if the address does not answer; Ray would retry for minutes."""
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
    """The number of workers, and the resources of each: one GPU if there are any, else CPU cores."""
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
    if gpus and factory.device.device != "cpu":
        return (options.workers if options.workers > 1 else gpus), {"num_gpus": 1, "num_cpus": 0}
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    workers = options.workers if options.workers > 1 else nodes
    return workers, {"num_cpus": max(1, cores // workers)}
