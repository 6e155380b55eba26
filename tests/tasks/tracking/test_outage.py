"""A real tracking server on this machine that goes away and comes back: nothing is lost, nothing dies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from prorec.tasks.local import paths
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec.tasks.upkeep.collection import collect, make_plan
from prorec.tasks.upkeep.retention import take_inventory
from prorec_core.artifacts import MANIFEST, ArtifactRef, sha256_file, verify, write_manifest
from prorec_core.errors import UserError

pytestmark = pytest.mark.pipeline


class Server:
    """An MLflow server that can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.start()

    def start(self) -> None:
        arguments = {
            "--backend-store-uri": f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination": str(self.folder / "files"),
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
        }
        command = [sys.executable, "-m", "mlflow", "server", *(word for pair in arguments.items() for word in pair)]
        # The server and its workers are a group of their own, ended together.
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "server.db").write_bytes(empty_database.read_bytes())
    running = Server(folder)
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def tracked_there(server: Server, artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("PROREC_TRACKING_PATIENCE", raising=False)


def test_metrics_of_an_outage_arrive_later(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TrackedRun.start(mlflow_runs.experiment_id("outage"), "training")
    run.metrics({"loss": 1.0, "validation_ndcg_at_10": 0.1}, 1)
    server.kill()
    for epoch in range(2, 12):
        run.metrics({"loss": 1.0 / epoch, "validation_ndcg_at_10": epoch / 10}, epoch)
    monkeypatch.setenv("PROREC_TRACKING_PATIENCE", "1")
    with pytest.raises(TrackingAwayError):
        mlflow_runs.experiment_id("outage")
    monkeypatch.delenv("PROREC_TRACKING_PATIENCE")
    server.start()
    run.metrics({"loss": 0.0}, 12)
    run.finish()
    assert client().get_run(run.id).info.status == "FINISHED"
    for name, last in (("loss", 12), ("validation_ndcg_at_10", 11)):
        history = client().get_metric_history(run.id, name)
        assert sorted(metric.step for metric in history) == list(range(1, last + 1))


def store_two_files(folder: Path) -> ArtifactRef:
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "below" / "b.txt").write_text("b")
    manifest = write_manifest(folder, "preprocess", {}, {})
    run = TrackedRun.start(mlflow_runs.experiment_id("elsewhere"), "preprocess")
    run.upload(folder, last=MANIFEST)
    tags = {
        store.STAGE_TAG: "preprocess",
        **store.tags_of(run.artifact_uri, folder, manifest),
    }
    run.tags(tags)
    run.finish()
    return ArtifactRef(stage="preprocess", digest=manifest.digest, run_id=run.id, uri=run.artifact_uri)


def test_artifacts_elsewhere_are_fetched_once_and_checked(tmp_path: Path, server: Server) -> None:
    ref = store_two_files(tmp_path / "made")
    assert paths.local_path(ref.uri) is None
    assert store.check(ref) == []

    fetched = store.fetch(ref)
    assert fetched == paths.downloads(ref.digest) and verify(fetched) == []
    assert sorted(each.name for each in fetched.parent.iterdir()) == [ref.digest]
    before = (fetched / "a.txt").stat()
    assert store.fetch(ref) == fetched and (fetched / "a.txt").stat() == before
    (fetched / "a.txt").write_text("x")
    assert (store.fetch(ref) / "a.txt").read_text() == "a"

    manifest = fetched / MANIFEST
    manifest.write_text(manifest.read_text().replace('"git_commit"', '"git_commat"'))
    assert sha256_file(store.fetch(ref) / MANIFEST) == client().get_run(ref.run_id).data.tags[store.MANIFEST_TAG]

    assert store.verify_all() == (1, [])
    stored = next(server.folder.rglob("b.txt"))
    stored.write_text("x")
    assert store.check(ref) == []
    assert [f"{ref.uri}/below/b.txt" in problem for problem in store.verify_all()[1]] == [True]
    stored.unlink()
    assert [f"{ref.uri}/below/b.txt" in problem for problem in store.check(ref)] == [True]
    (fetched / "below" / "b.txt").unlink()
    with pytest.raises(UserError, match="Run the stage 'preprocess' again"):
        store.fetch(ref)


def test_what_nothing_keeps_is_deleted_through_the_server(tmp_path: Path, server: Server) -> None:
    ref = store_two_files(tmp_path / "made")
    left = TrackedRun.start(mlflow_runs.experiment_id("elsewhere"), "left", tags={store.STAGE_TAG: "preprocess"})
    left.upload(tmp_path / "made", last="a.txt")
    left.finish("FAILED")
    made = make_plan(take_inventory(0), 0)
    named = {name: size for _, name, size in made.everything()}
    assert named[f"preprocess {left.id}"] > 2
    assert next(each for each in made.artifacts if each.ref == ref).bytes == 2
    done = collect(made)
    assert done.failures == [] and store.check(ref) == [f"{ref.uri}: it was deleted to save space"]
    assert not [path for path in server.folder.rglob("*.txt") if {ref.run_id, left.id} & set(path.parts)]
    assert store.verify_all() == (0, []) and list(make_plan(take_inventory(0), 0).everything()) == []


def test_pages_have_addresses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlflow_runs.page("3", "abc") == f"{server.url}/#/experiments/3/runs/abc?workflowType=machine_learning"
    monkeypatch.setenv("PROREC_MLFLOW_PAGE", "https://mlflow.example/")
    assert (
        mlflow_runs.page("3", "abc") == "https://mlflow.example/#/experiments/3/runs/abc?workflowType=machine_learning"
    )


def test_one_store_has_one_identity_however_it_is_reached(
    server: Server, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(uri: str) -> str:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        return mlflow_runs.identity()

    own = identity(server.url)
    assert own == identity(server.url.replace("127.0.0.1", "localhost"))
    assert own == identity(f"sqlite:///{server.folder}/server.db")
    (tmp_path / "other.db").write_bytes(empty_database.read_bytes())
    assert own != identity(f"sqlite:///{tmp_path}/other.db")
