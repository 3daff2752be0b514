"""Signals that reach the whole process group: only the run itself reacts to them, not its child processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GROUP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def handle_group_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` for these signals. Does nothing outside the main thread.

    A signal that the parent process ignores, as nohup does, stays ignored.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {n: old for n in GROUP_SIGNALS if main and (old := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def block_group_signals() -> Iterator[None]:
    """Block these signals while starting a process, so that none ends it before it calls `ignore_group_signals`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_group_signals() -> None:
    """Ignore these signals from now on, and those that arrived while they were blocked."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
