"""What tests of the programs share: somebody else on this machine and what he tries, and something that listens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_NOBODY = 65534
_BECOME = f"""
import encodings.idna, http.client, json, os, sys
from pathlib import Path
from urllib.parse import urlsplit
os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY})
"""
_ATTACK = """
url, body, *files = sys.argv[1:]
there = urlsplit(url)
seen = {"lines": []}
wrong = {"Authorization": "Basic cHJvcmVjOng="}
for name, headers in (("bare", {}), ("wrong", wrong), ("host", {"Host": "evil.example"})):
    connection = http.client.HTTPConnection(there.hostname, there.port, timeout=30)
    connection.request("POST", there.path, body, {"Content-Type": "application/json", **headers})
    seen[name] = connection.getresponse().status
for process in Path("/proc").glob("[0-9]*/cmdline"):
    try:
        seen["lines"].append(process.read_bytes().decode(errors="replace"))
    except OSError:
        pass
for name in files:
    try:
        seen[name] = len(Path(name).read_bytes())
    except PermissionError:
        seen[name] = "denied"
print(json.dumps(seen))
"""


class Listener:
    """Something on a free port that answers everything, and remembers the first line of each request."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(4096).decode(errors="replace").split("\r\n")[0])
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Something that listens, for a proxy or for a server."""
    made = Listener()
    yield made
    made.close()


@pytest.fixture(scope="session")
def stranger() -> Callable[..., str]:
    """Runs a Python script as another user of this machine, who has no rights; gives what it prints."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")
    return _as_nobody


def _as_nobody(script: str, *words: str) -> str:
    # It becomes nobody by itself: the interpreter may lie where nobody may look.
    command = [sys.executable, "-c", _BECOME + script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def withstands() -> Callable[..., None]:
    """Has somebody else order something of a server, and look for its password in processes and files."""

    def check(url: str, body: dict[str, Any], password: str, *files: Path) -> None:
        if os.getuid() != 0:
            return
        seen = json.loads(_as_nobody(_ATTACK, url, json.dumps(body), *map(str, files)))
        lines = seen.pop("lines")
        assert any("os.setuid" in line for line in lines) and not [line for line in lines if password in line]
        expected = {"bare": 401, "wrong": 401, "host": 403}
        assert seen == {**expected, **{str(file): "denied" for file in files}}

    return check
