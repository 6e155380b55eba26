"""Proxies of the environment: what is meant for this machine never goes through one, what is meant for others does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import websockets
from websockets.exceptions import WebSocketException

from prorec.flows.access.proxies import exceptions, stay_direct

ROOT = Path(__file__).resolve().parents[3]
VARIABLES = [name for each in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (each, each.lower())]


@pytest.fixture
def proxy(listener: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A proxy that the environment names in each of its variables, without exceptions."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in VARIABLES[:6]:
        monkeypatch.setenv(name, f"http://{listener.address}")
    return listener


async def _by_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession(trust_env=True) as web, web.get(url) as answer:
        await answer.read()


async def _by_websockets(url: str) -> None:
    # What answers is no websocket; whom it asks is what counts.
    with pytest.raises(WebSocketException):
        await websockets.connect(url.replace("http://", "ws://"), open_timeout=20).__aenter__()


CLIENTS: dict[str, Callable[[str], object]] = {
    "httpx": lambda url: httpx.get(url, timeout=20),
    "requests": lambda url: requests.get(url, timeout=20),
    # The opener of `urlopen` keeps the proxies of its first use.
    "urllib": lambda url: urllib.request.build_opener().open(url, timeout=20).read(),
    "aiohttp": lambda url: asyncio.run(_by_aiohttp(url)),
    "websockets": lambda url: asyncio.run(_by_websockets(url)),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_only_others_are_asked_through_it(proxy: Any, client: str) -> None:
    stay_direct()
    here = type(proxy)()
    CLIENTS[client](f"http://{here.address}/near")
    assert len(here.requests) == 1 and proxy.requests == []
    CLIENTS[client]("http://hub.example/far")
    assert len(here.requests) == 1 and len(proxy.requests) == 1 and "hub.example" in proxy.requests[0]
    here.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "shop.example, .corp"}, "shop.example,.corp,127.0.0.1,localhost,::1"),
        ({"no_proxy": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "", "no_proxy": "a"}, "a,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
        # httpx makes no client at all where it cannot read one of them.
        ({"NO_PROXY": "[::1],a"}, "::1,a,127.0.0.1,localhost"),
        ({"NO_PROXY": "[::1]:8080,fe80::/10,10.0.0.0/8,é.fr"}, "10.0.0.0/8,127.0.0.1,localhost,::1"),
    ],
)
def test_exceptions_of_the_user_stay(
    before: dict[str, str], after: str, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    stay_direct()
    assert {os.environ["NO_PROXY"], os.environ["no_proxy"]} == {after}
    stay_direct()
    assert {os.environ["NO_PROXY"], os.environ["no_proxy"]} == {after}
    httpx.Client().close()
    assert exceptions({"NO_PROXY": "a", "no_proxy": "b"}) == {
        "NO_PROXY": "a,127.0.0.1,localhost,::1",
        "no_proxy": "b,127.0.0.1,localhost,::1",
    }


def test_nothing_changes_without_a_proxy() -> None:
    environment = {"PATH": "/bin", "HTTP_PROXY": ""}
    stay_direct(environment)
    assert environment == {"PATH": "/bin", "HTTP_PROXY": ""}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ALL_PROXY", "socks://me:hush@127.0.0.1:1080/", "a proxy of the kind 'socks' cannot be used"),
        ("all_proxy", "socks5h://127.0.0.1:1080", "a proxy of the kind 'socks5h' cannot be used without"),
        ("HTTPS_PROXY", "ftp://h:1", "a proxy of the kind 'ftp' cannot be used"),
        ("http_proxy", "http://me:hu#sh@proxy:3128", "this is no address"),
        ("HTTP_PROXY", "http://proxy:port", "this is no address"),
        ("HTTP_PROXY", "http://[::1", "this is no address"),
    ],
)
def test_a_proxy_that_no_client_can_use_stops_nothing(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in VARIABLES:
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, httpx.InvalidURL, ImportError)):
        httpx.Client()
    stay_direct()
    httpx.Client().close()
    told = capsys.readouterr().err
    assert told.startswith(f"prorec: {name}: {said}") and len(told.splitlines()) == 1 and "hush" not in told


@pytest.mark.pipeline
def test_a_run_asks_no_proxy(proxy: Any, tmp_path: Path, begin_store: Callable[[Path], None]) -> None:
    """It goes as far as the text model, which is not there: by then its servers and clients have all been asked."""
    begin_store(tmp_path / "artifacts")
    settings = ["data.demo.users=120", "data.demo.items=60", f"text.model={tmp_path / 'none'}"]
    done = subprocess.run(
        [sys.executable, "-m", "prorec", "run", "demo", *(word for each in settings for word in ("--set", each))],
        env={**os.environ, "PROREC_ARTIFACTS": str(tmp_path / "artifacts"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 2 and "was not found" in done.stderr and "Traceback" not in done.stderr, done
    assert proxy.requests == []
