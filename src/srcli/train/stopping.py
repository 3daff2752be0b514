"""A signal ends a run after its current step, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

from srcli.errors import SrcliError
from srcli.group_signals import handle_group_signals

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
    with ExitStack() as handling:

        def record(number: int, _frame: FrameType | None) -> None:
            received.signal = number
            handling.close()

        handling.enter_context(handle_group_signals(record))
        yield received
