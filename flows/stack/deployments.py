"""What the stack's Prefect server has to know: the work pool, the deployments of prefect.yaml, the automations.

Run as a program by the supervisor, it imports while the server starts, waits for it, and may be run again at any time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.flows.access.proxies import stay_direct
from prorec.flows.local.embedded import expect_welcome
from prorec.flows.stack import state
from prorec.flows.stack.children import MARK
from prorec.flows.stack.servers import POOL
from prorec.flows.terminal.screen import say
from prorec.tasks.local import paths
from prorec.tasks.local.seconds import seconds_of
from prorec_core.artifacts import write_json
from prorec_core.errors import UserError
from prorec_core.versions import with_names_of_today

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

SILENCE_VARIABLE = "PROREC_HEARTBEAT_TIMEOUT"
_SECONDS_TO_WAIT = 200.0


def result_file() -> Path:
    """Where this program says what was registered and what was not."""
    return state.folder() / "deployments.json"


def heartbeat_timeout() -> timedelta:
    """How long a flow run may be silent before it counts as crashed: `PROREC_HEARTBEAT_TIMEOUT` seconds, or 95."""
    seconds = seconds_of(SILENCE_VARIABLE, 3 * state.HEARTBEAT_SECONDS + 5)
    return timedelta(seconds=max(seconds, state.HEARTBEAT_SECONDS + 1))


def automations() -> list[AutomationCore]:
    """What has Prefect close the flow runs of processes that died without a word."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    beat = "prefect.flow-run.heartbeat"

    def silent(
        name: str, description: str, after: str, expected: set[str], within: timedelta, why: str
    ) -> AutomationCore:
        return AutomationCore(
            name=name,
            description=description,
            trigger=EventTrigger(
                after={after},
                expect=expected,
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=within,
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message=why)],
        )

    timeout = heartbeat_timeout()
    return [
        silent(
            "prorec: crash flow runs without heartbeat",
            "A flow run whose process died without a word is moved to Crashed.",
            beat,
            {beat, *ends},
            timeout,
            f"Its process sent no heartbeat for {timeout.total_seconds():.0f} seconds.",
        ),
        silent(
            "prorec: crash flow runs that never start",
            "A flow run whose worker died before the run began is moved to Crashed.",
            "prefect.flow-run.Pending",
            {"prefect.flow-run.*"},
            timedelta(minutes=10),
            "It was about to start for ten minutes; its worker seems to have died.",
        ),
    ]


def register() -> dict[str, Any]:
    """Register everything; what stands already is brought up to date.

    Returns:
        `registered` (names), and `skipped` (why, by name).
    """
    _make_pool()
    for automation in automations():
        _stand(automation)
    registered, skipped = [], {}
    for name, entry in deployments(paths.installed("prefect.yaml")):
        module = entry["entrypoint"].rpartition(".")[0]
        if find_spec(module) is None:
            skipped[name] = f"there is no module {module}"
            continue
        with _schedules_kept(name):
            problem = _deploy({**entry, "parameters": {**entry["parameters"], **_own_parameters(name)}})
        if problem:
            skipped[name] = problem
        else:
            registered.append(name)
    return {"registered": registered, "skipped": skipped}


