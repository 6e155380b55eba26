"""What is written down about the local stack: its processes and its addresses. Every command of `prorec` reads it.

Knows one file, identities of processes and environment variables; imports nothing that takes time.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from prorec.flows.access import secret
from prorec.tasks.local import paths, processes

HEARTBEAT_SECONDS = 30
"""How often a flow run says that it lives; Prefect takes no less."""


def folder() -> Path:
    """Where the stack keeps its state and its logs."""
    return paths.artifacts() / "stack"


@dataclass
class ChildState:
    """One process of the stack.

    Attributes:
        pid: its number while it runs; None otherwise.
        started: the start that goes with the number, see `prorec.tasks.local.processes`.
        status: starting, running, or what it waits for.
        restarts: how often it died and was started again.
    """

    pid: int | None = None
    started: str = ""
    status: str = "starting"
    restarts: int = 0

    def alive(self) -> bool:
        """Whether the process that was written down still runs; another one with its number does not count."""
        return self.pid is not None and processes.started(self.pid) == self.started


@dataclass
class StackState:
    """The stack as its supervisor wrote it down.

    Attributes:
        mark: unlike any other stack's; in the environment of every process that belongs to it.
        supervisor: the identity of the process that looks after the others.
        prefect: the address of Prefect's pages.
        mlflow: the address of MLflow's pages.
        ready: whether everything answered once.
        secured: whether its servers ask for the password in `secret`; those of earlier versions asked nobody.
        ray: HOST:PORT of its Ray cluster's head, empty where it has none.
        ray_pages: the address of that cluster's pages.
        children: its processes by name.
        home: the folder that it was written down in.
    """

    mark: str
    supervisor: dict[str, str]
    prefect: str
    mlflow: str
    ready: bool = False
    secured: bool = False
    ray: str = ""
    ray_pages: str = ""
    children: dict[str, ChildState] = field(default_factory=dict)
    home: str = field(default_factory=lambda: str(folder()))

    def write(self) -> None:
        """Write it down for others, whole."""
        from prorec_core.artifacts import write_json

        write_json(_file(), asdict(self))

    def here(self) -> bool:
        """Whether it tells of processes of this machine."""
        return processes.is_here(self.supervisor)

    def running(self) -> bool:
        """Whether its supervisor lives, on this machine."""
        return self.here() and not processes.is_dead(self.supervisor)

    def variables(self) -> dict[str, str]:
        """The environment in which Prefect, MLflow and this project use the stack; the password is in it.

        Raises:
            UserError: the password cannot be read.
        """
        return {
            **self.for_prefect(),
            **self.for_mlflow(),
            **self.for_ray(),
            "PROREC_MLFLOW_PAGE": self.mlflow,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        }

    def for_prefect(self) -> dict[str, str]:
        """The address of Prefect's server, first, and what it asks for."""
        login = secret.for_prefect(secret.read(folder())) if self.secured else {}
        return {"PREFECT_API_URL": f"{self.prefect}/api", **login}

    def for_mlflow(self) -> dict[str, str]:
        """The address of MLflow's server, first, and what it asks for."""
        login = secret.for_mlflow(secret.read(folder())) if self.secured else {}
        return {"MLFLOW_TRACKING_URI": self.mlflow, **login}

    def for_ray(self) -> dict[str, str]:
        """The address of the Ray cluster, first, and where the token is that it asks for; nothing where it has none."""
        if not self.ray:
            return {}
        return {
            "RAY_ADDRESS": self.ray,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(secret.file(folder(), secret.RAY)),
            # Without, Ray takes 127.0.0.1 for another name of the machine's address, at which this one does not listen.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }


def _file() -> Path:
    return folder() / "state.json"


def read() -> StackState | None:
    """What was written down last; None where there is nothing that can be read, or it came here with a copy."""
    try:
        found: dict[str, Any] = json.loads(_file().read_text(encoding="utf-8"))
        children = {name: ChildState(**_known(ChildState, child)) for name, child in found.pop("children").items()}
        stack = StackState(**_known(StackState, found), children=children)
        # The stack of the folder that this one was copied from is there, and is that one's.
        home = Path(stack.home)
        return None if home.exists() and not home.samefile(folder()) else stack
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _known(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    """What this version knows of what another may have written."""
    return {each.name: found[each.name] for each in fields(kind) if each.name in found}


def running() -> StackState | None:
    """The stack that runs on this machine with this folder of artifacts, if one does."""
    state = read()
    return state if state is not None and state.running() else None


def forget() -> None:
    """Remove what was written down."""
    _file().unlink(missing_ok=True)


def connect() -> None:
    """Have this process use the stack, where one is up.

    An address that is set already stays as it is, and where it names another server nobody there is told the password.

    Raises:
        UserError: the password cannot be read.
    """
    state = running()
    if state is None or not state.ready:
        return
    variables = state.variables()
    for service in filter(None, (state.for_prefect(), state.for_mlflow(), state.for_ray())):
        address = next(iter(service))
        if os.environ.setdefault(address, service[address]) == service[address]:
            os.environ.update(service)
            if address == "RAY_ADDRESS":
                # It would be taken in the place of the file's, and is another cluster's.
                os.environ.pop("RAY_AUTH_TOKEN", None)
        elif address == "MLFLOW_TRACKING_URI":
            del variables["PROREC_MLFLOW_PAGE"]
        variables = {name: value for name, value in variables.items() if name not in service}
    for name, value in variables.items():
        os.environ.setdefault(name, value)
