"""The load on a serving process counts what it should, and ends with what goes wrong."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import serving

WARM_UP = 5


@pytest.fixture
def slow_to_start() -> Iterator[str]:
    """The address of a server that refuses the first requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self._answer(503 if len(asked) <= WARM_UP else 200, b'{"model": {"version": "1"}}')

        def do_GET(self) -> None:
            self._answer(200, b"process_cpu_seconds_total 1.5\n")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_first_requests_do_not_count(slow_to_start: str) -> None:
    bodies = serving.make_bodies(["a", "b"], 8, histories=1, k=10)
    outcome = asyncio.run(serving.load(slow_to_start, bodies, rate=1000, mover=None))
    assert not outcome.errors and outcome.versions == {"1": 8} and len(outcome.milliseconds) == 8


def test_a_load_that_fails_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, outlived = tmp_path / "server", tmp_path / "outlived"
    script.write_text(
        f"#!{sys.executable}\nimport pathlib, sys, time\n"
        "print('serving at http://127.0.0.1:9', file=sys.stderr, flush=True)\n"
        f"time.sleep(20)\npathlib.Path({str(outlived)!r}).touch()\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(serving.sys, "executable", str(script))

    def fail() -> None:
        with serving.running_server("models:/any@champion") as url:
            raise ConnectionError(url)

    with pytest.raises(ConnectionError, match="127"):
        fail()
    assert not outlived.exists()
