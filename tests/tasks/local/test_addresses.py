"""A folder of artifacts that was moved or copied is the whole store from then on, and no other one is touched."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from prorec.tasks.local import addresses, databases, paths
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.upkeep import collection, retention
from prorec_core.errors import UserError
from tests.tasks.conftest import TinyPipeline

Use = Callable[[Path], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Makes another folder the one of artifacts."""
    return lambda folder: monkeypatch.setenv("PROREC_ARTIFACTS", str(folder))


@pytest.fixture
def run_id(tracked_folder: Path, tmp_path: Path) -> str:
    """A run with a file, and with a model of which there is a version."""
    mlflow_runs.identity()
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "first")
    run.text("note.txt", "note")
    run.tags({store.URI_TAG: run.artifact_uri, "path": f"see {run.uri}", "beside": f"{paths.store()}-2/x"})
    model = client().create_logged_model(run.experiment, source_run_id=run.id)
    Path(model.artifact_location).mkdir(parents=True)
    client().create_registered_model("prorec-demo")
    client().create_model_version("prorec-demo", model.artifact_location, run.id)
    run.finish()
    return run.id


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder but locks, which readers make."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if "locks" not in path.parts}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of addresses."""
    return [record.getMessage() for record in caplog.records if record.name == addresses.__name__]


def all_addresses() -> list[str]:
    """Every address that MLflow has, as its client tells them."""
    experiments = [each for each in client().search_experiments() if each.name.startswith("prorec")]
    runs = [run for run in mlflow_runs.search() if store.URI_TAG in run.data.tags]
    models = client().search_logged_models([run.info.experiment_id for run in runs])
    return [
        *(each.artifact_location for each in experiments),
        *(run.info.artifact_uri for run in runs),
        *(run.data.tags[store.URI_TAG] for run in runs),
        *(model.artifact_location for model in models),
        client().get_model_version_download_uri("prorec-demo", "1"),
    ]


@pytest.mark.parametrize("name", ["moved", "an odd näme"])
@pytest.mark.parametrize("kept", [True, False], ids=["copied", "moved"])
def test_all_addresses_lead_to_where_the_folder_is_now(
    run_id: str,
    tracked_folder: Path,
    tmp_path: Path,
    use: Use,
    caplog: pytest.LogCaptureFixture,
    name: str,
    kept: bool,
) -> None:
    there = tmp_path / name
    shutil.copytree(tracked_folder, there)
    before = files(tracked_folder)
    if not kept:
        shutil.rmtree(tracked_folder)
    use(there)
    found = all_addresses()
    assert len(found) == 6 and all(Path(paths.local_path(each) or "").is_relative_to(there) for each in found)
    assert mlflow_runs.read_text(run_id, "note.txt") == "note"
    tags = client().get_run(run_id).data.tags
    assert tags["path"].startswith(f"see {tracked_folder}") and tags["beside"] == f"{tracked_folder / 'store'}-2/x"
    second = TrackedRun.start(mlflow_runs.experiment_id("demo"), "second")
    second.text("note.txt", "note")
    second.finish()
    assert (there / "store" / second.id / "artifacts" / "note.txt").is_file()
    assert files(tracked_folder) == (before if kept else {})
    assert told(caplog) == [f"{there} was moved or copied from {tracked_folder}: its addresses lead here now"]
    # And back again.
    shutil.rmtree(tracked_folder, ignore_errors=True)
    shutil.copytree(there, tracked_folder)
    use(tracked_folder)
    databases.prepare_mlflow(paths.tracking_uri())
    assert all(str(tracked_folder / "store") in each for each in all_addresses()) and len(told(caplog)) == 2


def test_a_link_to_the_folder_is_no_move(
    run_id: str, tracked_folder: Path, tmp_path: Path, use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tracked_folder)
    before = files(tracked_folder)
    for folder in (link, tmp_path / "link" / ".." / tracked_folder.name, Path(os.path.relpath(tracked_folder))):
        use(folder)
        databases.prepare_mlflow(paths.tracking_uri())
    assert files(tracked_folder) == before and not told(caplog)