def _stand(automation: AutomationCore) -> None:
    """Make an automation, or bring the one with its name up to date."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(automation.name)
        if not found:
            client.create_automation(automation)
        # What is equal is left alone: an update forgets the silences that are being timed.
        elif _content(found[0]) != _content(automation):
            # Whether it is switched on stays the user's choice.
            client.update_automation(found[0].id, automation.model_copy(update={"enabled": found[0].enabled}))


def _content(automation: AutomationCore) -> Any:
    content = automation.model_dump(include={"description", "trigger", "actions"})
    content["trigger"].pop("id", None)
    return content


@contextlib.contextmanager
def _schedules_kept(name: str) -> Iterator[None]:
    """Have a deployment's own schedules be there afterwards, and those of prefect.yaml that are switched on be so.

    Registering deletes all schedules of a deployment and makes those of prefect.yaml.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            before = client.read_deployment_by_name(name).schedules
        except ObjectNotFound:
            before = []
        yield
        if not before:
            return
        after = client.read_deployment_by_name(name)
        on = {schedule.slug for schedule in before if schedule.active and schedule.slug}
        for schedule in after.schedules:
            if schedule.slug in on and not schedule.active:
                client.update_deployment_schedule(after.id, schedule.id, active=True)
        there = {key for schedule in after.schedules for key in (schedule.id, schedule.slug) if key}
        lost = [schedule for schedule in before if not there & {schedule.id, schedule.slug}]
        if lost:
            copied = set(DeploymentScheduleCreate.model_fields) - {"replaces"}
            client.create_deployment_schedules(
                after.id, [DeploymentScheduleCreate(**{key: getattr(each, key) for key in copied}) for each in lost]
            )


def _own_parameters(name: str) -> dict[str, Any]:
    """The parameters that a deployment was given at the server, an experiment's fields by their names of today.

    Registering replaces parameters by those of prefect.yaml; the server takes none that this version does not know.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            found = dict(client.read_deployment_by_name(name).parameters)
        except ObjectNotFound:
            return {}
    if "experiment" in found:
        found["experiment"] = with_names_of_today(found["experiment"])
    return found


def deployments(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The deployments that a prefect.yaml names: `flow/name`, and what stands there of each."""
    import yaml

    for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]:
        yield f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}", entry


def _make_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    # Without a command the worker starts a process that prepares a workspace and then starts the flow's: twice the
    # imports. Here the flow's source is in place already.
    template["variables"]["properties"]["command"]["default"] = shlex.join([sys.executable, "-m", "prefect.engine"])
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
        except ObjectAlreadyExists:
            client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))


def _deploy(entry: Mapping[str, Any]) -> str:
    """Register one deployment as `prefect deploy` does; gives what went wrong, or nothing. It then stays as it was."""
    from prefect.cli import app

    said = io.StringIO()
    # By its name Prefect finds a deployment in a file only where the entrypoint is a path.
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as alone:
        # JSON is YAML.
        json.dump({"name": "prorec", "deployments": [entry]}, alone)
        alone.flush()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                sys.argv = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", alone.name]
                app()
        except SystemExit as ended:
            if ended.code in {None, 0}:
                return ""
            problem = str(ended.code)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            return ""
    say(said.getvalue(), error=True, lines=True)
    if refused := re.search(r"Validation failed for field [^\"]+", said.getvalue()):
        return f"the server keeps parameters for it that this version does not know; change them there. {refused[0]}"
    last = [line.strip() for line in said.getvalue().splitlines() if line.strip()][-1:]
    return " ".join([*last, problem])


def main() -> None:
    """Wait for the server and register everything; exit status 1 if something was not, 2 if no server is named."""
    if not os.environ.get("PREFECT_API_URL"):
        say("prorec: PREFECT_API_URL: it is not set. Set it to the address of the Prefect server.", error=True)
        sys.exit(2)
    stay_direct()
    import prefect.cli.deploy
    import prefect.main  # noqa: F401 what registering imports, while the server starts

    import prorec.flows.full  # noqa: F401
    from prorec.flows.stack.servers import answers_at

    url = f"{os.environ['PREFECT_API_URL']}/health"
    deadline = time.monotonic() + _SECONDS_TO_WAIT
    while not answers_at(url):
        if time.monotonic() > deadline:
            sys.exit(f"no Prefect server answers at {url}")
        time.sleep(0.2)
    try:
        expect_welcome(os.environ["PREFECT_API_URL"])
    except UserError as error:
        say(f"prorec: {error}", error=True)
        sys.exit(2)
    result = register()
    write_json(result_file(), result)
    say(str(result))
    # The local stack shows what is missing, and runs the rest.
    if result["skipped"] and MARK not in os.environ:
        sys.exit("; ".join(f"{name} is not registered: {why}" for name, why in result["skipped"].items()))


if __name__ == "__main__":
    main()
