"""What a version, a recent run or a running one needs stays; the rest goes, and a kill on the way harms nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from prorec.tasks.execution.stage import Work
from prorec.tasks.local import folders, paths
from prorec.tasks.registry import models
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.upkeep import collection
from prorec.tasks.upkeep.collection import Collected, Plan, collect, make_plan
from prorec.tasks.upkeep.local_leftovers import left_locally
from prorec.tasks.upkeep.retention import Inventory, take_inventory
from prorec_core.artifacts import ArtifactRef, write_json
from prorec_core.config import Experiment
from prorec_core.data import snapshots
from prorec_core.errors import UserError
from tests.tasks.registry.test_promotion import store_artifact

MakeTiny = Callable[..., Any]
OTHER = Experiment(seed=1)


def plan(keep_days: float = 0) -> Plan:
    return make_plan(take_inventory(keep_days), keep_days)


def gc(keep_days: float = 0) -> Collected:
    return collect(plan(keep_days))


def stages(made: Plan) -> list[str]:
    return sorted(each.ref.stage for each in made.artifacts)


def is_there(ref: ArtifactRef) -> bool:
    folder = paths.local_path(ref.uri)
    assert folder is not None
    return folder.exists()


def test_what_recent_runs_made_stays(make_tiny: MakeTiny) -> None:
    make_tiny().run()
    inventory = take_inventory(30)
    assert len(inventory.stored) == 2 and all(inventory.kept_by(each) for each in inventory.stored)
    assert list(plan(30).everything()) == []
    assert stages(plan(0)) == ["preprocess", "train_collaborative"]


def test_a_version_keeps_all_that_it_was_made_of(make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_tiny(second=lambda work: _write(work.folder / "own.txt", str(work.experiment.seed)))
    first, second = pipeline.run(), pipeline.run(OTHER)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())
    model = client().create_logged_model(mlflow_runs.experiment_id("demo"), name="generator")
    models.register("prorec-demo", model.model_id, second["train_collaborative"].run_id, {})
    inventory = take_inventory(0)
    kept = {each.ref.run_id: inventory.kept_by(each) for each in inventory.stored}
    assert kept == {
        first["preprocess"].run_id: ["prorec-demo/1"],
        first["train_collaborative"].run_id: [],
        second["train_collaborative"].run_id: ["prorec-demo/1"],
    }
    done = gc()
    assert (done.count, done.failures) == (1, []) and done.bytes > 0
    assert [is_there(ref) for ref in (first["preprocess"], *second.values())] == [True] * 3
    assert not is_there(first["train_collaborative"])


def test_what_was_deleted_is_made_again_when_it_is_needed(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    assert gc().count == 2
    assert store.verify_all() == (0, [])
    assert client().get_run(first["preprocess"].run_id).data.metrics["written"] == 1
    again = pipeline.run()
    assert pipeline.cached == {"preprocess": False, "train_collaborative": False}
    assert {name: ref.digest for name, ref in again.items()} == {name: ref.digest for name, ref in first.items()}
    assert store.verify_all() == (2, [])
    assert list(plan(30).everything()) == []


def test_of_equal_artifacts_one_stays(make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_tiny()
    first, forced = pipeline.run(), pipeline.run(force="preprocess")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())
    model = client().create_logged_model(mlflow_runs.experiment_id("demo"), name="generator")
    tags = {models.run_tag("preprocess"): first["preprocess"].run_id}
    models.register("prorec-demo", model.model_id, first["train_collaborative"].run_id, tags)
    assert [each.ref for each in plan().artifacts] == [forced["preprocess"], first["train_collaborative"]]
    client().delete_model_version_tag("prorec-demo", "1", models.run_tag("preprocess"))
    assert [each.ref for each in plan().artifacts] == [first["preprocess"]]
    gc()
    pipeline.run()
    assert pipeline.cached == {"preprocess": True, "train_collaborative": True}


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("step", range(6))
def test_a_kill_anywhere_leaves_no_damage(make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    made = plan()
    with monkeypatch.context() as patch:
        left = iter(range(step))

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def die_or_do(*words: Any) -> Any:
                if next(left, None) is None:
                    raise Killed
                return call(*words)

            return die_or_do

        # Two artifacts: two marks, then for each the manifest, the rest and the last mark.
        patch.setattr(collection, "_mark", dying(collection._mark))
        repository = collection._repository

        def dying_repository(uri: str) -> Any:
            files = repository(uri)
            files.delete_artifacts = dying(files.delete_artifacts)  # type: ignore[method-assign]
            return files

        patch.setattr(collection, "_repository", dying_repository)
        with pytest.raises(Killed):
            collect(made)
    assert store.verify_all()[1] == []
    again = pipeline.run()
    assert {name: ref.digest for name, ref in again.items()} == {name: ref.digest for name, ref in first.items()}
    assert store.verify_all() == (2, [])
    gc(30)
    assert store.verify_all() == (2, []) and all(map(is_there, again.values()))
    assert not [ref for name, ref in first.items() if ref != again[name] and is_there(ref)]


def test_what_a_running_run_has_read_stays(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    refs = pipeline.run()
    running = TrackedRun.start(mlflow_runs.experiment_id("demo"), "running")
    running.tags(models.stage_tags({"preprocess": refs["preprocess"]}))
    made = plan()
    assert stages(made) == ["train_collaborative"]
    # It finds the other one in the cache after the plan was made.
    running.tags(models.stage_tags({"train_collaborative": refs["train_collaborative"]}))
    done = collect(made)
    assert (done.count, done.spared) == (0, 1)
    assert store.check(refs["train_collaborative"]) == [] and store.verify_all() == (2, [])
    running.finish()
    assert stages(plan()) == ["preprocess", "train_collaborative"]


def test_what_came_into_use_while_somebody_thought_about_it_stays(make_tiny: MakeTiny) -> None:
    refs = make_tiny().run()
    made = plan()
    assert len(made.artifacts) == 2
    late = TrackedRun.start(mlflow_runs.experiment_id("demo"), "late")
    late.tags(models.stage_tags({"train_collaborative": refs["train_collaborative"]}))
    late.finish()
    assert (collect(made).spared, store.verify_all()) == (2, (2, []))


def test_files_of_runs_that_failed_go_at_once(make_tiny: MakeTiny) -> None:
    def fail(work: Work) -> None:
        work.run.upload(_filled(work.folder), last="b.txt")
        raise UserError("no")

    with pytest.raises(UserError):
        make_tiny(second=fail).run()
    assert [(kind, size) for kind, _, size in plan(30).everything()] == [("left-over files of runs", 2)]
    assert gc(30).bytes == 2
    assert list(plan(30).everything()) == []


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _filled(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("x")
    return folder


def test_damaged_artifacts_that_were_made_again_go_at_once(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    (store.fetch(first["preprocess"]) / "seed.txt").write_text("9")
    second = pipeline.run()
    assert gc(30).count == 1
    assert not is_there(first["preprocess"]) and is_there(second["preprocess"])
    assert store.verify_all() == (2, [])


def test_models_without_a_version_go(tracked_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())
    experiment = mlflow_runs.experiment_id("demo")
    _filled(tmp_path / "files")
    ids = []
    for name in ("left", "registered", "being made"):
        run = TrackedRun.start(experiment, name)
        model = client().create_logged_model(experiment, name="generator", source_run_id=run.id)
        client().log_model_artifacts(model.model_id, str(tmp_path / "files"))
        ids.append(model)
        if name != "being made":
            run.finish()
    models.register("prorec-demo", ids[1].model_id, ids[1].source_run_id, {})
    made = plan(30)
    assert [(kind, name) for kind, name, _ in made.everything()] == [("models without a version", ids[0].model_id)]
    assert collect(made).bytes == 2
    assert [Path(model.artifact_location).exists() for model in ids] == [False, True, True]
    assert list(plan(30).everything()) == []


def test_a_model_that_came_into_use_meanwhile_stays(tracked_folder: Path, tmp_path: Path) -> None:
    experiment = mlflow_runs.experiment_id("demo")
    TrackedRun.start(experiment, "before").finish()
    looked = take_inventory(30)
    run = TrackedRun.start(experiment, "items")
    model = client().create_logged_model(experiment, name="generator", source_run_id=run.id)
    client().log_model_artifacts(model.model_id, str(_filled(tmp_path / "files")))
    done = collect(make_plan(looked, 30))
    assert (done.count, done.spared) == (0, 1) and Path(model.artifact_location).exists()


@pytest.mark.parametrize("name", ["shop-prod", "prorec-prod"])
def test_a_model_that_somebody_has_copied_stays(
    tracked_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """MLflow's page offers to promote a version to a registered model of another name."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())
    experiment = mlflow_runs.experiment_id("demo")
    run = TrackedRun.start(experiment, "made")
    model = client().create_logged_model(experiment, name="generator", source_run_id=run.id)
    client().log_model_artifacts(model.model_id, str(_filled(tmp_path / "files")))
    client().finalize_logged_model(model.model_id, "READY")
    run.finish()
    copied = client().copy_model_version(models.register("prorec-demo", model.model_id, run.id, {}), name)
    client().delete_model_version("prorec-demo", "1")
    assert list(plan(30).everything()) == [] and Path(model.artifact_location).exists()
    client().delete_model_version(name, copied.version)
    assert gc(30).count == 1 and not Path(model.artifact_location).exists()


