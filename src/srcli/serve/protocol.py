"""HTTP with an end to the wait for the head of a request: silent connections would use up all that there are."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """uvicorn's, which has a timeout between requests and none within one."""

    patience = 20.0  # seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._waiting: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_waiting()
        elif self._waiting is None:  # the beginning of another request
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._waiting = self.loop.call_later(self.patience, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        """Whether a request's head has come in and has not been answered yet. Slow bodies are cut elsewhere."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete


def make_protocol(patience: float) -> type[PatientProtocol]:
    """The class that uvicorn makes connections of."""
    return type("Protocol", (PatientProtocol,), {"patience": patience})
