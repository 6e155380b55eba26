"""The programs of the local stack: two servers, the registration, the worker, and a Ray cluster if one is asked for.
Knows their options and how one sees that they answer; knows nothing of how they are looked after.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from urllib.parse import urlparse

from prorec.flows.access import secret
from prorec.flows.access.guard import loopback
from prorec.flows.local.prefect_server import without_allocator
from prorec.flows.local.running import TRAINING
from prorec.flows.stack import ray_head
from prorec.flows.stack.children import HOST, Program
from prorec.flows.stack.state import StackState
from prorec.tasks.local import paths

POOL = "local"
WORKER = "local"
RAY_HEALTH = "/api/gcs_healthz"
"""Where the pages of a Ray cluster say that it is well, and ask for no token."""

_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Another service of this machine may name itself in these; the stack's own server is what is meant.
    "PREFECT_SERVER_API_HOST": HOST,
    "PREFECT_SERVER_UI_ENABLED": "true",
    # In memory, the default, a restart of the server loses them, and a flow run that cannot renew its lease is ended.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PYTHONUNBUFFERED": "1",
}


def programs(state: StackState) -> list[Program]:
    """What the stack consists of, each after what it needs.

    Raises:
        UserError: there is no password.
    """
    environment = _environment(state)
    python = [sys.executable, "-m"]
    return [
        Program(
            name="prefect",
            command=[*python, "prorec.flows.access.guarded", "prefect", *_access_options(state.prefect)],
            environment={**environment, secret.PREFECT_ASKS: environment[secret.PREFECT_GIVES]},
            answers=lambda _: answers_at(f"{state.prefect}/api/health"),
        ),
        Program(
            name="mlflow",
            command=[
                *[*python, "prorec.flows.access.guarded", "mlflow", *_access_options(state.mlflow)],
                *["--backend-store-uri", paths.embedded_tracking_uri()],
                *["--artifact-root", paths.file_uri(paths.store())],
            ],
            # As a server it must not take itself for its own store.
            environment={name: value for name, value in environment.items() if name != "MLFLOW_TRACKING_URI"},
            answers=lambda _: answers_at(f"{state.mlflow}/health"),
        ),
        Program(
            name="register",
            command=[*python, "prorec.flows.stack.deployments"],
            environment=environment,
            answers=lambda _: False,
            once=True,
        ),
        *([_ray(state, environment)] if state.ray else []),
        Program(
            name="worker",
            command=[*python, "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER],
            environment=environment,
            answers=lambda since: _worker_polls(state.prefect, environment[secret.PREFECT_GIVES], since),
            needs=("prefect",),
            # Flow runs that it has to end close their runs in both stores first.
            seconds_to_stop=30.0,
        ),
    ]


def _ray(state: StackState, environment: dict[str, str]) -> Program:
    ports = [str(urlparse(f"//{address}").port) for address in (state.ray, state.ray_pages.removeprefix("http://"))]
    return Program(
        name="ray",
        command=[sys.executable, "-m", "prorec.flows.stack.ray_head", *ports],
        # Its processes are what trains.
        environment={**environment, **TRAINING},
        answers=lambda since: ray_head.came_up(since) and answers_at(f"{state.ray_pages}{RAY_HEALTH}"),
        seconds_to_stop=30.0,
    )


def tidying(state: StackState) -> Program:
    """What closes, now and then, the runs of processes that died."""
    command = [sys.executable, "-m", "prorec", "tidy"]
    return Program("tidy", command, _environment(state), answers=lambda _: True, once=True)


def _environment(state: StackState) -> dict[str, str]:
    # Ray takes a token in a variable, which is another cluster's, before one in a file.
    own = {name: value for name, value in os.environ.items() if not (state.ray and name == "RAY_AUTH_TOKEN")}
    return {
        **without_allocator(own),
        **_SETTINGS,
        **state.variables(),
        paths.ARTIFACTS_VARIABLE: str(paths.artifacts()),
        **paths.prefect_environment(paths.prefect_home()),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        # A module that happens to lie in the folder that they run in is none of theirs.
        "PYTHONSAFEPATH": "1",
    }


def _access_options(address: str) -> list[str]:
    """Where a server listens, by which names it may be called, and whose pages may call it: its own, by these names."""
    port = urlparse(address).port
    assert port is not None
    names = loopback(port)
    origins = [f"http://{name}" for name in names]
    return [
        *["--host", HOST, "--port", str(port)],
        *["--allowed-hosts", ",".join(names), "--allowed-origins", ",".join(origins)],
    ]


def _worker_polls(prefect: str, login: str, since: datetime) -> bool:
    """Whether the worker told the server since then that it lives."""
    import httpx

    url = f"{prefect}/api/work_pools/{POOL}/workers/filter"
    user, _, password = login.partition(":")
    try:
        answer = httpx.post(url, json={}, auth=(user, password), timeout=3.0, trust_env=False)
    except httpx.HTTPError:
        return False
    workers = answer.json() if answer.is_success else []
    return any(
        worker["name"] == WORKER and datetime.fromisoformat(worker["last_heartbeat_time"]) >= since
        for worker in workers
    )


def answers_at(url: str) -> bool:
    """Whether a server answers there, and well."""
    import httpx

    try:
        return httpx.get(url, timeout=3.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False