def test_local_leftovers_go_unless_somebody_is_at_work(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    refs = pipeline.run()
    finished = client().get_run(refs["preprocess"].run_id).data.tags["prorec.key"]
    artifacts = paths.artifacts()
    long_ago = time.time() - 40 * 86400
    there = {
        "work/dead": True,
        "work/busy": False,
        f"checkpoints/{finished}": True,
        "checkpoints/old": True,
        "checkpoints/new": False,
        f"downloads/{refs['preprocess'].digest}": False,
        "downloads/nobodys": True,
        "downloads/busy": False,
        "downloads/.part-x": True,
        "recommendations/.out.parquet.parts": True,
        "recommendations/.new.parquet.parts": False,
    }
    for name in there:
        (artifacts / name).mkdir(parents=True, exist_ok=True)
        (artifacts / name / "file").write_text("12345")
        if not name.endswith(("new", ".new.parquet.parts", refs["preprocess"].digest)):
            for path in (artifacts / name / "file", artifacts / name):
                os.utime(path, (long_ago, long_ago))
    with paths.lock("busy"), paths.lock("download-busy"):
        done = gc(30)
    assert {name: not (artifacts / name).exists() for name in there} == there
    assert (done.count, done.bytes, done.spared) == (6, 30, 0)


def test_checkpoints_of_a_training_that_was_begun_anew_stay(tracked_folder: Path) -> None:
    """Also where its artifact was there once: it was collected, or is made with --force."""
    experiment = mlflow_runs.experiment_id("demo")
    keys = {name: name[0] * 64 for name in ("begun anew", "collected", "done")}
    for name, key in keys.items():
        tags = {store.STAGE_TAG: "train_generator", store.KEY_TAG: key, store.DIGEST_TAG: "d", store.URI_TAG: "/none"}
        gone = {store.COLLECTED_TAG: "2026-01-01T00:00:00"} if name == "collected" else {}
        TrackedRun.start(experiment, name, tags={**tags, **gone}).finish()
        file = paths.checkpoints(key) / "epoch-0090.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        at = time.time() + (60 if name == "begun anew" else -60)
        os.utime(file, (at, at))
    gc(30)
    assert {name: paths.checkpoints(key).exists() for name, key in keys.items()} == {
        "begun anew": True,
        "collected": True,
        "done": False,
    }


def test_files_may_go_while_they_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "stays", "x")
    (tmp_path / "gone").symlink_to("nowhere")
    monkeypatch.setattr(os, "walk", lambda path: iter([(path, [], ["gone", "stays", "went"])]))
    assert len(list(folders.states(tmp_path))) == 3 and folders.changed(tmp_path / "never") == 0
    assert folders.written(tmp_path) == (tmp_path / "stays").stat().st_mtime