def test_a_database_that_a_user_put_elsewhere_is_left_alone(
    run_id: str, tracked_folder: Path, tmp_path: Path, use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "server").mkdir()
    named = shutil.copyfile(tracked_folder / "mlflow.db", tmp_path / "server" / "mlflow.db")
    content = named.read_bytes()
    databases.prepare_mlflow(paths.sqlite_uri(named))
    # The database alone is here, and no other one knows the files.
    (tracked_folder / "mlflow.db").unlink()
    use(tmp_path / "server")
    databases.prepare_mlflow(paths.tracking_uri())
    assert mlflow_runs.read_text(run_id, "note.txt") == "note"
    assert named.read_bytes() == content and not told(caplog)


def test_files_that_were_left_behind_are_told_and_copied_as_it_says(
    run_id: str, tracked_folder: Path, tmp_path: Path, use: Use
) -> None:
    there = tmp_path / "a copy"
    shutil.copytree(tracked_folder, there)
    shutil.rmtree(there / "store" / run_id)
    before = files(there)
    use(there)
    with pytest.raises(
        UserError, match=r"mlflow\.db: it came from .* files of 1 of its runs and models are only there"
    ) as refused:
        databases.prepare_mlflow(paths.tracking_uri())
    assert files(there) == before
    command = str(refused.value).rpartition("Copy what is missing: ")[2].rstrip(".")
    subprocess.run(command, shell=True, check=True)
    assert mlflow_runs.read_text(run_id, "note.txt") == "note"


@pytest.mark.parametrize("shared", ["store", "mlflow.db"])
def test_a_copy_whose_files_are_the_originals_is_refused(
    run_id: str, tracked_folder: Path, tmp_path: Path, use: Use, shared: str
) -> None:
    there = tmp_path / "copy"
    shutil.copytree(tracked_folder, there)
    shutil.rmtree(there / shared) if shared == "store" else (there / shared).unlink()
    (there / shared).symlink_to(tracked_folder / shared)
    before = files(tracked_folder)
    use(there)
    with pytest.raises(UserError, match=rf"copy/{shared}: it is .*artifacts/{shared} by another name"):
        databases.prepare_mlflow(paths.tracking_uri())
    assert files(tracked_folder) == before


def test_a_folder_that_was_moved_from_under_a_process_is_refused(
    run_id: str, tracked_folder: Path, tmp_path: Path, use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    there = tracked_folder.rename(tmp_path / "moved")
    (there / "locks" / "alive-f").touch()
    before = files(there)
    use(there)
    with (there / "locks" / "alive-f").open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"moved: the folder was at .* a process that began there is at work"):
            databases.prepare_mlflow(paths.tracking_uri())
        assert files(there) == before
        fcntl.flock(stream, fcntl.LOCK_UN)
        # This process's own run has ended, and it has shown itself where the folder was.
        databases.prepare_mlflow(paths.tracking_uri())
    assert len(told(caplog)) == 1


def test_what_ends_in_the_middle_changes_nothing_and_is_made_up_for(
    run_id: str, tracked_folder: Path, tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = shutil.copytree(tracked_folder, tmp_path / "copy")
    use(there)
    with monkeypatch.context() as patch:
        patch.setattr(addresses, "_COLUMNS", (*addresses._COLUMNS, ("none", "none")))
        with pytest.raises(UserError, match="its tables are not MLflow's"):
            databases.prepare_mlflow(paths.tracking_uri())
    with closing(sqlite3.connect(there / "mlflow.db")) as database:
        assert str(tracked_folder / "store") in str(database.execute("SELECT artifact_uri FROM runs").fetchone())
    assert mlflow_runs.read_text(run_id, "note.txt") == "note"
    assert all(str(there) in each for each in all_addresses())


def test_a_copy_has_everything_cached_and_deletes_its_own_files_only(
    make_tiny: Callable[..., TinyPipeline], tracked_folder: Path, tmp_path: Path, use: Use
) -> None:
    pipeline = make_tiny()
    pipeline.run()
    there = shutil.copytree(tracked_folder, tmp_path / "copy")
    before = files(tracked_folder)
    use(there)
    refs = pipeline.run()
    assert pipeline.cached == {"preprocess": True, "train_collaborative": True}
    assert all(Path(ref.uri).is_relative_to(there) for ref in refs.values())
    done = collection.collect(collection.make_plan(retention.take_inventory(0.0), 0.0))
    assert done.count == 2 and not list((there / "store").rglob("*.txt"))
    assert files(tracked_folder) == before
