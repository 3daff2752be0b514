"""SIGINT, SIGTERM and SIGHUP: the first stops the run cleanly, the second ends the process at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from srcli.batch.report import SIGNAL_EXIT
from srcli.batch.stages import StopRequest
from srcli.group_signals import handle_group_signals


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

    with handle_group_signals(on_signal):
        yield
