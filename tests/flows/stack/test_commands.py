"""The commands of the stack as they are typed where no stack can start, and what they read."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from prorec.flows.access import secret
from prorec.flows.local.running import TRAINING
from prorec.flows.stack import children, servers, state, supervisor
from prorec.flows.stack import deployments as registration
from prorec.flows.stack.deployments import automations, deployments, heartbeat_timeout
from prorec.tasks.local import processes, seconds
from prorec_core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def prorec(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prorec", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)


def written(supervisor: dict[str, str], *, secured: bool = False) -> None:
    """A stack that is up, as far as anybody can read."""
    stack = state.StackState("m", supervisor, "http://127.0.0.1:1", "http://127.0.0.1:2", ready=True, secured=secured)
    stack.write()


def test_without_a_stack(artifacts_folder: Path) -> None:
    assert (prorec("status").returncode, prorec("status").stdout) == (1, "No stack is running.\n")
    asked = prorec("status", "--env")
    assert (asked.returncode, asked.stdout, asked.stderr) == (1, "", "No stack is running.\n"), "a shell runs the rest"
    assert (prorec("down").returncode, prorec("down").stdout) == (0, "No stack is running.\n")
    told = prorec("logs")
    assert told.returncode == 2 and "there are no logs yet" in told.stderr


@pytest.mark.parametrize("words", [[], ["--detach"]])
def test_a_taken_port_is_one_line_and_status_2(artifacts_folder: Path, words: list[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = str(listener.getsockname()[1])
        done = prorec("up", "--mlflow-port", taken, *words)
    assert done.returncode == 2, done
    assert done.stderr == (
        f"prorec: --mlflow-port: port {taken} is taken by another program. "
        "Choose another, or leave the option out and a free one is found.\n"
    )
    assert state.read() is None


@pytest.mark.parametrize("words", [[], ["--detach"]])
def test_a_second_stack_is_told_where_the_first_is(artifacts_folder: Path, words: list[str]) -> None:
    with supervisor.alone() as first:
        assert first
        assert secret.ensure(state.folder())
        written(processes.identity(), secured=True)
        done = prorec("up", *words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "is running already: Prefect http://127.0.0.1:1, MLflow http://127.0.0.1:2." in done.stderr
        password = secret.read(state.folder())
        said = prorec("status", "--env").stdout.splitlines()
        assert {
            "export PREFECT_API_URL=http://127.0.0.1:1/api",
            f"export PREFECT_API_AUTH_STRING=prorec:{password}",
            f"export MLFLOW_TRACKING_PASSWORD={password}",
        } < set(said)
        assert [line for line in said if "proxy" in line.lower()] == []
        seen = prorec("status")
        assert seen.returncode == 0 and "http://127.0.0.1:2" in seen.stdout
        assert password not in seen.stdout and "`prorec status --password` shows it" in seen.stdout
        shown = prorec("status", "--password").stdout
        assert f"user prorec, password {password}\n" in shown and f"prorec:{password}\n" in shown


def test_a_stack_that_asks_nobody_is_replaced(artifacts_folder: Path) -> None:
    earlier = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True)
    identity = {**processes.identity(), "pid": str(earlier.pid), "started": processes.started(earlier.pid) or ""}
    written(identity)
    # An earlier version wrote no such thing down.
    path = state.folder() / "state.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "secured"}))
    assert "none! `prorec up` starts a stack that has one" in prorec("status").stdout
    assert "PASSWORD" not in prorec("status", "--env").stdout
    assert "asks for none" in prorec("status", "--password").stderr
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        done = prorec("up", "--mlflow-port", str(listener.getsockname()[1]))
    assert "asks nobody for a password. Stopping it" in done.stdout
    assert earlier.wait(10) == -signal.SIGTERM
    assert "is taken by another program" in done.stderr


def test_a_password_that_is_gone_is_one_line(artifacts_folder: Path) -> None:
    state.folder().mkdir()
    written(processes.identity(), secured=True)
    for words in (("status", "--env"), ("models",)):
        done = prorec(*words)
        assert done.returncode == 2 and done.stdout == "", done
        assert done.stderr == (
            f"prorec: {state.folder() / 'secret'}: the password of the stack that is up cannot be read. "
            "`prorec down` and `prorec up` make a new one.\n"
        )


def test_a_proxy_of_the_user_is_passed_by_for_other_programs(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "shop.example")
    written(processes.identity())
    said = prorec("status", "--env").stdout.splitlines()
    assert {f"export {name}=shop.example,127.0.0.1,localhost,::1" for name in ("NO_PROXY", "no_proxy")} < set(said)


def test_logs_are_shown(artifacts_folder: Path) -> None:
    state.folder().mkdir()
    supervisor.log_file("worker").write_text("one\ntwo\nthree\n")
    supervisor.log_file("mlflow").write_text("four\n")
    assert prorec("logs", "worker", "-n", "2").stdout == "two\nthree\n"
    assert prorec("logs").stdout.splitlines() == [
        "mlflow    four",
        *(f"worker    {w}" for w in ("one", "two", "three")),
    ]
    assert "Did you mean 'worker'?" in prorec("logs", "wroker").stderr


def test_every_deployment_queues_and_refuses_wrong_values() -> None:
    found = dict(deployments(ROOT / "prefect.yaml"))
    assert {name: entry["entrypoint"] for name, entry in found.items()} == {
        "prorec/full": "prorec.flows.full.prorec",
        "compare/full": "prorec.flows.compare.compare",
        "recommend/batch": "prorec.flows.recommend.recommend",
        "items/update": "prorec.flows.items.items",
    }
    for entry in found.values():
        assert entry["enforce_parameter_schema"] is True and "prorec" in entry["tags"]
        assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert [schedule["active"] for schedule in entry["schedules"]] == [False]


def test_workers_train_with_the_same_environment_as_the_command_line() -> None:
    environments = [entry["work_pool"]["job_variables"]["env"] for _, entry in deployments(ROOT / "prefect.yaml")]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for found in (*environments, services["worker"]["environment"]):
        assert {name: found.get(name) for name in TRAINING} == TRAINING


def test_the_password_is_on_no_command_line_and_reaches_who_needs_it(artifacts_folder: Path) -> None:
    stack = state.StackState("m", {}, "http://127.0.0.1:1", "http://127.0.0.1:2", secured=True)
    with pytest.raises(UserError, match="the password of the stack that is up cannot be read"):
        servers.programs(stack)
    secret.ensure(state.folder())
    password = secret.read(state.folder())
    programs = [*servers.programs(stack), servers.tidying(stack)]
    assert not [program.name for program in programs if password in " ".join(program.command)]
    login = {
        "PREFECT_API_AUTH_STRING": f"prorec:{password}",
        "MLFLOW_TRACKING_USERNAME": "prorec",
        "MLFLOW_TRACKING_PASSWORD": password,
    }
    assert all(login.items() <= program.environment.items() for program in programs)
    assert programs[0].environment["PREFECT_SERVER_API_AUTH_STRING"] == f"prorec:{password}"
    stack.write()
    assert password not in (state.folder() / "state.json").read_text()


def test_registering_needs_a_server() -> None:
    command = [sys.executable, "-m", "prorec.flows.stack.deployments"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)
    assert done.returncode == 2
    assert done.stderr == "prorec: PREFECT_API_URL: it is not set. Set it to the address of the Prefect server.\n"


def test_what_is_not_registered_is_a_failure(artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr(servers, "answers_at", lambda _: True)
    monkeypatch.setattr(registration, "expect_welcome", lambda _: None)
    monkeypatch.setattr(registration, "register", lambda: {"registered": ["a/b"], "skipped": {"c/d": "no reason"}})
    with pytest.raises(SystemExit, match=r"^c/d is not registered: no reason$"):
        registration.main()
    monkeypatch.setenv(children.MARK, "m")  # the supervisor goes on with the rest, and `prorec up` says what is missing
    registration.main()
    assert registration.result_file().is_file()


def test_silence_is_longer_than_the_time_between_heartbeats(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert heartbeat_timeout().total_seconds() == 95
    monkeypatch.setenv("PROREC_HEARTBEAT_TIMEOUT", "5")
    assert heartbeat_timeout().total_seconds() == 31
    seconds._tell.cache_clear()
    monkeypatch.setenv("PROREC_HEARTBEAT_TIMEOUT", "soon")
    assert heartbeat_timeout().total_seconds() == 95
    assert heartbeat_timeout().total_seconds() == 95
    assert caplog.messages == ["PROREC_HEARTBEAT_TIMEOUT=soon is no number of seconds; 95 count"], "once"
    assert len({automation.name for automation in automations()}) == 2


def test_a_stack_costs_nothing_where_none_is(artifacts_folder: Path) -> None:
    script = (
        "import os, sys\n"
        "from prorec.flows.stack.state import connect\n"
        "connect()\n"
        "assert 'PREFECT_API_URL' not in os.environ\n"
        "assert not {'prefect', 'mlflow', 'pyarrow', 'httpx', 'rich'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_ray_is_one_of_the_programs_where_it_is_asked_for(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another cluster's")
    secret.ensure(state.folder())
    stack = state.StackState("m", {}, "http://127.0.0.1:1", "http://127.0.0.1:2", secured=True)
    assert "ray" not in [program.name for program in servers.programs(stack)]
    stack.ray, stack.ray_pages = "127.0.0.1:3", "http://127.0.0.1:4"
    names = [program.name for program in servers.programs(stack)]
    assert names.index("ray") < names.index("worker"), "what runs flows ends before it"
    ray = next(program for program in servers.programs(stack) if program.name == "ray")
    assert ray.command[-2:] == ["3", "4"] and TRAINING.items() <= ray.environment.items()
    worker = next(program for program in servers.programs(stack) if program.name == "worker")
    assert not {"RAY_AUTH_TOKEN"} & {*ray.environment, *worker.environment}
    assert worker.environment["RAY_ADDRESS"] == "127.0.0.1:3"


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_nothing_starts(artifacts_folder: Path) -> None:
    done = prorec("up", "--ray")
    assert done.returncode == 2 and state.read() is None
    assert done.stderr == "prorec: --ray: Ray is not installed. Install it: pip install 'prorec[ray]'.\n"
