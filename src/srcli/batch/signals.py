"""SIGINT, SIGTERM and SIGHUP: the first stops the run cleanly, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from srcli.batch.group_signals import GROUP_SIGNALS
from srcli.batch.report import SIGNAL_EXIT
from srcli.batch.stages import StopRequest


@contextmanager
def watch_signals(stop: StopRequest, cut_off: Callable[[], None]) -> Iterator[None]:
    """Turn the first signal into a stop request; a second one exits at once, which leaves no partial file.

    `cut_off` is called before that exit.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            cut_off()
            os._exit(SIGNAL_EXIT + number)
        stop.signal = number
        stop.asked.set()
        if stop.wake is None:
            raise SystemExit(SIGNAL_EXIT + number)  # the run has not started yet
        stop.wake()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that the parent process ignores, as nohup does, stays ignored.
    before = {n: old for n in GROUP_SIGNALS if (old := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
