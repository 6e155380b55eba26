"""Who may pass the guard: by Host, Origin and login, for requests and for websockets."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from typing import Any

import pytest

from prorec.flows.access.guard import Guard, loopback

LOGIN = "prorec:a:b ü"


async def _inside(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


def asked(guard: Guard, headers: Iterable[tuple[str, str | bytes]], kind: str = "http", **more: Any) -> Any:
    """The status of the answer, or what became of a websocket."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    encoded = [(name.lower().encode(), text if isinstance(text, bytes) else text.encode()) for name, text in headers]
    scope = {"type": kind, "method": "GET", "path": "/", "headers": encoded, **more}
    asyncio.run(guard(scope, receive, send))
    if sent[0]["type"] == "http.response.start":
        asks = any(name == b"www-authenticate" for name, _ in sent[0]["headers"])
        assert asks == (sent[0]["status"] == 401)
    return sent[0].get("status", sent[0]["type"])


def given(login: str) -> tuple[str, str]:
    return "Authorization", f"Basic {base64.b64encode(login.encode()).decode()}"


@pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200", "LocalHost:4200", "[::1]:4200"])
def test_own_names_pass(host: str) -> None:
    guard = Guard(_inside, loopback(4200))
    assert asked(guard, [("Host", host)]) == 200
    assert asked(guard, [("Host", host)], "websocket") == "websocket.accept"
    assert asked(guard, [("Host", host), ("Origin", f"http://{host.lower()}")]) == 200


@pytest.mark.parametrize(("address", "host"), [("127.0.1.1", "127.0.1.1:4200"), ("::1", "[::1]:4200")])
def test_the_address_that_is_listened_at_is_an_own_name(address: str, host: str) -> None:
    assert asked(Guard(_inside, loopback(4200, address)), [("Host", host)]) == 200
    assert asked(Guard(_inside, loopback(4200, address)), [("Host", "localhost:4200")]) == 200
    assert asked(Guard(_inside, loopback(4200, address)), [("Host", "127.0.2.1:4200")]) == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.1:80"])
def test_the_port_of_http_is_left_out(host: str) -> None:
    assert asked(Guard(_inside, loopback(80)), [("Host", host), ("Origin", f"http://{host}")]) == 200
    assert asked(Guard(_inside, loopback(4200)), [("Host", host)]) == 403


@pytest.mark.parametrize(
    "hosts",
    [
        *[["evil.example"], ["evil.example:4200"], ["127.0.0.1"], ["127.0.0.1:4201"], ["localhost.:4200"], [""], []],
        *[["127.0.0.1:4200", "evil.example"], ["127.0.0.1:4200", "127.0.0.1:4200"], ["127.0.0.1:4200.evil.example"]],
        *[["127.0.0.1.evil.example:4200"], ["127.0.0.1:4200\tx"], ["x@127.0.0.1:4200"], [b"\xff\xfe:4200"]],
    ],
)
@pytest.mark.parametrize("allowed", [loopback(4200), ["127.0.0.1:4200*", "localhost:4200"]])
def test_foreign_names_are_refused(hosts: list[str], allowed: list[str]) -> None:
    headers = [*(("Host", host) for host in hosts), given(LOGIN)]
    if hosts == ["127.0.0.1:4201"] and "*" in allowed[0]:
        return
    for guard in (Guard(_inside, allowed), Guard(_inside, allowed, login=LOGIN, open_to_all=["/"])):
        assert asked(guard, headers) == 403
        assert asked(guard, headers, "websocket") == "websocket.close"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1"])
def test_pages_of_others_are_refused(origin: str) -> None:
    guard = Guard(_inside, loopback(4200), ["http://localhost:4200"])
    for method in ("GET", "POST", "OPTIONS"):
        assert asked(guard, [("Host", "127.0.0.1:4200"), ("Origin", origin)], method=method) == 403
    assert asked(guard, [("Host", "127.0.0.1:4200"), ("Origin", origin)], "websocket") == "websocket.close"
    assert asked(guard, [("Host", "127.0.0.1:4200"), ("Origin", "http://localhost:4200")]) == 200
    twice = [("Origin", "http://localhost:4200"), ("Origin", origin)]
    assert asked(guard, [("Host", "127.0.0.1:4200"), *twice]) == 403


def test_any_port_where_that_is_said() -> None:
    guard = Guard(_inside, ["mlflow:*", "shop.example"])
    for host, status in (("mlflow:5000", 200), ("mlflow:1", 200), ("mlflow", 403), ("shop.example", 200)):
        assert asked(guard, [("Host", host)]) == status
    assert asked(guard, [("Host", "shop.example"), ("Origin", "https://shop.example")]) == 200
    assert asked(guard, [("Host", "mlflow:5000"), ("Origin", "http://mlflow:5001")]) == 403


def test_who_has_no_login_stays_outside() -> None:
    guard = Guard(_inside, ["x:1"], login=LOGIN, open_to_all=["/health"])
    host = ("Host", "x:1")
    assert asked(guard, [host, given(LOGIN)]) == 200
    for wrong in ("", "prorec", "prorec:", "prorec:a", "Prorec:a:b ü", f"{LOGIN}x", f" {LOGIN}"):
        assert asked(guard, [host, given(wrong)]) == 401
        assert asked(guard, [host, given(wrong)], "websocket") == "websocket.close"
    for header in ("", "Basic", "Basic !!", "Bearer x", b"Basic \xff", f"Basic {LOGIN}"):
        assert asked(guard, [host, ("Authorization", header)]) == 401
    assert asked(guard, [host]) == 401
    assert asked(guard, [host, given(LOGIN), given("a:b")]) == 401
    for path in ("/health/", "/healthy", "/x/health", "//health", "/HEALTH"):
        assert asked(guard, [host], path=path) == 401
    assert asked(guard, [host], path="/health") == 200
    assert asked(guard, [host], path="/health", method="POST") == 401


def test_what_is_no_request_passes() -> None:
    assert asked(Guard(_inside, [], login=LOGIN), [], "lifespan") == "lifespan.startup.complete"
