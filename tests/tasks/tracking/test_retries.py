"""Which errors of a tracking server pass by themselves."""

from __future__ import annotations

import http.server
import threading

import pytest

from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import is_passing


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Answers as a proxy does before a server that is away."""

    code, body = 502, b""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(self.code)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("retries", ["0", "1"])
@pytest.mark.parametrize(
    ("code", "body"),
    [
        (502, b"<html><body>Bad Gateway</body></html>"),
        (503, b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "connection refused"}'),
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "connection refused"}'),
        (504, b"<html><body>Gateway Time-out</body></html>"),
    ],
)
def test_what_a_proxy_says_for_a_server_that_is_away_passes(
    code: int, body: bytes, retries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setattr(_Refusing, "code", code)
    monkeypatch.setattr(_Refusing, "body", body)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_port}")
        for call in (lambda: client().get_run("0" * 32), lambda: client().set_tag("0" * 32, "a", "b")):
            with pytest.raises(Exception) as caught:
                call()
            assert is_passing(caught.value), caught.value
        proxy.shutdown()
