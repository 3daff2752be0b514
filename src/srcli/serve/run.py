"""Serve until a signal ends it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import IO
from urllib.parse import quote

from srcli.errors import InputError, MachineError, SrcliError, unwritable_file
from srcli.files import make_folder, open_guard, try_lock
from srcli.imaging.printable import printable
from srcli.serve.settings import ServerSettings
from srcli.settings import DeviceChoice


def run_server(settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Listen, announce the address with its token, and answer until SIGINT or SIGTERM. Raises MachineError."""
    try:
        import uvicorn

        from srcli.serve.app import create_app
        from srcli.serve.protocol import make_protocol
    except ImportError as error:
        raise InputError(f"the server needs more packages ({error.name}): pip install 'srcli[web]'") from error
    from srcli.serve.jobs import JobStore
    from srcli.serve.worker import JobWorker

    _check_device(settings.device)
    listener = _open_socket(settings)
    try:
        lock = _lock_folder(settings)
    except SrcliError:
        listener.close()
        raise
    settings = replace(settings, port=listener.getsockname()[1])
    store = JobStore(settings.folder, settings.limits.jobs)
    app = create_app(settings, store, JobWorker(store, settings))
    announce(format_address(settings))
    config = uvicorn.Config(
        app,
        http=make_protocol(settings.limits.headers),
        log_level="critical",
        server_header=False,
        limit_concurrency=settings.limits.connections,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=64 * 1024,
    )
    with suppress(KeyboardInterrupt):  # the usual end; a running job is repeated by the next server
        uvicorn.Server(config).run(sockets=[listener])
    lock.close()
    # A regular exit would wait for the worker thread. Files on disk are complete at any time.
    sys.stdout.flush()
    os._exit(0)


def format_address(settings: ServerSettings) -> str:
    """The address to open in a browser."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}/?token={quote(settings.token, safe='')}"


def _lock_folder(settings: ServerSettings) -> IO[bytes]:
    """Lock the folder: two servers on it would run each job twice. Raises InputError."""
    make_folder(settings.folder, "--folder")
    path = settings.folder / ".srcli-lock"
    try:
        lock = open_guard(path)
    except OSError as error:
        raise unwritable_file(printable(path), error, "give another --folder") from error
    if not try_lock(lock.fileno()):
        lock.close()
        raise InputError(f"{printable(settings.folder)} is used by another server: give another --folder")
    return lock


def _check_device(choice: DeviceChoice) -> None:
    """Refuse a device or precision that this machine does not have. The default needs no check, which would import
    torch before the server listens."""
    if choice != DeviceChoice(memory=choice.memory):
        from srcli.engines.runtime.device import choose_device

        choose_device(choice)


def _open_socket(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{printable(settings.host)}:{settings.port}"
        wrong_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        remedy = "give another --host" if wrong_host else "give another --port"
        raise MachineError(f"cannot listen on {where} ({error.strerror}): {remedy}") from error
    return listener
