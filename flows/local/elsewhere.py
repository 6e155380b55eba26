"""What one of several processes that work side by side looks at before it begins, where it may be on another machine
than whoever gave it its work: that it reaches the same store, and a Prefect server.

Knows variables, the store's identity and servers; knows nothing of work. Without `OF` all is as on one machine.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from pathlib import Path

from prorec.flows.access import secret
from prorec.tasks.local import left_behind, paths, processes
from prorec_core.errors import UserError, one_line

OF = "PROREC_MEMBER_OF"
"""The variable that says whose work this process does: that one's sign of life, and its store's identity."""

_MARK = "PROREC_MEMBER"
_SECONDS_TO_ANSWER = 10.0
_watching: list[subprocess.Popen[bytes]] = []
"""The process that removes what this one leaves, or none."""


def told() -> dict[str, str]:
    """What a process that may be on another machine is to find in its environment."""
    from prorec.tasks.tracking import mlflow_runs

    return {OF: f"{processes.sign_of_life()} {mlflow_runs.identity()}"}


def expect_stores() -> None:
    """Make sure that this process reaches what it needs; to be called before Prefect is imported.

    Where the Prefect server of whoever gave the work is one of its own, for its machine alone, this process starts one,
    too, which ends with it and leaves nothing.

    Raises:
        UserError: names this machine, and what it does not reach.
    """
    if not (of := os.environ.get(OF)):
        return
    sign, _, store = of.partition(" ")
    _expect_store(sign, store)
    if url := os.environ.get("PREFECT_API_URL"):
        _expect_prefect(url)


def _expect_store(sign: str, store: str) -> None:
    here = os.uname().nodename
    if not paths.tracks_over_http():
        _expect_folder(sign)
    from prorec.tasks.tracking import mlflow_runs

    place = f"MLFLOW_TRACKING_URI {paths.shown_uri(paths.tracking_uri())}"
    try:
        found = mlflow_runs.identity()
        location = str(mlflow_runs.client().get_experiment(mlflow_runs.store_experiment()).artifact_location)
    except Exception as error:
        raise UserError(
            f"{here} does not reach the tracking store ({one_line(error)})",
            place=place,
            cure="Give it an address by which all machines reach it",
        ) from error
    if found != store:
        raise UserError(f"{here} finds another tracking store there", place=place)
    if paths.local_path(location) is not None:
        # The server leaves it to its clients to put files there.
        _expect_folder(sign)


def _expect_folder(sign: str) -> None:
    if processes.lives(sign) is None:
        raise UserError(
            f"{os.uname().nodename} does not see the folder of artifacts that this comparison or tuning has",
            place=f"{paths.ARTIFACTS_VARIABLE} {paths.artifacts()}",
            cure="Mount one folder at the same path on all machines, or set MLFLOW_TRACKING_URI to a server that keeps "
            "artifacts (--artifacts-destination)",
        )


def _expect_prefect(url: str) -> None:
    from prorec.flows.local import embedded

    if not os.environ.get(paths.EMBEDDED_VARIABLE):
        embedded.expect_prefect(url)
        return
    import httpx

    user, _, password = os.environ.get(secret.PREFECT_GIVES, "").partition(":")
    try:
        version = f"{url.rstrip('/')}/admin/version"
        if httpx.get(version, auth=(user, password), timeout=_SECONDS_TO_ANSWER, trust_env=False).is_success:
            return
    except httpx.HTTPError:
        pass
    _have_own()


def _have_own() -> None:
    from prorec.flows.local import embedded

    name = secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="prorec-prefect-"))
    _watching.append(left_behind.watch(f"{_MARK}={name}", folder))
    for variable in ("PREFECT_API_URL", secret.PREFECT_GIVES):
        os.environ.pop(variable, None)
    os.environ.update({_MARK: name, "PREFECT_HOME": str(folder), paths.APART_VARIABLE: "1"})
    embedded.start_prefect(folder)()
