"""Which versions of models have had their day: never one that serves, that something goes on from, or that is young."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Param, Run, RunData, RunInfo, RunTag

from prorec.tasks.local import paths
from prorec.tasks.registry import models, promotion
from prorec.tasks.registry.models import Version
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.upkeep import old_versions
from prorec.tasks.upkeep.collection import collect, make_plan
from prorec.tasks.upkeep.old_versions import outdated
from prorec.tasks.upkeep.retention import take_inventory
from prorec_core.errors import UserError
from tests.tasks.registry.test_promotion import NAME, make_version

NOW = 1000.0


def version(number: int, *aliases: str, name: str = "prorec-shop", created: float = 0.0, **tags: str) -> Version:
    """An evaluated one, unless `scorer` is empty; `run_id` is that of its number."""
    found = {models.SCORER_TAG: "fused", **{_TAGS.get(tag, tag): value for tag, value in tags.items()}}
    kept = {tag: value for tag, value in found.items() if value}
    return Version(name, number, f"models:/m-{number}", f"stage-{name}-{number}", created, aliases, kept)


_TAGS = {
    "scorer": models.SCORER_TAG,
    "started_from": models.STARTED_FROM_TAG,
    "made_from": models.MADE_FROM_TAG,
    "over": promotion.OVER_TAG,
}


def run(
    run_id: str, ended: float = 0.0, *, parent: str = "", active: bool = False, params: Mapping[str, str] | None = None,
    **tags: str
) -> Run:  # fmt: skip
    status = "RUNNING" if active else "FINISHED"
    info = RunInfo(run_id, "0", "nobody", status, 0, None if active else int(ended * 1000), "active", "", "run")
    named = {mlflow_runs.PARENT_TAG: parent, **tags}
    data = RunData(
        params=[Param(name, value) for name, value in (params or {}).items()],
        tags=[RunTag(name, value) for name, value in named.items() if value],
    )
    return Run(info, data)


def numbers(versions: list[Version], runs: list[Run], keep: int) -> list[int]:
    return sorted(each.number for each in outdated(versions, runs, keep, NOW))


def test_the_newest_of_each_model_stay() -> None:
    here = [version(number) for number in (1, 2, 10)]
    other = [version(number, name="prorec-other") for number in (1, 2)]
    assert [each.title for each in outdated([*here, *other], [], 1, NOW)] == [
        "prorec-shop/1",
        "prorec-shop/2",
        "prorec-other/1",
    ]
    assert outdated([*here, *other], [], 3, NOW) == []


def test_nights_that_failed_push_out_nothing() -> None:
    assert numbers([version(1), version(2), *(version(n, scorer="") for n in range(3, 9))], [], 2) == [*range(3, 9)]


def test_versions_made_without_training_are_counted_on_their_own() -> None:
    made = [version(number, made_from="prorec-shop/2") for number in range(3, 9)]
    assert numbers([version(1), version(2), *made], [], 2) == [3, 4, 5, 6]


def test_one_that_has_an_alias_stays_with_the_way_back_and_its_line() -> None:
    versions = [
        version(1),
        version(2, started_from="models:/prorec-shop/1"),
        version(3, started_from="models:/prorec-shop/2"),
        version(4),
        version(5, over="prorec-shop/4"),
        version(6, "champion", over="prorec-shop/5", started_from="models:/prorec-shop/3"),
        version(7),
        version(8, over="prorec-shop/7"),
    ]
    assert numbers(versions, [], 1) == [4, 7]


def test_what_a_run_names_stays_while_it_goes_on_or_is_young() -> None:
    versions = [version(number) for number in range(1, 9)]
    runs = [
        run("a", active=True, params={"start_from": "models:/prorec-shop/1"}),
        run("b", NOW, **{models.MODEL_OF_RUN_TAG: "models:/prorec-shop/2"}),
        run("c", NOW - 1, **{models.MODEL_OF_RUN_TAG: "models:/prorec-shop/3"}),
        # Registered by a stage that has ended, of an experiment that goes on.
        run("d", active=True),
        run("stage-prorec-shop-4", parent="d"),
    ]
    assert numbers(versions, runs, 1) == [3, 5, 6, 7]
    assert numbers([version(1, created=NOW), version(2, created=NOW - 1), version(3)], [], 1) == [2]


def test_one_that_a_run_has_from_the_cache_stays() -> None:
    versions = [version(number) for number in range(1, 5)]
    runs = [
        # They name the stage's run alone; of the second the equal version was made by another one.
        run("a", active=True, **{models.run_tag("train_generator"): "stage-prorec-shop-1"}),
        run("b", NOW, **{models.run_tag("train_generator"): "again"}),
        run("again", **{store.MODEL_URI_TAG: "models:/prorec-shop/2"}),
    ]
    assert numbers(versions, runs, 1) == [3]


def test_those_of_comparisons_go_by_age_alone() -> None:
    versions = [version(1), version(2), version(3), version(4, created=NOW), version(5)]
    runs = [
        run("variant", **{mlflow_runs.VARIANT_TAG: "tiger"}),
        *(run(f"stage-prorec-shop-{number}", parent="variant") for number in (2, 3, 4, 5)),
        # An experiment found this one in the cache: it is its model.
        run("own", **{models.MODEL_OF_RUN_TAG: "models:/prorec-shop/5"}),
    ]
    assert numbers(versions, runs, 2) == [2, 3]
    # Whether its runs are still there or not.
    marked = version(6, **{mlflow_runs.VARIANT_TAG: "tiger"})
    assert numbers([version(1), version(2), marked], [], 2) == [6]


@given(st.data())
def test_no_kept_version_lacks_what_it_went_on_from(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    keep = data.draw(st.integers(1, 4))
    versions = []
    for number in range(1, count + 1):
        before = data.draw(st.integers(0, number - 1))
        over = data.draw(st.integers(0, count))
        aliases = ["champion"] if data.draw(st.integers(0, 5)) == 0 else []
        versions.append(
            version(
                number,
                *aliases,
                scorer=data.draw(st.sampled_from(["fused", ""])),
                made_from=data.draw(st.sampled_from(["prorec-shop/1", ""])),
                started_from=f"models:/prorec-shop/{before}" if before else "",
                over=f"prorec-shop/{over}" if over else "nothing",
            )
        )
    gone = {each.title for each in outdated(versions, [], keep, NOW)}
    kept = {each.title for each in versions} - gone
    for each in versions:
        if each.title in kept:
            assert each.tags.get(models.STARTED_FROM_TAG, "").removeprefix("models:/") not in gone
        else:
            assert not each.aliases
    trained = [each for each in versions if models.SCORER_TAG in each.tags and models.MADE_FROM_TAG not in each.tags]
    assert not gone & {each.title for each in trained[-keep:]}
    # Once they are gone, nothing more is.
    assert outdated([each for each in versions if each.title in kept], [], keep, NOW) == []


@pytest.fixture
def tracked_here(tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())


def write_list(name: str, model: str, *, here: bool = True) -> Path:
    """A file of recommendations; with the run that wrote it, unless that is another store's."""
    path = paths.artifacts() / "recommendations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"rows")
    if here:
        written = TrackedRun.start(mlflow_runs.experiment_id("demo"), "recommend")
        written.parameters({"model": model, "output": str(path)})
        written.finish()
    return path


