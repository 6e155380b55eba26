"""One stage's life: cached when nothing changed, made again when the stored artifact is not whole."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.orchestration import get_client

from prorec.tasks.execution import needs
from prorec.tasks.execution.events import Event, Notice, StageProgress, StageStoppedError, listening
from prorec.tasks.execution.needs import Part
from prorec.tasks.execution.runner import _may_pass, _of_the_epoch_kept, _task
from prorec.tasks.execution.stage import Work
from prorec.tasks.local import paths
from prorec.tasks.local.memory import Room
from prorec.tasks.tracking import leases, mlflow_runs, store
from prorec.tasks.tracking.leases import lease
from prorec.tasks.tracking.mlflow_runs import client
from prorec_core.artifacts import ArtifactRef, Manifest, read_json, verify, write_json
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.progress import Progress

MakeTiny = Callable[..., Any]


def _notices(pipeline: Any) -> list[str]:
    return [event.text for event in pipeline.events if isinstance(event, Notice)]


def test_pages_say_what_was_read_and_written(make_tiny: MakeTiny) -> None:
    refs = make_tiny().run()
    tags = client().get_run(refs["train_collaborative"].run_id).data.tags
    page = tags["mlflow.note.content"]
    read, experiment = refs["preprocess"], client().get_run(refs["preprocess"].run_id).info.experiment_id
    at = f"#/experiments/{experiment}/runs"
    view = "?workflowType=machine_learning"
    assert f"| preprocess | `{read.digest[:12]}` | [{read.run_id[:8]}]({at}/{read.run_id}{view}) |" in page
    own = f"{at}/{refs['train_collaborative'].run_id}"
    assert f"| [doubled.txt]({own}/artifacts/artifact/doubled.txt{view}) | 2 bytes |" in page
    assert f"[the whole run]({at}/{tags['mlflow.parentRunId']}{view})" in page
    for kind, run in (("flow", tags["prefect.flow_run_id"]), ("task", tags["prefect.task_run_id"])):
        assert f"/runs/{kind}-run/{run})" in page


def test_pages_of_a_run_without_servers_have_no_dead_links(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(paths.EMBEDDED_VARIABLE, "1")
    tags = client().get_run(make_tiny().run()["preprocess"].run_id).data.tags
    page = tags["mlflow.note.content"]
    assert f"flow run `{tags['prefect.flow_run_id']}`" in page and "prefect server start" in page
    assert "http" not in page


def test_second_run_is_cached_and_equal(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    assert pipeline.cached == {"preprocess": False, "train_collaborative": False}
    assert pipeline.run() == first
    assert pipeline.cached == {"preprocess": True, "train_collaborative": True}
    assert store.verify_all() == (2, [])


def test_a_changed_seed_runs_only_what_reads_it(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    pipeline.run()
    pipeline.run(Experiment(seed=1))
    assert pipeline.cached == {"preprocess": True, "train_collaborative": False}
    pipeline.run(Experiment(device="cpu"))
    assert pipeline.cached == {"preprocess": True, "train_collaborative": True}


def test_forced_stage_runs_and_equal_bytes_keep_the_rest_cached(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    again = pipeline.run(force="preprocess")
    assert pipeline.cached == {"preprocess": False, "train_collaborative": True}
    assert again["preprocess"].digest == first["preprocess"].digest
    assert again["preprocess"].run_id != first["preprocess"].run_id


@pytest.mark.parametrize(
    ("epochs", "found"),
    [
        ([0.1, 0.3, 0.2], {"best_validation_ndcg_at_10": 0.3, "best_epoch": 2}),
        ([0.1, 0.2, 0.2, 0.1], {"best_validation_ndcg_at_10": 0.2, "best_epoch": 3}),
        ([None, None], {}),
        (None, {}),
    ],
)
def test_the_epoch_kept_is_told(tmp_path: Path, epochs: list[float | None] | None, found: dict[str, float]) -> None:
    """As a training keeps it: of equal ones the last; nothing where nothing is held back, or nothing was trained."""
    if epochs is not None:
        records = [
            {"epoch": number, **({} if value is None else {"validation_ndcg_at_10": value})}
            for number, value in enumerate(epochs, start=1)
        ]
        write_json(tmp_path / "training.json", {"epochs": records})
    assert _of_the_epoch_kept(tmp_path) == found


def test_what_mlflow_holds(make_tiny: MakeTiny) -> None:
    ref = make_tiny().run()["train_collaborative"]
    run = client().get_run(ref.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["collaborative.dim"] == "64" and run.data.params["seed"] == "0"
    assert run.data.metrics["seconds"] >= 0
    assert run.data.tags["mlflow.parentRunId"]
    assert run.data.tags["prefect.flow_run_id"] and run.data.tags["prefect.task_run_id"]
    assert run.data.tags[store.DIGEST_TAG] == ref.digest
    manifest = Manifest.model_validate(read_json(store.fetch(ref) / "manifest.json"))
    assert manifest.digest == ref.digest and set(manifest.upstream) == {"preprocess"}


@pytest.mark.parametrize("damage", ["flip", "manifest", "run", "everything"])
def test_a_damaged_artifact_is_made_again_and_the_reason_named(make_tiny: MakeTiny, damage: str) -> None:
    pipeline = make_tiny()
    ref = pipeline.run()["preprocess"]
    folder = store.fetch(ref)
    match damage:
        case "flip":
            (folder / "seed.txt").write_bytes(b"1")
            named = str(folder / "seed.txt")
        case "manifest":
            path = folder / "manifest.json"
            path.write_text(path.read_text().replace('"git_commit"', '"git_commit" '))
            named = str(path)
        case "run":
            client().delete_run(ref.run_id)
            named = ref.run_id
        case _:
            shutil.rmtree(folder)
            named = str(folder)
    if damage != "run":
        looked_at, problems = store.verify_all()
        assert looked_at == 2 and len(problems) == 1 and named in problems[0]
    again = pipeline.run()
    assert pipeline.cached == {"preprocess": False, "train_collaborative": True}
    assert again["preprocess"].digest == ref.digest
    assert [named in text for text in _notices(pipeline)] == [True]
    assert store.verify_all()[1] == []


@pytest.mark.parametrize("content", ["{", '{"metadata": {}, "result": "x"}', None])
def test_a_reference_that_is_lost_is_found_by_its_key(make_tiny: MakeTiny, content: str | None) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    for path in paths.references().iterdir():
        path.write_text(content) if content else path.unlink()
    assert pipeline.run() == first
    assert pipeline.cached == {"preprocess": True, "train_collaborative": True}
    assert len(list(paths.references().iterdir())) == 2
    assert _notices(pipeline) == []


def test_another_machine_finds_what_is_stored(
    make_tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())
    monkeypatch.setenv("PROREC_ARTIFACTS", str(tmp_path / "another"))
    assert pipeline.run() == first
    assert pipeline.cached == {"preprocess": True, "train_collaborative": True}
    # What was forced is made again, and what was found damaged is not found again.
    forced = pipeline.run(force="preprocess")["preprocess"]
    assert pipeline.cached == {"preprocess": False, "train_collaborative": True} and forced != first["preprocess"]
    (store.fetch(forced) / "seed.txt").write_text("damaged")
    shutil.rmtree(paths.references())
    again = pipeline.run()["preprocess"]
    assert [str(store.fetch(again).parent.name) in text for text in _notices(pipeline)] == [True]
    shutil.rmtree(paths.references())
    assert pipeline.run()["preprocess"] == again


def test_a_cached_reference_that_is_none_of_ours_is_refused(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    pipeline.run()
    for path in paths.references().iterdir():
        record = read_json(path)
        record["result"] = '{"stage": "preprocess", "digest": 3}'
        write_json(path, record)
    pipeline.run()
    assert pipeline.cached == {"preprocess": False, "train_collaborative": False}
    assert all("cannot be read" in text for text in _notices(pipeline))


def _reference(ref: ArtifactRef) -> Path:
    (found,) = [path for path in paths.references().iterdir() if ref.run_id in path.read_text()]
    return found


@pytest.mark.parametrize("damage", ["another's", "digest", "uri"])
def test_a_cached_reference_to_another_artifact_is_refused_and_that_artifact_stays(
    make_tiny: MakeTiny, damage: str
) -> None:
    pipeline = make_tiny()
    first, other = pipeline.run()["train_collaborative"], pipeline.run(Experiment(seed=1))["train_collaborative"]
    path = _reference(first)
    if damage == "another's":
        path.write_bytes(_reference(other).read_bytes())
    else:
        wrong = {"digest": "0" * 64, "uri": other.uri}[damage]
        path.write_text(path.read_text().replace(getattr(first, damage), wrong))
    again = pipeline.run()["train_collaborative"]
    assert again.digest == first.digest and again.run_id != first.run_id
    assert ["another artifact's" in text for text in _notices(pipeline)] == [True]
    assert pipeline.run(Experiment(seed=1))["train_collaborative"] == other
    assert store.verify_all()[0] == 4, "none was marked as replaced"


def test_nothing_is_pickled(make_tiny: MakeTiny) -> None:
    make_tiny().run()
    for path in paths.references().iterdir():
        record = read_json(path)
        assert record["metadata"]["serializer"]["type"] == "json"
        assert "store" in record["result"]


def test_a_mistake_is_told_and_not_tried_again(make_tiny: MakeTiny) -> None:
    tries: list[int] = []

    def wrong(_: Work) -> None:
        tries.append(1)
        raise UserError("no such column", place="items.parquet") from ConnectionError()

    pipeline = make_tiny(second=wrong)
    with pytest.raises(UserError, match="no such column"):
        pipeline.run()
    with pytest.raises(UserError, match="no such column"):
        pipeline.run()
    assert len(tries) == 2, "a failure must not be cached"
    experiment = client().get_experiment_by_name("prorec-demo").experiment_id
    stages = {run.data.tags.get("prorec.stage"): run for run in client().search_runs([experiment])}
    assert stages["train_collaborative"].info.status == "FAILED" and stages["preprocess"].info.status == "FINISHED"
    tags = stages["train_collaborative"].data.tags
    assert tags["prorec.failure"] == "items.parquet: no such column."
    assert "**failed.** items.parquet: no such column." in tags["mlflow.note.content"]
    assert f"prorec rerun {tags['prefect.flow_run_id']}" in tags["mlflow.note.content"]
    with get_client(sync_client=True) as prefect:
        state = prefect.read_task_run(UUID(tags["prefect.task_run_id"])).state
    assert state is not None and state.is_failed() and state.message == "items.parquet: no such column."
    assert list((paths.artifacts() / "work").iterdir()) == []


def test_a_device_that_goes_away_is_told_and_the_training_goes_on_from_its_checkpoint(make_tiny: MakeTiny) -> None:
    tries: list[list[str]] = []

    def training(work: Work) -> None:
        work.checkpoints.mkdir(parents=True, exist_ok=True)
        tries.append([path.name for path in work.checkpoints.iterdir()])
        (work.checkpoints / "epoch-1").write_text("state")
        if len(tries) == 1:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nSearch for it.")
        (work.folder / "model.txt").write_text("trained")

    pipeline = make_tiny(second=training)
    with pytest.raises(UserError) as found:
        pipeline.run()
    told = str(found.value)
    assert told.startswith("train_collaborative: the device failed (CUDA error: an illegal memory access")
    assert "\n" not in told and len(tries) == 1, "the process cannot use the device any more"
    assert "train_collaborative" in pipeline.run()
    assert tries == [[], ["epoch-1"]]


def test_a_stage_that_a_listener_stops_leaves_nothing_and_says_why(make_tiny: MakeTiny) -> None:
    def training(work: Work) -> None:
        work.checkpoints.mkdir(parents=True, exist_ok=True)
        for epoch in (1, 2, 3):
            (work.checkpoints / "state.txt").write_text(str(epoch))
            work.report(Progress(epoch, 3, "epoch", {"loss": 1.0 / epoch}))
        (work.folder / "model.txt").write_text("trained")

    def stop(event: Event) -> None:
        if isinstance(event, StageProgress) and event.progress.step == 2:
            raise StageStoppedError("pruned after epoch 2")

    pipeline = make_tiny(second=training)
    with listening(stop), pytest.raises(StageStoppedError, match="pruned after epoch 2"):
        pipeline.run()
    experiment = client().get_experiment_by_name("prorec-demo").experiment_id
    run = {run.data.tags.get("prorec.stage"): run for run in client().search_runs([experiment])}["train_collaborative"]
    assert run.info.status == "KILLED" and run.data.tags["prorec.failure"] == "pruned after epoch 2"
    assert run.data.metrics == {"loss": 0.5} and client().list_artifacts(run.info.run_id) == []
    with get_client(sync_client=True) as prefect:
        state = prefect.read_task_run(UUID(run.data.tags["prefect.task_run_id"])).state
    assert state is not None and state.is_failed() and state.message == "pruned after epoch 2"
    for folder in ("work", "checkpoints"):
        assert list((paths.artifacts() / folder).iterdir()) == []
    assert pipeline.run().keys() == {"preprocess", "train_collaborative"}, "what was stopped is no result"


def test_a_store_that_was_away_for_a_moment_is_tried_again(make_tiny: MakeTiny) -> None:
    tries: list[int] = []

    def away(work: Work) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("away")
        (work.folder / "done.txt").touch()

    pipeline = make_tiny(second=away)
    _task(pipeline.stages[1]).retry_delay_seconds = [0, 0]
    ref = pipeline.run()["train_collaborative"]
    runs = mlflow_runs.search("tags.`prorec.stage` = 'train_collaborative'", order_by=["attributes.start_time"])
    assert [run.info.status for run in runs] == ["FAILED", "FAILED", "FINISHED"]
    assert pipeline.run()["train_collaborative"] == ref and len(tries) == 3


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionError("away"), True),
        (TimeoutError("late"), True),
        (RuntimeError("shape mismatch"), False),
        (FileNotFoundError("gone"), False),
        (UserError("wrong"), False),
    ],
)
def test_only_passing_errors_are_tried_again(error: Exception, again: bool) -> None:
    from prefect.states import Failed

    state = Failed(data=error, message="failed")
    assert _may_pass(None, None, state) is again  # type: ignore[arg-type]


def test_epochs_before_a_crash_are_logged_too(make_tiny: MakeTiny) -> None:
    def resumed(work: Work) -> None:
        for epoch in (3, 4):
            work.report(Progress(epoch, 4, "epoch", {"loss": 1.0 / epoch}))
        write_json(
            work.folder / "training.json", {"epochs": [{"epoch": e, "loss": 1.0 / e, "lr": 0.1} for e in range(1, 5)]}
        )

    ref = make_tiny(second=resumed).run()["train_collaborative"]
    for name in ("loss", "lr"):
        history = sorted(client().get_metric_history(ref.run_id, name), key=lambda metric: metric.step)
        assert [metric.step for metric in history] == [1, 2, 3, 4]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_as_ref_takes_references_only(value: object) -> None:
    with pytest.raises(ValueError):
        store.as_ref(value, "align")


@given(st.text(), st.text(), st.text())
def test_as_ref_takes_a_reference_as_plain_values(digest: str, run_id: str, uri: str) -> None:
    ref = ArtifactRef(stage="align", digest=digest, run_id=run_id, uri=uri)
    assert store.as_ref(ref.model_dump(), "align") == store.as_ref(ref, "align") == ref
    with pytest.raises(ValueError, match="align"):
        store.as_ref(ref, "quantize")


def test_artifacts_on_this_machine_are_used_in_place(make_tiny: MakeTiny) -> None:
    ref = make_tiny().run()["preprocess"]
    folder = store.fetch(ref)
    assert folder == Path(ref.uri) and verify(folder) == []
    (folder / "seed.txt").unlink()
    with pytest.raises(UserError, match=r"seed\.txt"):
        store.fetch(ref)


def test_what_the_data_have_to_say_is_told_also_from_the_cache(make_tiny: MakeTiny) -> None:
    def remarkable(work: Work) -> None:
        profile = {"warnings": ["half of it is odd"], "kept": {"users": 4}}
        write_json(work.folder / "profile.json", {**profile, "targets_in_history": {"validation": 0, "test": 1}})

    pipeline = make_tiny(remarkable, lambda work: None)
    for cached in (False, True):
        pipeline.run()
        assert pipeline.cached["preprocess"] is cached
        odd, unreachable = _notices(pipeline)
        assert odd == "preprocess: half of it is odd"
        assert "25.0% of the test targets (1 of 4)" in unreachable and "evaluate.mask_history=false" in unreachable
    pipeline.run(Experiment.model_validate({"evaluate": {"mask_history": False}}))
    assert _notices(pipeline) == ["preprocess: half of it is odd"], "then all can be reached"


def test_the_peak_of_memory_is_the_stages_own(make_tiny: MakeTiny) -> None:
    def much(work: Work) -> None:
        np.ones(300 * 2**20 // 8).sum()
        (work.folder / "seed.txt").write_text("1")

    refs = make_tiny(first=much).run()
    first, second = (client().get_run(ref.run_id).data.metrics for ref in refs.values())
    if "peak_memory_mib" not in first:
        pytest.skip("what a stage took cannot be told here")
    assert 200 < first["peak_memory_mib"] - second["peak_memory_mib"] < 400


def test_what_cannot_fit_is_refused_before_the_work_and_what_is_close_is_told(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "room", lambda: Room(available=2**30, total=2**32))
    pipeline, began = make_tiny(), list[str]()

    def needing(size: int) -> Any:
        def body(work: Work) -> None:
            began.append(work.folder.name)
            (work.folder / "doubled.txt").write_text("")

        part = Part("item vectors", size, "a smaller collaborative.dim", certain=True)
        return replace(pipeline.stages[1], body=body, memory=lambda experiment, inputs: [part] if inputs else [])

    first = pipeline.stages[0]
    pipeline.stages = (first, needing(2**33))
    with pytest.raises(UserError, match=r"train_collaborative: it needs at least 8.0 GiB .* smaller collaborative.dim"):
        pipeline.run()
    assert not began
    pipeline.stages = (first, needing(2**31))
    refs = pipeline.run()
    told = [text for text in _notices(pipeline) if text.startswith("train_collaborative: it needs about 2.0 GiB")]
    assert len(began) == len(told) == 1
    # The estimate decides nothing: what was made stays what it is, and is not told again.
    pipeline.stages = (first, needing(2**33))
    assert pipeline.run() == refs and not _notices(pipeline)


def test_who_comes_second_waits_and_says_for_whom(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    key = pipeline.stages[0].key(Experiment(), {}, "")
    held, waited = threading.Event(), threading.Event()

    def another() -> None:
        with lease(key, lambda who, seconds: None):
            held.set()
            waited.wait(60)

    other = threading.Thread(target=another)
    other.start()
    held.wait(60)

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            waited.set()

    with listening(hear):
        pipeline.run()
    other.join()
    assert waited.is_set() and pipeline.cached == {"preprocess": False, "train_collaborative": False}
    (told,) = _notices(pipeline)
    assert re.fullmatch(
        rf"preprocess: another run is making this artifact; waiting for it \(process {os.getpid()} on .*, "
        r"at work on it for \d\.\d s\)",
        told,
    )


def test_what_one_left_who_died_after_storing_is_removed_unless_another_needs_it(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    refs = pipeline.run()
    key = pipeline.stages[1].key(Experiment(), {"preprocess": refs["preprocess"]}, "")
    left = [paths.work(key), paths.checkpoints(key)]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "part").touch()
        os.utime(folder / "part", (0, 0))
    with lease(key, lambda who, seconds: None):
        pipeline.run()
        assert pipeline.cached["train_collaborative"] and all((folder / "part").exists() for folder in left)
    pipeline.run()
    assert pipeline.cached["train_collaborative"] and not any(folder.exists() for folder in left)


def test_a_training_that_was_begun_anew_and_killed_keeps_its_checkpoints(make_tiny: MakeTiny) -> None:
    pipeline = make_tiny()
    refs = pipeline.run()
    key = pipeline.stages[1].key(Experiment(), {"preprocess": refs["preprocess"]}, "")
    paths.checkpoints(key).mkdir(parents=True)
    later = time.time() + 60
    (paths.checkpoints(key) / "epoch").touch()
    os.utime(paths.checkpoints(key) / "epoch", (later, later))
    pipeline.run()
    assert pipeline.cached["train_collaborative"] and (paths.checkpoints(key) / "epoch").exists()


def test_what_was_made_meanwhile_is_taken(make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_tiny()
    first = pipeline.run()
    shutil.rmtree(paths.references())
    all_of, asked = store.find_all, list[str]()

    def late(key: str) -> list[ArtifactRef]:
        asked.append(key)
        return all_of(key) if asked.count(key) > 1 else []

    monkeypatch.setattr(store, "find_all", late)
    assert pipeline.run() == first
    assert pipeline.cached == {"preprocess": True, "train_collaborative": True}
    assert set(map(asked.count, asked)) == {2}


def test_whoever_was_taken_for_dead_stops_and_takes_what_the_other_made(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def slow(work: Work) -> None:
        ran.append(work.run.id)
        (work.folder / "seed.txt").write_text("0")
        (work.folder / "below").mkdir()
        if len(ran) == 1:
            for epoch in range(1, 200):
                # Again and again: its owner may be writing it just when it is dropped.
                for tag in leases._tags():
                    client().delete_experiment_tag(mlflow_runs.store_experiment(), tag)
                time.sleep(0.05)
                work.report(Progress(epoch, 200, "epoch"))

    monkeypatch.setenv(leases.EXPIRY_VARIABLE, "1")
    pipeline = make_tiny(slow)
    pipeline.run()
    assert len(ran) == 2 and client().get_run(ran[0]).info.status == "KILLED"
    assert ["gave no sign of life for 1.0 s" in text for text in _notices(pipeline)] == [True]
