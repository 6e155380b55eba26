"""A disk that fills up, at every stage: one line at once, nothing half written, and the same run goes on afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import OperationalError

from prorec.tasks.execution.events import Event, StageEnded, StageProgress, StageStarted, listening
from prorec.tasks.execution.stage import Work
from prorec.tasks.local import paths
from prorec.tasks.local.disk_space import full_disk
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.metrics import MetricSender
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.tracking.retries import is_passing, retrying
from prorec_core.artifacts import MANIFEST, write_bytes
from prorec_core.config import Experiment
from prorec_core.errors import MachineError, UserError
from tests.tiny import tiny

TINY = Experiment.model_validate(tiny({"name": "full_disk"}, epochs=2))


class SmallDisk:
    """A file system of 24 MB in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("ab", buffering=0) as stream:
            for size in (2**20, 4096, 1):
                try:
                    while True:
                        stream.write(b"x" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextmanager
def _mounted(folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may mount nothing here")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with _mounted(tmp_path / "disk") as small:
        yield small


@pytest.fixture
def on_disk(disk: SmallDisk, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    """That disk with the folder of artifacts on it."""
    folder = disk.folder / "artifacts"
    folder.mkdir()
    shutil.copyfile(empty_database, folder / "mlflow.db")
    monkeypatch.setenv("PROREC_ARTIFACTS", str(folder))
    return disk


def _left_half_done() -> list[Path]:
    """What nobody could use: files under names of their own, work folders, artifacts without a manifest."""
    root = paths.artifacts()
    hidden = [path for path in root.rglob(".*") if path.is_file() and path.suffix != ".lock"]
    unfinished = [path for path in (root / "store").glob("*/artifacts/artifact") if not (path / MANIFEST).is_file()]
    return [*hidden, *unfinished, *(root / "work").glob("*")]


def _run(disk: SmallDisk, when: Callable[[Event], bool]) -> dict[str, bool]:
    """Run the pipeline, with the disk full from the event on that is meant; which stages were cached."""
    from prorec.flows.full import prorec

    ended: dict[str, bool] = {}

    def handle(event: Event) -> None:
        if isinstance(event, StageEnded):
            ended[event.ref.stage] = event.cached
        if when(event):
            disk.fill()

    with listening(handle):
        prorec(experiment=TINY)
    return ended


def _starts(stage: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, StageStarted) and event.stage == stage


def _goes_on(stage: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, StageProgress) and event.stage == stage


@pytest.mark.pipeline
def test_a_full_disk_at_any_stage_is_one_line_and_the_run_goes_on(
    prefect_api: str, on_disk: SmallDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    for stage, moment in product(STAGES, (_starts, _goes_on)):
        if moment is _goes_on and stage in {"quantize", "report"}:
            continue  # They do not say how far they are.
        begun = time.monotonic()
        with pytest.raises(MachineError) as told:
            _run(on_disk, moment(stage))
        assert time.monotonic() - begun < 60
        assert f"no room is left on the disk mounted at {on_disk.folder} (" in str(told.value)
        assert told.value.place.startswith(str(on_disk.folder)) and len(str(told.value).splitlines()) == 1
        assert _left_half_done() == [], (stage, moment)
        on_disk.make_room()
    ended = _run(on_disk, lambda _: False)
    assert list(ended) == list(STAGES) and ended["evaluate"] and not ended["report"]
    looked_at, problems = store.verify_all()
    assert looked_at == len(STAGES) and problems == []
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_run_that_ends_while_the_disk_fills_up_is_found_again(
    make_tiny: Any, on_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, finish = make_tiny(), TrackedRun.finish

    def full(run: TrackedRun, *arguments: Any) -> None:
        finish(run, *arguments)
        on_disk.fill()

    # Now nothing can note that it was made; and the fixture below has set another folder.
    monkeypatch.setenv("PROREC_ARTIFACTS", str(on_disk.folder / "artifacts"))
    with monkeypatch.context() as patch:
        patch.setattr(TrackedRun, "finish", full)
        with pytest.raises(MachineError, match="no room is left"):
            pipeline.run()
    on_disk.make_room()
    pipeline.run()
    assert pipeline.cached == {"preprocess": True, "train_collaborative": False}
    assert store.verify_all() == (2, [])


def test_a_full_folder_for_temporary_files_is_named(
    make_tiny: Any, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scratch(work: Work) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "scratch").write_text("x" * 10_000)
        (work.folder / "done.txt").write_text("done")

    pipeline = make_tiny(second=scratch)
    disk.fill()
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    monkeypatch.setenv("TMPDIR", str(disk.folder))
    with pytest.raises(MachineError, match=f"disk mounted at {disk.folder} "):
        pipeline.run()
    disk.make_room()
    pipeline.run()
    assert store.verify_all() == (2, [])


def test_no_database_can_be_made_on_a_full_disk(
    disk: SmallDisk, artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (disk.folder / "artifacts").mkdir()
    monkeypatch.setenv("PROREC_ARTIFACTS", str(disk.folder / "artifacts"))
    disk.fill()
    with pytest.raises(Exception) as told:
        client().search_experiments()
    found = explained(told.value)
    assert found is not None and f"mounted at {disk.folder} " in str(found)


def test_a_file_that_cannot_be_written_leaves_nothing_and_names_itself(disk: SmallDisk) -> None:
    path = disk.folder / "file"
    path.write_text("before")
    disk.fill()
    with pytest.raises(OSError, match=r"No space left on device: .*/file") as told:
        write_bytes(path, b"x" * 10_000)
    assert path.read_text() == "before" and {each.name for each in disk.folder.iterdir()} == {"file", "filler"}
    assert full_disk(told.value) is not None


def test_metrics_wait_for_room_and_a_run_s_end_does_not(on_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prorec.tasks.tracking.metrics.pauses", lambda: iter([0.05] * 1000))
    run = TrackedRun.start(mlflow_runs.experiment_id("metrics"), "training")
    on_disk.fill()
    run.metrics({f"loss_{number}": 1.0 for number in range(200)}, 1)
    time.sleep(0.5)
    on_disk.make_room()
    run.finish()
    assert len(client().get_run(run.id).data.metrics) == 200

    sender = MetricSender(client(), TrackedRun.start(mlflow_runs.experiment_id("metrics"), "another").id)
    on_disk.fill()
    sender.send({f"loss_{number}": 1.0 for number in range(200)}, 1)
    begun = time.monotonic()
    with pytest.raises(MachineError, match="no room is left"):
        sender.close()
    assert time.monotonic() - begun < 30


def test_what_found_no_room_before_a_run_ended_is_sent_once_more_at_its_end() -> None:
    """Room may have been made while the last try was at work."""
    at_work, ended, sent = threading.Event(), threading.Event(), list[int]()

    class Client:
        def log_batch(self, run_id: str, metrics: list[Any]) -> None:
            if not at_work.is_set():
                at_work.set()
                assert ended.wait(30)
                raise OSError(errno.ENOSPC, "No space left on device")
            sent.append(len(metrics))

    sender = MetricSender(cast(MlflowClient, Client()), "run")
    sender.send({"loss": 1.0}, 1)
    assert at_work.wait(30)
    closing = threading.Thread(target=sender.close)
    closing.start()
    while not sender._closing:
        time.sleep(0.01)
    ended.set()
    closing.join(30)
    assert sent == [1] and not sender._pending and sender._full is None


def _raised(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except type(error) as raised:
        return raised


FULL = sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "/tmp/file"),
        FULL,
        OperationalError("INSERT", {}, FULL),
        _raised(MlflowException("(sqlite3.OperationalError) database or disk is full", 2), FULL),
        RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "database or disk is full"}),
        _raised(RuntimeError("no model"), OSError(errno.ENOSPC, "No space left on device")),
        _raised(UserError("cannot read the tensors"), OSError(errno.ENOSPC, "No space left on device")),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_word_for_a_full_disk_is_understood(error: Exception, artifacts_folder: Path) -> None:
    found = explained(error)
    assert found is not None and "Make room there" in found.cure and not is_passing(error)
    tried = []

    def call() -> None:
        tried.append(1)
        raise error

    with pytest.raises(type(error)):
        retrying(call)
    assert tried == [1]


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("unable to open database file"),
        requests.HTTPError(response=requests.models.Response()),
        RestException({"error_code": "INTERNAL_ERROR", "message": "?"}),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_what_may_have_other_reasons_counts_only_where_a_disk_is_full(
    error: Exception, disk: SmallDisk, artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(error, requests.HTTPError):
        error.response.status_code = 500  # type: ignore[union-attr]
    assert full_disk(error) is None
    monkeypatch.setenv("PROREC_ARTIFACTS", str(disk.folder))
    assert full_disk(error) is None
    disk.fill()
    assert f"mounted at {disk.folder} (0.0 of 24.0 MiB are free)" in str(full_disk(error))


def test_a_server_elsewhere_whose_disk_is_full_is_named(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    error = RestException({"error_code": "INTERNAL_ERROR", "message": "(sqlite3.OperationalError) disk is full"})
    assert full_disk(error) is None and is_passing(error)
    full = RestException({"error_code": "INTERNAL_ERROR", "message": "database or disk is full"})
    assert str(full_disk(full)).startswith("http://mlflow.example:5000: the disk of the tracking server is full.")


def test_a_disk_that_takes_no_more_files_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(os.statvfs(tmp_path))
    found[5:8] = [1000, 0, 0]  # files, and those that are free
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(found))
    told = full_disk(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "file")))
    assert "(it takes no more files)" in str(told)
