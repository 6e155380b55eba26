"""The local Prefect server lives no longer than its starter, and does what its starter says and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

STARTER = """
import sys, time
from pathlib import Path
from prorec.flows.local.prefect_server import LocalServer
server = LocalServer(Path(sys.argv[1]) / "server.log")
server.wait()
print(server.url, server.password, flush=True)
time.sleep(100)
"""


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.pipeline
def test_it_obeys_its_starter_alone_and_ends_with_it(
    tmp_path: Path, withstands: Callable[..., None], begin_store: Callable[[Path], None]
) -> None:
    begin_store(tmp_path)
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    url, password = starter.stdout.readline().split()
    assert _answers(url)

    ask = f"{url}/flows/filter"
    login = ("prorec", password)
    for headers, auth, status in (
        ({}, login, 200),
        ({}, None, 401),
        ({}, ("prorec", "x"), 401),
        ({"Host": "evil.example"}, login, 403),
        ({"Origin": "http://evil.example"}, login, 403),
        ({"Origin": "http://localhost:3000"}, login, 403),
    ):
        answer = httpx.post(ask, json={}, headers=headers, auth=auth, timeout=30, trust_env=False)
        assert answer.status_code == status, (headers, auth, answer.text)
    withstands(ask, {}, password, Path(f"/proc/{starter.pid}/environ"))
    assert password not in (tmp_path / "server.log").read_text()

    starter.send_signal(signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 30
    while _answers(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _answers(url)
