"""A web server on loopback that has files, and every bad habit that one asks it for."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prorec.flows.datasets.kept import VARIABLE


@dataclass
class Site:
    """What is served, and how; `asked` has the path and range of each request."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the next answers end, one for each of them."""
    statuses: list[int] = field(default_factory=list)
    """Of the next answers, which have nothing else."""
    no_ranges: bool = False
    no_tags: bool = False
    says_longer: int = 0
    goes_on_elsewhere: bool = False
    kind: str = "application/octet-stream"
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Range", "")))
            site.headers.append(self.headers)
            if site.statuses:
                return self._empty(site.statuses.pop(0), {"Retry-After": "0"})
            if self.path in site.redirects:
                return self._empty(302, {"Location": site.redirects[self.path]})
            if self.path not in site.files:
                return self._empty(404)
            return self._file(site.files[self.path])

        def _file(self, content: bytes) -> None:
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if_range = self.headers.get("If-Range")
            ranged = asked is not None and not site.no_ranges and if_range in {None, tag}
            start = int(asked[1]) if ranged and asked else 0
            if start and start >= len(content):
                return self._empty(416, {"Content-Range": f"bytes */{len(content)}"})
            said = start + 1 if site.goes_on_elsewhere and ranged else start
            body = content[start:]
            self.send_response(206 if ranged else 200)
            if ranged:
                self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body) + site.says_longer))
            self.send_header("Content-Type", site.kind)
            if not site.no_tags:
                self.send_header("ETag", tag)
            self.end_headers()
            self.wfile.write(body[: site.cut_after.pop(0)] if site.cut_after else body)
            self.close_connection = True
            return None

        def _empty(self, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data sets, the test's own; and no proxy of the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"
