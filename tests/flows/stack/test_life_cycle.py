"""The stack with its real servers, from `prorec up` to `prorec down`: a run fails, is put right, killed, and ends well.

Nothing in the project helps: the failure is a text model that is not there yet, the kill a SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.entities import Run

from prorec.flows.access import secret
from prorec.flows.stack import children, state
from prorec.tasks.local import paths
from prorec.tasks.stages.pipeline import STAGES
from prorec_core.text.location import packaged_folder

from .conftest import TINY, Stack, until


@pytest.mark.pipeline
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows the environment of processes")
def test_up_fail_retry_kill_retry_down(
    stack: Stack, tmp_path: Path, withstands: Callable[..., None], listener: Any
) -> None:
    # A proxy that the environment names has nothing to do with any of this.
    stack.environment |= dict.fromkeys(("HTTP_PROXY", "https_proxy", "ALL_PROXY"), f"http://{listener.address}")
    secret.ensure(state.folder())
    before = stack.password
    up = stack.up("--new-password")
    assert up.returncode == 0, up
    assert all(page.rstrip("/") in up.stdout for page in stack.pages) and "prorec/full" in up.stdout
    assert all("<html" in httpx.get(page, auth=stack.login, trust_env=False).text for page in stack.pages)
    found = state.running()
    assert found is not None

    # Somebody else, and pages of other sites, are not let in; nor is who knows an earlier password.
    orders: list[tuple[str, dict[str, Any]]] = [
        (f"{stack.api}/deployments/filter", {}),
        (f"{stack.pages[1]}api/2.0/mlflow/experiments/create", {"name": "x"}),
    ]
    hidden = [
        state.folder() / "secret",
        *(Path(f"/proc/{child.pid}/environ") for child in found.children.values() if child.pid),
    ]
    for url, body in orders:
        withstands(url, body, stack.password, *hidden)
        for headers, login, status in (
            ({}, None, 401),
            ({}, (secret.USER, before), 401),
            ({"Host": "evil.example"}, stack.login, 403),
            ({"Origin": "http://evil.example"}, stack.login, 403),
            ({"Origin": "http://localhost:3000"}, stack.login, 403),
            ({"Origin": url[: url.index("/", 8)]}, stack.login, 200),
        ):
            answer = httpx.post(url, json=body, headers=headers, auth=login, trust_env=False)
            assert answer.status_code == status, (url, headers, answer.text)

    # Whoever forgot the password is told so.
    bare = {**stack.environment, "PREFECT_API_URL": stack.api}
    told = stack.run("prorec.flows.stack.deployments", environment=bare)
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 1, told
    assert f"PREFECT_API_URL {stack.api}: the Prefect server there does not take the password" in told.stderr
    bare = {**stack.environment, "MLFLOW_TRACKING_URI": stack.pages[1].replace("127.0.0.1", "localhost")}
    told = stack.run("prorec", "models", environment=bare)
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 1, told
    assert "MLFLOW_TRACKING_URI: the tracking server does not take the user and password" in told.stderr

    # A wrong value is refused when the run is created.
    deployment = stack.ask("GET", "/deployments/name/prorec/full")["id"]
    with pytest.raises(httpx.HTTPStatusError, match=r"409|422"):
        parameters = {"experiment": {"generator": {"epochs": 0}}}
        stack.ask("POST", f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})

    # A stage fails, and says why in both places.
    model = tmp_path / "model"
    parameters = {"experiment": {**TINY, "text": {"model": str(model)}}}
    done = stack.prefect("deployment", "run", "prorec/full", "--params", json.dumps(parameters), "--watch")
    assert done.returncode != 0, done
    run = stack.ask("POST", "/flow_runs/filter", json={"limit": 1})[0]["id"]
    kind, message = stack.flow_run(run)
    assert kind == "FAILED" and f"text.model: the text encoder '{model}' was not found" in message
    assert [each.info.status for each in stack.runs("embed_text")] == ["FAILED"]

    # Put right, it is retried from that stage on; its process and the worker's are killed while it trains.
    packaged = packaged_folder("all-MiniLM-L6-v2")
    assert packaged is not None
    model.symlink_to(packaged)
    assert stack.prefect("flow-run", "retry", run).returncode == 0

    def training() -> Run | None:
        begun = [each for each in stack.runs("train_collaborative") if each.info.status == "RUNNING"]
        return begun[0] if begun and begun[0].data.metrics else None

    until(lambda: training() is not None)
    trained = training()
    assert trained is not None
    kill(found, int(trained.data.tags["prorec.process.pid"]))

    # Prefect notices the silence by itself, and the supervisor starts another worker.
    assert "no heartbeat" in stack.reaches(run, "CRASHED", "FAILED", "COMPLETED")
    until(lambda: stack.prorec("status").returncode == 0)
    again = state.running()
    assert again is not None and {name: child.restarts for name, child in again.children.items()} == {
        **dict.fromkeys(again.children, 0),
        "worker": 1,
    }

    # The same run goes on where it was.
    assert stack.prefect("flow-run", "retry", run).returncode == 0
    until(lambda: stack.flow_run(run)[0] not in {"CRASHED", "SCHEDULED"})
    assert stack.reaches(run, "CRASHED", "FAILED", "COMPLETED") == "" and stack.flow_run(run)[0] == "COMPLETED"
    ends = {stage: Counter(each.info.status for each in stack.runs(stage)) for stage in STAGES}
    assert ends == {
        **{stage: {"FINISHED": 1} for stage in STAGES},
        "embed_text": {"FAILED": 1, "FINISHED": 1},
        "train_collaborative": {"KILLED": 1, "FINISHED": 1},
    }

    # Registered again, schedules of prefect.yaml stay switched on, and others stay, and parameters given there.
    given = {"experiment": {"data": {"demo": {"users": 60}}}}
    stack.ask("PATCH", f"/deployments/{deployment}", json={"parameters": given})
    schedules = f"/deployments/{deployment}/schedules"
    (nightly,) = stack.ask("GET", schedules)
    stack.ask("PATCH", f"{schedules}/{nightly['id']}", json={"active": True})
    stack.ask("POST", schedules, json=[{"schedule": {"cron": "0 5 1 1 *", "timezone": "UTC"}, "active": False}])
    for _ in range(2):
        done = stack.register()
        assert done.returncode == 0, done
    kept = [(each["slug"], each["schedule"]["cron"], each["active"]) for each in stack.ask("GET", schedules)]
    assert sorted(kept, key=str) == [("nightly", "0 3 * * *", True), (None, "0 5 1 1 *", False)]
    assert stack.ask("GET", f"/deployments/{deployment}")["parameters"] == given
    # What this version does not know is told, and the deployment is left as it was.
    unknown = {"experiment": {"data": {"gone": 1}}}
    edited = {"parameters": unknown, "enforce_parameter_schema": False}
    stack.ask("PATCH", f"/deployments/{deployment}", json=edited)
    refused = stack.register()
    assert refused.returncode != 0 and "prorec/full is not registered: the server keeps parameters" in refused.stderr
    assert "'gone' was unexpected" in refused.stderr
    assert stack.ask("GET", f"/deployments/{deployment}")["parameters"] == unknown

    assert listener.requests == []
    # No log, no database and no artifact holds the password.
    kept = [path for path in paths.artifacts().rglob("*") if path.is_file()]
    assert {"mlflow.log", "mlflow.db", "prefect.db", "secret"} <= {path.name for path in kept}
    assert [path.name for path in kept if stack.password.encode() in path.read_bytes()] == ["secret"]

    assert stack.prorec("down").returncode == 0
    assert not children.marked(found.mark) and state.read() is None
    assert stack.prorec("status").returncode == 1
    for page in stack.pages:
        with pytest.raises(httpx.ConnectError):
            httpx.get(page, trust_env=False)


def kill(found: state.StackState, flow: int) -> None:
    """Kill a flow run's process and the worker so that neither can tell of the other."""
    worker = found.children["worker"].pid
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    os.kill(flow, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
