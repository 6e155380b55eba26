"""A Prefect server for one process's runs, on the SQLite file below the folder of artifacts.

Knows how to start it beside the work, and that it ends with its starter however that one ends. Prefect's own
temporary server outlives a killed process; run as a program, this module is the server.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from prorec.flows.access import secret
from prorec.flows.local.importing import kept_for_good
from prorec.flows.terminal import streams
from prorec.tasks.local import paths
from prorec.tasks.local.disk_space import full_disk, no_room_now
from prorec_core.errors import UserError

_SECONDS_TO_START = 90.0
_SECONDS_TO_STOP = 5.0
_REFUSED = 2
"""The exit status of a server that cannot start for a reason that its starter's user can put right."""


class LocalServer:
    """A server process. It starts while its starter goes on; `wait` returns once it answers.

    Attributes:
        url: the address of its API.
        password: what it asks for, known to its starter alone.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        home = Path(os.environ.get("PREFECT_HOME") or paths.prefect_home())
        self.password = secret.fresh()
        log.parent.mkdir(parents=True, exist_ok=True)
        with listener, log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prorec.flows.local.prefect_server", str(listener.fileno())],
                # Its end of this pipe closes when this process ends, killed or not: then the server ends too.
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                pass_fds=[listener.fileno()],
                cwd=paths.project_root(),
                env={
                    **without_allocator(os.environ),
                    **_SETTINGS,
                    **secret.for_prefect_server(self.password),
                    **paths.prefect_environment(home.expanduser().absolute()),
                    paths.ARTIFACTS_VARIABLE: str(paths.artifacts()),
                },
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return once the server answers.

        Raises:
            UserError: it ended or did not answer in time.
        """
        import httpx

        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        if full := self._full_disk():
            raise full
        if self._process.poll() == _REFUSED:
            raise UserError(self._log.read_text(errors="replace").strip().splitlines()[-1])
        raise UserError("Prefect's local server did not start", cure=f"See {self._log}")

    def _full_disk(self) -> UserError | None:
        """Whether that is what kept it from starting; it cannot even say so where its log is on that disk."""
        try:
            said = self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            said = ""
        return full_disk(RuntimeError(said)) or no_room_now()

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_SETTINGS = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
    # By default pages of any origin may call the server from a browser of this machine; it has no pages itself.
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}


def without_allocator(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for servers: keeping freed memory suits training, not them."""
    return {name: value for name, value in environment.items() if not name.startswith("MALLOC_")}


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_STOP)
    os._exit(1)


def _serve(descriptor: int) -> None:
    threading.Thread(target=_end_with_starter, daemon=True).start()
    with kept_for_good():
        import uvicorn

        from prorec.flows.access.guard import Guard, loopback
        from prorec.tasks.local.databases import prepare_prefect
        from prorec.tasks.local.machine_errors import explained

        try:
            prepare_prefect()
            from prefect.server.api.server import create_app
        except Exception as error:
            if (problem := explained(error)) is None:
                raise
            streams.print_error(str(problem))
            # The thread that waits for the starter's end keeps Python from ending in order.
            os._exit(_REFUSED)
        listener = socket.socket(fileno=descriptor)
        app = Guard(create_app(), loopback(listener.getsockname()[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on")).run(sockets=[listener])


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
