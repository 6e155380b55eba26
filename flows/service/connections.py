"""Connections that ask for nothing are closed. Knows uvicorn's protocol; knows no request.

uvicorn closes a connection that is idle after an answer, and waits for ever for the first request, or for the rest of
one. So many that hold a connection each, and say nothing, would shut all others out.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_TO_ASK = 60.0
"""How long a request may take to arrive, its body too, from when the connection is there or the request begins."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it; a request that has not come whole in time ends its connection."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take data; wait on only while a request is not whole."""
        super().data_received(data)
        if self._has_asked():
            self._wait_no_more()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _has_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(SECONDS_TO_ASK, self._give_up)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()
