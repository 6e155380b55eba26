"""Versions made without training: registered once and whole, with what they were made from; mistakes are one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from prorec.tasks.execution.events import Notice, listening
from prorec.tasks.local import paths
from prorec.tasks.registry import bundles, items, models, promotion, recommenders
from prorec.tasks.registry.changes import LOOKED_AT, Change
from prorec.tasks.registry.items import How, Outcome, update
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.upkeep.retention import take_inventory
from prorec_core.errors import UserError
from prorec_core.registry import ENCODERS
from tests.bundles import IDS, items_file, write_bundle
from tests.tasks.registry.test_promotion import MIXED, NAME, make_version

CHAMPION = f"models:/{NAME}@champion"
pytestmark = pytest.mark.pipeline


@pytest.fixture(autouse=True)
def tracked_here(tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow sets this variable when a version is registered.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are logged as plain files, without MLflow's description of them, which takes seconds."""

    def log(run_id: str, bundle: Path, example: list[str]) -> Any:
        del example
        experiment = client().get_run(run_id).info.experiment_id
        model = client().create_logged_model(experiment, name="generator", source_run_id=run_id)
        whole = bundle.parent / f"whole {bundle.name}"
        (whole / "artifacts").mkdir(parents=True)
        bundle.rename(whole / "artifacts" / "bundle")
        client().log_model_artifacts(model.model_id, str(whole))
        client().finalize_logged_model(model.model_id, "READY")
        return model

    monkeypatch.setattr(bundles, "_log", log)


@pytest.fixture
def base(tmp_path: Path, quick: None) -> str:
    """A champion whose bundle is whole, with an evaluation."""
    _, uri = make_version(tmp_path / "evaluated", MIXED)
    tags = {**models.named(uri).tags}
    example = write_bundle(tmp_path / "bundle")[:3]
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "train_generator")
    kept = {name: value for name, value in tags.items() if name != store.MODEL_MANIFEST_TAG}
    found = bundles.publish(NAME, run.id, tmp_path / "bundle", example, tags=kept)
    run.finish()
    client().set_registered_model_alias(NAME, "champion", "2")
    return found[store.MODEL_URI_TAG]


def change(kind: Any, file: Path, **how: Any) -> Outcome:
    return update(CHAMPION, [Change.of(kind, file)], How(**how))


def ids_file(path: Path, ids: list[str]) -> Path:
    path.write_text("\n".join(ids))
    return path


def test_items_come_and_go_and_come_back_and_the_model_says_from_what(base: str, tmp_path: Path) -> None:
    added = change("add", items_file(tmp_path / "new.parquet", ["n1", "n2"]))
    assert (added.base, added.uri, added.added) == ("prorec-demo/2", f"models:/{NAME}/3", 2)
    version = models.named(added.uri)
    assert version.tags[models.MADE_FROM_TAG] == version.tags[models.EVALUATION_OF_TAG] == "prorec-demo/2"
    assert version.tags["test.recall_at_10"] == models.named(base).tags["test.recall_at_10"]
    assert version.artifact("evaluate") == models.named(base).artifact("evaluate")
    note = client().get_model_version(NAME, "3").description
    assert "Made from prorec-demo/2 without training: items 2 added." in note and "measured of prorec-demo/2" in note
    # It takes its base's place: no worse on the same test, which is said to be its base's.
    judged = promotion.judge("prorec-demo/3")
    promotion.promote(judged, anyway=False)
    assert judged.differences["recall_at_10"]["difference"] == 0
    assert models.holder(NAME, "champion") == models.named(added.uri)
    recommender = recommenders.load(recommenders.find(CHAMPION))
    assert {"n1", "n2"} <= {item.item_id for item in recommender.recommend([IDS[:2]], 30)[0]}

    gone = change("remove", ids_file(tmp_path / "gone.txt", ["n1", IDS[5], "n1"]))
    client().set_registered_model_alias(NAME, "champion", "4")
    assert gone.withdrawn == 2 and models.named(gone.uri).tags[models.EVALUATION_OF_TAG] == "prorec-demo/2"
    recommender = recommenders.load(recommenders.find(CHAMPION))
    assert not {"n1", IDS[5]} & {item.item_id for item in recommender.recommend([IDS[:2]], 30)[0]}
    back = change("add", items_file(tmp_path / "back.parquet", ["n1", "n3"]))
    assert (back.added, back.back) == (1, 1)
    steps = items.read_json(items._folder(recommenders.find(back.uri)) / items.LINEAGE)
    assert [(step["did"], step["file"], step["from"]) for step in steps] == [
        ("add", "new.parquet", "prorec-demo/2"),
        ("remove", "gone.txt", "prorec-demo/3"),
        ("add", "back.parquet", "prorec-demo/4"),
    ]
    kept = [artifact for artifact in take_inventory(0.0).stored if artifact.ref.stage == items.NAME]
    assert len(kept) == 3 and store.verify_all()[1] == []


