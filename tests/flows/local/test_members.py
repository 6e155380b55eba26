"""Where processes that work side by side are, what they are told, and what they refuse before they begin."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from prorec.flows.local import elsewhere, members
from prorec.flows.local.members import _expect_stores_for, _mine, _there, expect_members
from prorec.tasks.execution.cluster import Cluster
from prorec.tasks.local import paths, processes
from prorec_core.config import Experiment
from prorec_core.errors import UserError


def _on_ray(device: str = "auto", **compute: object) -> Experiment:
    return Experiment.model_validate({"device": device, "compute": {"engine": "ray", **compute}})


def test_a_single_worker_is_the_process_itself() -> None:
    mine = _mine(_on_ray(workers=1, address="auto"), "10.0.0.1:6379")
    assert mine.compute.engine == "local" and mine.compute.address is None and mine.device == "auto"
    assert _mine(_on_ray("cuda:1", workers=1, gpus_per_worker=1), "h:1").device == "cuda", "it sees its own alone"


def test_several_workers_are_asked_of_the_same_cluster() -> None:
    mine = _mine(_on_ray("cuda", workers=3, gpus_per_worker=1), "10.0.0.1:6379")
    assert (mine.compute.engine, mine.compute.address, mine.compute.workers) == ("ray", "10.0.0.1:6379", 3)
    assert mine.device == "auto", "the GPUs are theirs"
    local = Experiment()
    assert _mine(local, "h:1") is local


def test_files_are_named_in_full_for_processes_that_begin_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given = Experiment.model_validate({"data": {"source": "tables", "path": "shop"}})
    with members.members(2, given) as found:
        assert found.mine(given).data.path == str(tmp_path / "shop")
    with members.members(1, given) as found:
        assert not found.beside


def test_a_gpu_that_nobody_asks_for_is_refused() -> None:
    with pytest.raises(UserError, match=r"compute\.gpus_per_worker: device=cuda is meant"):
        expect_members(2, _on_ray("cuda", address="auto"))


@pytest.mark.parametrize(("workers", "needs"), [(1, {"cores": 3, "gpus": 1}), (2, {"cores": 0, "gpus": 0})])
def test_what_a_process_asks_for_and_is_told(
    monkeypatch: pytest.MonkeyPatch, workers: int, needs: dict[str, int]
) -> None:
    asked: list[tuple[Sequence[str], Mapping[str, str], dict[str, Any]]] = []
    monkeypatch.setattr(members, "Relayed", lambda words, told, **needs: asked.append((words, told, needs)))
    monkeypatch.setattr(elsewhere, "told", lambda: {elsewhere.OF: "sign store"})
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden")
    monkeypatch.setenv("SOMETHING_ELSE", "of this machine")
    compute = _on_ray(workers=workers, cpus_per_worker=3, gpus_per_worker=1).compute
    _there(compute, {"PREFECT_API_URL": "http://p"})(0)
    ((words, told, found),) = asked
    assert found == needs and told["OMP_NUM_THREADS"] == "3"
    assert told["MLFLOW_TRACKING_PASSWORD"] == "hidden" and "hidden" not in " ".join(words)
    assert told["PREFECT_API_URL"] == "http://p" and "SOMETHING_ELSE" not in told
    assert told[paths.ARTIFACTS_VARIABLE] == str(paths.artifacts())


def test_a_store_of_one_machine_is_refused_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Cluster("h:1", frozenset(names), 2) for names in ("a", "ab"))
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", paths.EMBEDDED_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    _expect_stores_for(one)
    with pytest.raises(UserError, match="the cluster has 2 machines, and an SQLite file is for one"):
        _expect_stores_for(two)
    for address in ("127.0.0.1", "localhost"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}:5000")
        _expect_stores_for(one)
        with pytest.raises(UserError, match=f"MLFLOW_TRACKING_URI .*{address}.*: the cluster has 2 machines"):
            _expect_stores_for(two)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    with pytest.raises(UserError, match="PREFECT_API_URL"):
        _expect_stores_for(two)
    monkeypatch.setenv(paths.EMBEDDED_VARIABLE, "1")
    _expect_stores_for(two)


def test_who_does_not_see_the_folder_says_so_before_it_begins(
    artifacts_folder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv(elsewhere.OF, raising=False)
    elsewhere.expect_stores()
    monkeypatch.setenv(elsewhere.OF, "0123abcd store")
    with pytest.raises(UserError, match=f"{os.uname().nodename} does not see the folder of artifacts"):
        elsewhere.expect_stores()
    monkeypatch.setenv(elsewhere.OF, f"{processes.sign_of_life()} another")
    with pytest.raises(UserError, match="finds another tracking store"):
        elsewhere.expect_stores()
