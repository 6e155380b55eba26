"""Finding a Ray cluster, as far as it needs none: what is asked for is held against what there is, in one line."""

from __future__ import annotations

import importlib.util
import socket

import pytest

from prorec.tasks.execution import cluster as clusters
from prorec.tasks.execution.cluster import cluster
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def _asked(**values: object) -> ComputeConfig:
    return ComputeConfig.model_validate({"engine": "ray", **values})


def test_without_ray_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"compute\.engine: Ray is not installed\. Install it: pip install 'prorec\[ray"
    ):
        cluster(_asked()).__enter__()


@pytest.mark.parametrize(
    ("asked", "machines", "words"),
    [
        ({"workers": 3}, [{"CPU": 2.0}], r"room for 2 of 3 workers with 1 cores each \(there are: 2 cores, 0 GPUs\)"),
        ({"workers": 2, "cpus_per_worker": 3}, [{"CPU": 4.0}, {"CPU": 2.0}], "room for 1 of 2 workers with 3 cores"),
        (
            {"workers": 2, "gpus_per_worker": 1},
            [{"CPU": 64.0, "GPU": 1.0}, {"CPU": 64.0}],
            "room for 1 of 2 workers with 1 cores and 1 GPUs each",
        ),
    ],
)
def test_fewer_resources_than_asked_for(asked: dict[str, int], machines: list[dict[str, float]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        clusters._expect_room(_asked(**asked), machines)


def test_what_there_is_room_for_passes() -> None:
    clusters._expect_room(_asked(workers=3, cpus_per_worker=2), [{"CPU": 4.0}, {"CPU": 3.0}])
    clusters._expect_room(_asked(workers=2, gpus_per_worker=1), [{"CPU": 2.0, "GPU": 2.0}])


@pytest.mark.parametrize("address", ["nowhere", "host:", ":", "10.0.0.1:port"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UserError, match="this is no address"):
        clusters._expect_answer(address, "compute.address")


@needs_ray
def test_nothing_listens_at_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=rf"compute\.address {address}: no Ray cluster answers .*ray start --head"):
        cluster(_asked(address=address)).__enter__()
    with pytest.raises(UserError, match="ray job submit"):
        cluster(_asked(address="http://127.0.0.1:8265")).__enter__()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 2.60.0\n  Python: 3.11.7"),
            "another version of Ray or Python: The cluster was started with: Ray: 2.60.0 Python: 3.11.7",
        ),
        (ConnectionError("Could not find any running Ray instance."), "no Ray cluster answers"),
        (ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:6379"), "or does not take this token"),
        (RuntimeError("Authentication failed: Invalid"), "does not take this token"),
        (RuntimeError("odd"), "Ray does not start"),
    ],
)
def test_why_there_is_no_connection(error: Exception, words: str) -> None:
    told = str(clusters._told(error, "compute.address auto"))
    assert words in told and "\n" not in told


def test_the_object_store_is_bounded() -> None:
    assert clusters._SMALLEST_STORE <= clusters._store_size() <= clusters._OBJECT_STORE


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROREC_KNOWN", "a")
    with clusters._environment({"PROREC_KNOWN": "b", "PROREC_NEW": "c"}):
        assert clusters.os.environ["PROREC_NEW"] == "c"
    assert clusters.os.environ["PROREC_KNOWN"] == "a" and "PROREC_NEW" not in clusters.os.environ
