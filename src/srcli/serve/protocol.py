"""HTTP with a timeout for the head of a request: silent connections could use up all connections."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class HeadTimeoutProtocol(H11Protocol):
    """uvicorn's protocol, which has a timeout between requests but none within a request."""

    head_timeout = 20.0  # seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_timer()
        elif self._timer is None:  # another request begins
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.head_timeout, self._close_silent)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_silent(self) -> None:
        self._timer = None
        if not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        """Whether a request with a complete head is not answered yet. Slow bodies are handled elsewhere."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete


def make_protocol(head_timeout: float) -> type[HeadTimeoutProtocol]:
    """The class for uvicorn's connections, with this timeout in seconds."""
    return type("Protocol", (HeadTimeoutProtocol,), {"head_timeout": head_timeout})