@pytest.mark.usefixtures("tracked_here")
def test_a_version_goes_with_all_that_it_alone_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_version(tmp_path / str(number), [number] * 20)
    folders = {each.number: Path(store_of(each)) for each in models.versions(NAME)}
    lists = {
        write_list(f"{NAME}-1.parquet", f"models:/{NAME}/1"): False,
        write_list(f"{NAME}-2.parquet", f"models:/{NAME}/2"): True,
        # Under a name that somebody gave it, by nobody who is known here, and of a version that never was.
        write_list("best-1.parquet", f"models:/{NAME}/1"): True,
        write_list(f"{NAME}-7.parquet", f"models:/{NAME}/7", here=False): True,
        write_list(f"{NAME}-8.parquet", f"models:/{NAME}/1"): True,
    }
    assert list(make_plan(take_inventory(0), 0).everything()) == [], "by default all versions stay"
    assert list(make_plan(take_inventory(1, 2), 1).everything()) == [], "so do all that are young"

    plan = make_plan(take_inventory(0, 2), 0)
    kinds = [kind for kind, _, _ in plan.everything()]
    assert kinds == [
        "versions of models",
        *(f"artifacts of {stage}" for stage in ("evaluate", "train_generator", "preprocess")),
        "models without a version",
        "recommendations of versions that are gone",
    ]
    done = collect(plan)
    assert (done.count, done.spared, done.failures) == (len(kinds), 0, [])
    assert [each.number for each in models.versions(NAME)] == [3, 2]
    assert {number: folder.exists() for number, folder in folders.items()} == {1: False, 2: True, 3: True}
    assert {path: path.exists() for path in lists} == lists
    assert store.verify_all()[1] == []
    assert list(make_plan(take_inventory(0, 2), 0).everything()) == []
    # A number is given once, the last one too.
    client().delete_model_version(NAME, "3")
    assert make_version(tmp_path / "4", [4] * 20)[1] == f"models:/{NAME}/4"


