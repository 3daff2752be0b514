"""Signals end a run after its current step, with a checkpoint; a second one ends it at once."""

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
    """The run was asked to end, and can go on."""

    def __init__(self, number: int, step: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {step}: the same command goes on from there")
        self.exit_code = SIGNALLED + number


@dataclass
class Asked:
    """Which signal has come; 0 is none."""

    signal: int = 0


@contextmanager
def watching_signals() -> Iterator[Asked]:
    """Within, the first signal is noted; the next one does what it did before."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: old for number in WATCHED if (old := signal.getsignal(number)) is not signal.SIG_IGN}

    def heard(number: int, _frame: FrameType | None) -> None:
        asked.signal = number
        for each, old in before.items():
            signal.signal(each, old)

    for number in before:
        signal.signal(number, heard)
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
