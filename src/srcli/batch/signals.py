"""Ctrl-C and its kin: once ends the run in good order, twice at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from srcli.batch.report import SIGNALLED
from srcli.batch.stages import StopRequest

WATCHED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def restore_signals() -> Iterator[None]:
    """Signals mean afterwards what they mean now, whatever a library makes of them meanwhile."""
    before = {number: signal.getsignal(number) for number in WATCHED}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, old in before.items():
                signal.signal(number, old)


@contextmanager
def watch_signals(stop: StopRequest, cut_off: Callable[[], None]) -> Iterator[None]:
    """Turn signals into a stop sign. A second one ends the process: every file is whole at any moment.

    `cut_off` is called before that.
    """

    def heard(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            cut_off()
            os._exit(SIGNALLED + number)
        stop.signal = number
        stop.asked.set()
        if stop.wake is None:
            raise SystemExit(SIGNALLED + number)  # nothing is under way yet
        stop.wake()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Who started us may have said to ignore one: nohup does.
    before = {n: old for n in WATCHED if (old := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