def store_of(found: Version) -> str:
    return str(client().get_logged_model(found.model_id).artifact_location)


@pytest.mark.usefixtures("tracked_here")
def test_one_that_came_into_use_since_stays_whole(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_version(tmp_path / str(number), [number] * 20)
    plan = make_plan(take_inventory(0, 1), 0)
    assert [each.number for each in plan.inventory.outdated] == [2, 1]
    promotion.promote(promotion.judge(f"{NAME}/2"), anyway=False)
    done = collect(plan)
    assert [each.number for each in models.versions(NAME)] == [3, 2] and done.failures == []
    # With it stay its three artifacts and its model.
    assert done.spared == 5
    promoted = promotion.judge(f"{NAME}/2").challenger
    assert json.loads((store.fetch(promoted.evaluation) / "metrics.json").read_text())["recommended"] == "fused"
    assert store.verify_all()[1] == []


@pytest.mark.usefixtures("tracked_here")
def test_what_comes_into_use_while_others_are_deleted_stays_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(tmp_path / "1", [1] * 20)
    make_version(tmp_path / "2", [2] * 20, start_from=f"models:/{NAME}/1")
    make_version(tmp_path / "3", [3] * 20)
    make_version(tmp_path / "4", [4] * 20)
    plan = make_plan(take_inventory(0, 1), 0)
    alone = promotion.alone

    @contextmanager
    def after_a_promotion(name: str) -> Iterator[None]:
        with alone(name):
            yield
        client().set_registered_model_alias(NAME, "champion", "2")

    monkeypatch.setattr(promotion, "alone", after_a_promotion)
    assert [each.number for each in plan.inventory.outdated] == [3, 2, 1]
    collect(plan)
    assert [each.number for each in models.versions(NAME)] == [4, 2, 1]


@pytest.mark.usefixtures("tracked_here")
def test_one_of_a_comparison_that_is_gone_on_from_keeps_what_it_was_made_of(tmp_path: Path) -> None:
    make_version(tmp_path / "1", [1] * 20)
    made = models.find(NAME, "1")
    assert made is not None
    above = made.tags[models.RUN_TAG]
    client().set_tag(above, mlflow_runs.VARIANT_TAG, "tiger")
    client().delete_tag(above, models.MODEL_OF_RUN_TAG)
    going_on = TrackedRun.start(mlflow_runs.experiment_id("demo"), "goes on")
    going_on.parameters({"start_from": made.uri})
    assert collect(make_plan(take_inventory(0, 1), 0)).count == 0
    going_on.finish()
    make_version(tmp_path / "2", [2] * 20, start_from=made.uri)
    collect(make_plan(take_inventory(0, 1), 0))
    for stage in ("preprocess", "train_generator"):
        kept = made.artifact(stage)
        assert kept is not None and store.check(kept) == []


@pytest.mark.usefixtures("tracked_here")
def test_one_that_was_deleted_meanwhile_is_not_promoted(tmp_path: Path) -> None:
    for number in (1, 2):
        make_version(tmp_path / str(number), [number] * 20)
    judged = promotion.judge(f"{NAME}/1")
    collect(make_plan(take_inventory(0, 1), 0))
    with pytest.raises(UserError, match=rf"{NAME}/1: it was deleted meanwhile\. Known: {NAME}/2"):
        promotion.promote(judged, anyway=True)


@pytest.mark.usefixtures("tracked_here")
def test_a_deletion_whose_answer_was_lost_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        make_version(tmp_path / str(number), [number] * 20)
    plan = make_plan(take_inventory(0, 1), 0)

    def asked_twice(call: Callable[..., None], *words: str) -> None:
        call(*words)
        call(*words)

    monkeypatch.setattr(old_versions, "retrying", asked_twice)
    done = collect(plan)
    assert (done.failures, done.spared) == ([], 0) and [each.number for each in models.versions(NAME)] == [2]


@pytest.mark.usefixtures("tracked_here")
def test_after_a_kill_the_next_one_does_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        make_version(tmp_path / str(number), [number] * 20)
    plan = make_plan(take_inventory(0, 1), 0)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("prorec.tasks.upkeep.collection._mark", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(plan)
    assert [each.number for each in models.versions(NAME)] == [2]
    assert collect(make_plan(take_inventory(0), 0)).count == 4
    assert store.verify_all()[1] == []
