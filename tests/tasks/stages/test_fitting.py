"""Open numbers: found once the data are there, in no key before, and in keys as if they had been written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prorec.tasks.execution.events import Event, Notice, listening
from prorec.tasks.execution.stage import OpenFieldError
from prorec.tasks.stages import fitting as stage
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tracking import mlflow_runs, store
from prorec_core import fitting, versions
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import BY_DATA, Experiment
from prorec_core.fitting import Size

OWN: dict[str, Any] = {"data": {"source": "tables", "path": "somewhere"}}
BEAUTY = Size(22_363, 12_101, 198_502, 14.0)
PREPROCESSED = ArtifactRef(stage="preprocess", digest="d", run_id="r", uri="/u")
UPSTREAM = {name: ArtifactRef(stage=name, digest=name, run_id="r", uri="/u") for name in STAGES}
READING = ("train_collaborative", "align", "quantize", "train_generator", "report")


@pytest.fixture(autouse=True)
def of_beauty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `preprocess` that found as many as on Amazon Beauty, in a store that need not exist."""
    kept = {"users": BEAUTY.users, "items": BEAUTY.items, "interactions": BEAUTY.interactions}
    (tmp_path / "profile.json").write_text(json.dumps({"kept": kept, "history_length": {"p90": 14.0}}))
    monkeypatch.setattr(store, "fetch", lambda _: tmp_path)
    monkeypatch.setattr(mlflow_runs, "identity", lambda: "one")


def keys(experiment: Experiment) -> dict[str, str]:
    return {name: of.key(experiment, UPSTREAM, "") for name, of in STAGES.items()}


def test_no_stage_reads_what_is_open() -> None:
    open_ = Experiment.model_validate(OWN)
    for name, of in STAGES.items():
        if name in READING:
            with pytest.raises(OpenFieldError, match=f"the stage '{name}' reads '.*', which is still open"):
                of.key(open_, UPSTREAM, "")
        else:
            of.key(open_, UPSTREAM, "")
    known = stage.fitted(open_, PREPROCESSED)
    assert keys(known) and "auto" not in json.dumps([known.model_dump()[section] for section in BY_DATA]).replace(
        '"precision": "auto"', ""
    )


def test_what_is_written_out_and_what_follows_from_the_data_are_the_same_work() -> None:
    known = stage.fitted(Experiment.model_validate(OWN), PREPROCESSED)
    written = Experiment.model_validate(OWN | {name: getattr(known, name).model_dump() for name in BY_DATA})
    some = Experiment.model_validate(OWN | {"collaborative": {"dim": known.collaborative.dim}})
    assert stage.fitted(written, PREPROCESSED) is written, "there is nothing to find"
    assert keys(known) == keys(written) == keys(stage.fitted(some, PREPROCESSED))


def test_another_rule_makes_anew_what_it_gives_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(stage.fitted(Experiment.model_validate(OWN), PREPROCESSED))
    monkeypatch.setattr(fitting, "RULE", fitting.RULE + 1)
    assert keys(stage.fitted(Experiment.model_validate(OWN), PREPROCESSED)) == before
    monkeypatch.setattr(fitting, "_codes", lambda _: 512)
    after = keys(stage.fitted(Experiment.model_validate(OWN), PREPROCESSED))
    assert {name for name in STAGES if after[name] != before[name]} == {"quantize", "report"}


def test_the_screen_is_told_in_one_line_what_it_is_and_how_to_pin_it() -> None:
    seen: list[Event] = []
    with listening(seen.append):
        stage.fitted(Experiment.model_validate(OWN), PREPROCESSED, tell=True)
        stage.fitted(Experiment(), PREPROCESSED, tell=True)
    (notice,) = seen
    assert isinstance(notice, Notice) and "\n" not in notice.text
    assert "dim 128" in notice.text and "prorec config show NAME_OR_YAML --data > FILE.yaml" in notice.text


def test_what_goes_on_from_a_model_keeps_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Base:
        def artifact(self, name: str) -> Path:
            return tmp_path / name

    then = Experiment.model_validate({"collaborative": {"dim": 32, "max_history": 10}, "quantize": {"codes": 16}})
    for name, section in {
        "train_collaborative": "collaborative",
        "align": "align",
        "train_generator": "generator",
    }.items():
        (tmp_path / name).mkdir()
        record = {section: getattr(then, section).model_dump(mode="json")}
        (tmp_path / name / "config.json").write_text(json.dumps(versions.stored(record)))
    (tmp_path / "quantize").mkdir()
    manifest = {"config": {"quantize": then.quantize.model_dump(mode="json")}}
    (tmp_path / "quantize" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(stage, "base_of", lambda experiment: Base() if experiment.start_from else None)

    anew = Experiment.model_validate(OWN)
    on = Experiment.model_validate(OWN | {"start_from": "models:/prorec-shop/1", "generator": {"max_history": 20}})
    found = stage.fitted(on, PREPROCESSED)
    assert stage.fitted(anew, PREPROCESSED).collaborative.dim == 128
    assert (found.collaborative.dim, found.collaborative.max_history, found.quantize.codes) == (32, 10, 16)
    assert (found.align.graph, found.generator.dim, found.generator.max_history) == (0.0, 64, 20)
    # How long and how fast it is trained follows from the data of today.
    assert found.align.epochs == stage.fitted(anew, PREPROCESSED).align.epochs
