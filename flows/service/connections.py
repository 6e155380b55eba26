"""Connections that keep others waiting are closed. Knows uvicorn's protocol; knows no request.

uvicorn closes a connection that is idle after an answer, and waits for ever for the first request, for the rest of one,
and for whoever does not read an answer. So many that hold a connection each would shut all others out.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_TO_ASK = 60.0
"""How long a request may take to arrive, its body too, from when the connection is there or the request begins, and an
answer to be read."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it; who does not ask to the end in time, or read, loses the connection."""

    _asking: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._asking = self.loop.call_later(SECONDS_TO_ASK, transport.close)

    def handle_events(self) -> None:
        """Take what has come; wait on only while a request is not whole and uvicorn does not wait itself."""
        super().handle_events()
        answering = self.cycle is not None and not self.cycle.response_complete
        whole = not self.cycle.more_body if answering else self.timeout_keep_alive_task is not None
        if whole:
            _cancel(self._asking)
            self._asking = None
        elif self._asking is None:
            self._asking = self.loop.call_later(SECONDS_TO_ASK, self.transport.close)

    def pause_writing(self) -> None:
        """Begin to wait for an answer to be read."""
        super().pause_writing()
        # To close would wait for what is not read.
        self._reading = self.loop.call_later(SECONDS_TO_ASK, self.transport.abort)

    def resume_writing(self) -> None:
        """It was read."""
        _cancel(self._reading)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        _cancel(self._asking)
        _cancel(self._reading)
        super().connection_lost(exc)


def _cancel(waiting: asyncio.TimerHandle | None) -> None:
    if waiting is not None:
        waiting.cancel()
