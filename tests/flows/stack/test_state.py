"""What is written down about a stack: whose it is, whether it still holds, and who uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from prorec.flows.access import secret
from prorec.flows.stack import state
from prorec.flows.stack.state import ChildState, StackState
from prorec.tasks.local import processes

LOGIN = ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
VARIABLES = (
    *("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PROREC_MLFLOW_PAGE", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"),
    *LOGIN,
)


def written(*, ready: bool = True, secured: bool = True, **supervisor: str) -> StackState:
    """A stack whose supervisor is this process, but for what is said otherwise."""
    identity = {**processes.identity(), **supervisor}
    stack = StackState("m", identity, "http://127.0.0.1:1", "http://127.0.0.1:2", ready=ready, secured=secured)
    stack.write()
    secret.ensure(state.folder())
    return stack


@pytest.fixture(autouse=True)
def bare(artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and none of the variables that a stack sets, now and afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_what_was_written_is_read() -> None:
    assert state.read() is None and state.running() is None
    stack = written()
    stack.children["worker"] = ChildState(pid=os.getpid(), started=processes.started(os.getpid()) or "")
    stack.write()
    assert state.read() == stack and state.running() == stack
    state.forget()
    assert state.read() is None


def test_a_copy_of_the_folder_has_no_stack_and_a_moved_one_has_it(
    artifacts_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = written()
    shutil.copytree(artifacts_folder, tmp_path / "copy")
    monkeypatch.setenv("PROREC_ARTIFACTS", str(tmp_path / "copy"))
    assert state.read() is None and state.running() is None
    state.connect()
    assert not os.environ.get("MLFLOW_TRACKING_URI")
    artifacts_folder.rename(tmp_path / "moved")
    monkeypatch.setenv("PROREC_ARTIFACTS", str(tmp_path / "moved"))
    assert state.read() == stack and state.running() == stack


@pytest.mark.parametrize("text", ["", "{", "[]", '{"children": {}}', '{"children": 3}'])
def test_what_cannot_be_read_is_no_stack(text: str) -> None:
    state.folder().mkdir(parents=True)
    (state.folder() / "state.json").write_text(text)
    assert state.read() is None


def test_what_another_version_wrote_is_read() -> None:
    stack = written()
    path = state.folder() / "state.json"
    path.write_text(path.read_text().replace("{", '{"novelty": 1,', 1))
    assert state.read() == stack


def test_a_stack_whose_supervisor_died_is_not_used() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    elsewhere = {"host": "another", "namespace": "another"}
    for supervisor in ({"pid": str(ended.pid)}, {"started": "before the last boot"}, elsewhere):
        written(**supervisor)
        state.connect()
        assert state.running() is None and not [name for name in VARIABLES if name in os.environ]


def test_a_stack_outlives_the_name_of_its_machine() -> None:
    """As a lease of an address, or a first start, changes it."""
    stack = written(host="its name before")
    assert stack.here() and state.running() == stack


def test_a_stack_that_is_up_is_used() -> None:
    written(ready=False)
    state.connect()
    assert "PREFECT_API_URL" not in os.environ
    written()
    state.connect()
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert os.environ["MLFLOW_TRACKING_URI"] == os.environ["PROREC_MLFLOW_PAGE"] == "http://127.0.0.1:2"
    assert os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    password = secret.read(state.folder())
    assert [os.environ[name] for name in LOGIN] == [f"prorec:{password}", "prorec", password]


def test_what_the_user_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    written()
    state.connect()
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///elsewhere.db"
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api" and "PROREC_MLFLOW_PAGE" not in os.environ


@pytest.mark.parametrize("other", ["http://elsewhere.example", "http://localhost:1/api", "http://localhost:2"])
@pytest.mark.parametrize("own", [None, "mine:own"])
@pytest.mark.parametrize(("address", "login"), [("PREFECT_API_URL", LOGIN[:1]), ("MLFLOW_TRACKING_URI", LOGIN[1:])])
def test_another_server_is_not_told_the_password(
    address: str, login: tuple[str, ...], own: str | None, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another name there may be another server: somebody else's, at ::1."""
    monkeypatch.setenv(address, other)
    if own:
        monkeypatch.setenv(login[0], own)
    written()
    state.connect()
    assert os.environ[address] == other
    assert [os.environ.get(name) for name in login] == [own, *(None for _ in login[1:])]
    # The stack's other server is.
    assert all(name in os.environ for name in LOGIN if name not in login)


def test_a_password_for_another_server_is_not_given_to_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LOGIN:
        monkeypatch.setenv(name, "another's")
    written()
    state.connect()
    assert os.environ["PREFECT_API_AUTH_STRING"] == f"prorec:{secret.read(state.folder())}"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "prorec"


def test_a_stack_of_an_earlier_version_is_used_as_before() -> None:
    written(secured=False)
    state.connect()
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert not [name for name in LOGIN if name in os.environ]


def test_a_child_is_known_by_its_start() -> None:
    own = processes.started(os.getpid()) or ""
    assert ChildState(pid=os.getpid(), started=own).alive()
    assert not ChildState(pid=os.getpid(), started="earlier").alive() and not ChildState().alive()


def test_a_ray_cluster_of_the_stack_is_used_and_another_is_not_told_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another cluster's")
    stack = written()
    state.connect()
    assert "RAY_ADDRESS" not in os.environ and os.environ["RAY_AUTH_TOKEN"] == "another cluster's"
    stack.ray, stack.ray_pages = "127.0.0.1:3", "http://127.0.0.1:4"
    stack.write()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    state.connect()
    assert os.environ["RAY_AUTH_TOKEN"] == "another cluster's" and "RAY_AUTH_TOKEN_PATH" not in os.environ
    monkeypatch.delenv("RAY_ADDRESS")
    state.connect()
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:3" and "RAY_AUTH_TOKEN" not in os.environ
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(state.folder() / "ray-token")
