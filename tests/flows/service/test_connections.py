"""Connections that ask for nothing, or not to the end, are closed; those that are answered are not."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from prorec.flows.service import connections
from prorec.flows.service.server import _open_as_many_as_may_be, _token

WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SECONDS = 1.0


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers after longer than a request may take to arrive."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    await asyncio.sleep(2 * SECONDS)
    body = b"ok" if scope["path"] == "/" else b" " * 30_000_000
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    monkeypatch.setattr(connections, "SECONDS_TO_ASK", SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(slow, http=connections.PatientProtocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield server
        server.should_exit = True
        thread.join()


def connected(server: uvicorn.Server) -> socket.socket:
    return socket.create_connection(server.servers[0].sockets[0].getsockname(), 30)


def heard(server: uvicorn.Server, *sent: bytes) -> bytes:
    """All that comes until the other side closes."""
    with connected(server) as client:
        found = b""
        for each in sent:
            client.sendall(each)
            while each == WHOLE and not found.endswith(b"ok"):
                more = client.recv(4096)
                assert more, "closed before it was answered"
                found += more
            found += b" " * (each == WHOLE)
        while more := client.recv(4096):
            found += more
        return found


@pytest.mark.parametrize("sent", [[], [b"GET / HT"], [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"]])
def test_who_does_not_ask_to_the_end_is_not_waited_for(server: uvicorn.Server, sent: list[bytes]) -> None:
    assert heard(server, *sent) == b""


def test_who_asks_twice_at_once_is_answered_once_where_the_second_is_not_whole(server: uvicorn.Server) -> None:
    assert heard(server, WHOLE + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc").endswith(b"ok")


def test_who_does_not_read_is_not_waited_for(server: uvicorn.Server) -> None:
    with connected(server) as client:
        client.sendall(WHOLE.replace(b"/ ", b"/much "))
        begun = time.monotonic()
        while not server.server_state.connections:
            time.sleep(0.01)
        while server.server_state.connections:
            assert time.monotonic() < begun + 60
            time.sleep(0.05)


def test_as_many_connections_are_held_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] // 2, before[1]))
    try:
        _open_as_many_as_may_be()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_token_that_others_could_read_is_replaced_and_that_is_told(
    artifacts_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first, _ = _token(listener)
        assert _token(listener)[0] == first
        (artifacts_folder / "served" / "secret").chmod(0o644)
        assert _token(listener)[0] != first
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [text.partition(" in ")[0] for text in told] == ["The token"]


def test_who_has_asked_is_answered_and_may_ask_again(server: uvicorn.Server) -> None:
    found = heard(server, WHOLE, WHOLE, b"GET / HT")
    assert found.count(b"200 OK") == 2 and found.endswith(b"ok ")
