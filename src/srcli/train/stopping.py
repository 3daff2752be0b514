"""A signal ends a run after its current step, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from srcli.errors import SrcliError

WATCHED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SIGNALLED = 128


class Stopped(SrcliError):
    """The run was stopped by a signal and can be resumed."""

    def __init__(self, number: int, step: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {step}: the same command resumes from there")
        self.exit_code = SIGNALLED + number


@dataclass
class ReceivedSignal:
    """The number of the signal that was received; 0: none."""

    signal: int = 0


@contextmanager
def catch_signals() -> Iterator[ReceivedSignal]:
    """A context in which the first signal is only recorded; the next one has its usual effect."""
    received = ReceivedSignal()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: old for number in WATCHED if (old := signal.getsignal(number)) is not signal.SIG_IGN}

    def record(number: int, _frame: FrameType | None) -> None:
        received.signal = number
        for each, old in before.items():
            signal.signal(each, old)

    for number in before:
        signal.signal(number, record)
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)
