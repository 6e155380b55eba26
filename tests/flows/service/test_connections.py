"""Connections that ask for nothing, or not to the end, are closed; those that are answered are not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from prorec.flows.service import connections

WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SECONDS = 0.5


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers after longer than a request may take to arrive."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    await asyncio.sleep(2 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "SECONDS_TO_ASK", SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(slow, http=connections.PatientProtocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield int(listener.getsockname()[1])
        server.should_exit = True
        thread.join()


def heard(port: int, *sent: bytes) -> bytes:
    """All that comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        found = b""
        for each in sent:
            client.sendall(each)
            while each == WHOLE and not found.endswith(b"ok"):
                found += client.recv(4096)
            found += b" " * (each == WHOLE)
        while more := client.recv(4096):
            found += more
        return found


@pytest.mark.parametrize("sent", [[], [b"GET / HT"], [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"]])
def test_who_does_not_ask_to_the_end_is_not_waited_for(port: int, sent: list[bytes]) -> None:
    assert heard(port, *sent) == b""


def test_who_has_asked_is_answered_and_may_ask_again(port: int) -> None:
    found = heard(port, WHOLE, WHOLE, b"GET / HT")
    assert found.count(b"200 OK") == 2 and found.endswith(b"ok ")