def test_many_files_are_one_version_and_what_is_in_is_passed_over(base: str, tmp_path: Path) -> None:
    made = [
        Change.of("add", items_file(tmp_path / "1.parquet", ["n1", "n2", IDS[0]])),
        Change.of("add", items_file(tmp_path / "2.parquet", ["n2", "n3"], width=5)),
        Change.of("remove", ids_file(tmp_path / "3.txt", ["nobody", IDS[0]])),
        Change.of("add", tmp_path / "1.parquet"),
        Change("add", items_file(tmp_path / "4.parquet", ["n4"]), "what it was before"),
    ]
    first = update(CHAMPION, made, How(strict=False))
    assert (first.added, first.withdrawn, first.uri) == (2, 1, f"models:/{NAME}/3")
    assert (
        len(first.refused) == 1
        and "2.parquet: the vectors 'text' have 5 numbers, those of the model 8" in first.refused[0]
    )
    # Whoever died before the alias moved does it again, and finds it done.
    assert update(CHAMPION, made, How(strict=False)).uri == first.uri
    client().set_registered_model_alias(NAME, "champion", "3")
    after = update(CHAMPION, made, How(strict=False))
    assert not after.changed and len(after.refused) == 1 and len(models.versions(NAME)) == 3


def test_a_file_that_changes_nothing_is_told_once_and_undoes_no_later_one(base: str, tmp_path: Path) -> None:
    there = Change.of("add", items_file(tmp_path / "there.parquet", [IDS[4]]))
    told: list[str] = []
    with listening(lambda event: told.append(event.text) if isinstance(event, Notice) else None):
        for _ in range(2):
            assert not update(CHAMPION, [there], How(strict=False)).changed
    assert len([text for text in told if "1 of 1 items are in the model already" in text]) == 1, told
    gone = Change.of("remove", ids_file(tmp_path / "gone.txt", [IDS[4]]))
    assert update(CHAMPION, [there, gone], How(strict=False)).withdrawn == 1
    client().set_registered_model_alias(NAME, "champion", "3")
    assert not update(CHAMPION, [there, gone], How(strict=False)).changed, "it came before the one that withdrew it"
    # Asked for by itself it is done.
    assert change("add", there.file).back == 1


def test_the_same_bytes_are_done_again_when_they_say_something_else_or_later(base: str, tmp_path: Path) -> None:
    def folder(*changes: Change) -> Outcome:
        done = update(CHAMPION, changes, How(strict=False))
        client().set_registered_model_alias(NAME, "champion", done.uri.rpartition("/")[2])
        return done

    table = items_file(tmp_path / "season.parquet", ["n1", "n2"])
    came = Change("add", table, Change.of("add", table).sha256, 100.0)
    assert folder(came).added == 2
    went = Change("remove", table, came.sha256, 200.0)
    assert folder(came, went).withdrawn == 2, "an items file names what is withdrawn, too"
    assert not folder(came, went).changed
    again = Change("add", tmp_path / "season.parquet", came.sha256, 300.0)
    assert folder(went, again).back == 2, "it was written again since"
    assert not folder(came, went, again).changed
    # What takes back what is said before it leaves the model as it is.
    last = Change("add", table, came.sha256, 500.0)
    number = len(models.versions(NAME))
    both = [Change("remove", table, came.sha256, 400.0), last]
    assert not folder(*both).changed and not folder(*both).changed and len(models.versions(NAME)) == number