def test_a_local_copy_of_what_is_served_stays(tracked_folder: Path) -> None:
    served, other = "ab" * 32, "cd" * 32
    for digest in (served, other):
        folder = _filled(paths.downloads(digest))
        for path in (folder, *folder.iterdir()):
            os.utime(path, (1e9, 1e9))
    tags = {"tags": {store.MODEL_MANIFEST_TAG: served}, "source": "models:/m-1", "run_id": "r", "created": 0.0}
    version = models.Version("prorec-demo", 1, aliases=("champion",), **tags)
    left = left_locally(Inventory([], [], [version]), 30)
    assert [each.name for each in left if each.kind == "downloads"] == [other]


def test_snapshots_of_databases_go_that_no_kept_data_set_was_made_of(tracked_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    write_json(tmp_path / "made" / "profile.json", {"source": "sql", "snapshot": "a" * 64})
    made = store_artifact("preprocess", tmp_path / "made", mlflow_runs.experiment_id("demo"), {})
    for name in ("a", "b", "c", "d"):
        batch = pa.RecordBatch.from_pydict({name: [1]})
        folder = paths.snapshots() / (snapshots.keep(paths.snapshots(), {"t": [batch, batch]}))
        folder = folder.rename(paths.snapshots() / (name * 64)) if name != "d" else folder
        if name != "c":
            for path in (*folder.iterdir(), folder):
                os.utime(path, (0, 0))
    # Who reads one marks it as used.
    snapshots.kept(paths.snapshots(), folder.name, ["t"])
    before = {path.name for path in paths.snapshots().iterdir() if path.is_dir()}
    assert {name for kind, name, _ in plan(30).everything() if kind == "snapshots of databases"} == {"b" * 64}
    gc(30)
    assert before - {path.name for path in paths.snapshots().iterdir() if path.is_dir()} == {"b" * 64}
    os.utime(paths.snapshots() / ("c" * 64), (0, 0))
    (Path(made.uri) / "profile.json").unlink()
    os.utime(paths.snapshots() / ("c" * 64) / "t.parquet", (0, 0))
    os.utime(paths.snapshots() / ("c" * 64), (0, 0))
    assert "snapshots of databases" not in {kind for kind, _, _ in plan(30).everything()}, "it may be of use"


def test_files_of_writers_that_were_killed_go(artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    stack = artifacts_folder / "stack"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "unlink", killed)
        patch.setattr(os, "fsync", killed)
        write_json(stack / "stack.json", {})
    (left,) = stack.iterdir()
    (stack / ".hidden.settings").touch()
    client().search_experiments()
    assert list(plan().everything()) == []
    for path in stack.iterdir():
        os.utime(path, (1, 1))
    assert [(kind, name) for kind, name, _ in plan().everything()] == [("unfinished files", left.name)]
    gc()
    assert [path.name for path in stack.iterdir()] == [".hidden.settings"]


def test_what_cannot_be_deleted_is_told(make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny().run()
    made = plan()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr("mlflow.store.artifact.local_artifact_repo.LocalArtifactRepository.delete_artifacts", refuse)
    done = collect(made)
    assert done.count == 0 and len(done.failures) == 2 and "Permission denied" in done.failures[0]


def test_a_store_that_was_never_used_has_nothing(artifacts_folder: Path) -> None:
    assert list(plan().everything()) == [] and gc() == Collected()
    assert not (artifacts_folder / "mlflow.db").exists()