def test_another_champion_since_keeps_its_place(base: str, tmp_path: Path) -> None:
    made = change("add", items_file(tmp_path / "new.parquet", ["n1"]))
    number, over = made.uri.removeprefix("models:/"), made.over(CHAMPION)
    assert over == "prorec-demo/2" and made.over(base) is None
    # Somebody promotes what was trained meanwhile.
    client().set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(UserError, match=r"prorec-demo/1 has become the champion, and prorec-demo/3 was"):
        promotion.judge(number, over=over)
    assert promotion.judge(number).holder == models.holder(NAME, "champion"), "who names it by itself may"
    client().set_registered_model_alias(NAME, "champion", "2")
    promotion.promote(promotion.judge(number, over=over), anyway=False)
    assert promotion.judge(number, over=over).already


def test_files_that_an_earlier_version_looked_at_are_not_looked_at_again(base: str, tmp_path: Path) -> None:
    there = Change.of("add", items_file(tmp_path / "there.parquet", [IDS[4]]))
    client().set_model_version_tag(NAME, "2", f"{LOOKED_AT}{there.sha256}", "there.parquet")
    told: list[str] = []
    with listening(lambda event: told.append(event.text) if isinstance(event, Notice) else None):
        assert not update(CHAMPION, [there], How(strict=False)).changed
    assert told == []


def test_whoever_is_stopped_registers_nothing_half_and_nothing_twice(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def stop(*_: Any, **__: Any) -> None:
        calls.append("stopped")
        raise KeyboardInterrupt

    file = items_file(tmp_path / "new.parquet", ["n1"])
    for at in ("create_logged_model", "log_model_artifact", "create_model_version"):
        with monkeypatch.context() as patch:
            patch.setattr(type(client()), at, stop)
            with pytest.raises(KeyboardInterrupt):
                change("add", file)
    assert len(calls) == 3 and len(models.versions(NAME)) == 2
    assert change("add", file).uri == change("add", file).uri == f"models:/{NAME}/3", "the alias has not moved"
    assert len(models.versions(NAME)) == 3


def test_mistakes_are_one_line_and_change_nothing(base: str, tmp_path: Path) -> None:
    twice = items_file(tmp_path / "twice.parquet", ["n1", "n1"])
    (tmp_path / "empty.txt").touch()
    bare = pl.DataFrame({"item_id": ["n1"], "title": ["t"]})
    bare.write_csv(tmp_path / "bare.csv")
    bare[:0].with_columns(categories=pl.lit("")).write_csv(tmp_path / "none.csv")
    for kind, file, message in (
        ("add", items_file(tmp_path / "there.parquet", ["n1", IDS[3]]), f"the item '{IDS[3]}' is in the model already"),
        ("add", twice, "the item 'n1' stands there more than once"),
        ("add", tmp_path / "bare.csv", "there is no column 'categories' but item_id, title"),
        ("add", tmp_path / "none.csv", "there is no column 'embedding'|the file holds no item"),
        ("add", items_file(tmp_path / "bare.parquet", ["n1"], vectors=False), "there is no column 'embedding'"),
        ("add", items_file(tmp_path / "forms.parquet", [f" {IDS[3]} "]), "in the model in another form"),
        ("add", tmp_path / "empty.txt", "a file of this kind is not read"),
        ("remove", tmp_path / "empty.txt", "the file names no item"),
        ("remove", ids_file(tmp_path / "x.txt", ["nobody"]), "the item 'nobody' is not in the model"),
        ("remove", ids_file(tmp_path / "all.txt", IDS), "no item would be left"),
    ):
        with pytest.raises(UserError, match=message) as told:
            change(kind, file)
        assert file.name in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(UserError, match="no such file"):
        Change.of("add", tmp_path / "nowhere.csv")
    written = Change("add", twice, "what it was before")
    with pytest.raises(UserError, match="changed while it was read"):
        update(CHAMPION, [Change("add", items_file(tmp_path / "w.parquet", ["n1"]), written.sha256)], How())
    assert len(models.versions(NAME)) == 2


def test_another_encoder_is_refused(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "texts", encoder="sentences")
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "train_generator")
    uri = bundles.publish(NAME, run.id, tmp_path / "texts", IDS[:3])[store.MODEL_URI_TAG]
    changes = [Change.of("add", items_file(tmp_path / "new.parquet", ["n1"], vectors=False))]
    sentences = ENCODERS.load("sentences")
    monkeypatch.setattr(sentences, "digest", classmethod(lambda *_: "1" * 64))
    with pytest.raises(UserError, match=r"'elsewhere' here is not the one .*\(111111111111, not 000000000000\)"):
        update(uri, changes, How(encoder="elsewhere"))
