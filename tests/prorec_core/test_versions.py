"""What is stored keeps its meaning: each version's fields lead to today's, step by step, and nothing is made up."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from prorec_core import versions
from prorec_core.config import CollaborativeConfig, Experiment, GeneratorConfig
from prorec_core.errors import UserError
from prorec_core.generation.trained import TrainedGenerator
from prorec_core.sections import Added, Renamed, Section
from prorec_core.versions import up_to_date, whole
from tests.kept.keep import fields

KEPT = Path(__file__).resolve().parents[1] / "kept"
NEWEST = versions.VERSION


def kept(version: int, name: str) -> Any:
    return json.loads((KEPT / str(version) / name).read_text())


def nested(names: Iterable[str]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name in names:
        *above, last = name.split(".")
        section = record
        for part in above:
            section = section.setdefault(part, {})
        section[last] = None
    return record


def leaves(record: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in record.items():
        yield from leaves(value, f"{above}{name}.") if isinstance(value, dict) else (f"{above}{name}",)


def test_a_field_that_was_added_or_renamed_is_declared() -> None:
    assert (KEPT / str(NEWEST)).is_dir(), f"keep version {NEWEST}: tests/kept/keep.py says how"
    known, now = set(kept(NEWEST, "fields.json")), set(fields(Experiment))
    assert now == known, (
        f"version {NEWEST} of what is stored has not {sorted(now - known)} but {sorted(known - now)}. Say in "
        "CHANGES of prorec_core/config_changes.py, in a tuple of its own, what was done before each came to be or how "
        "it was named; then keep the new version (tests/kept/keep.py), so that it has a folder there."
    )


@pytest.mark.parametrize("version", range(NEWEST + 1))
def test_the_fields_of_each_version_lead_to_those_of_today(version: int) -> None:
    record = {versions.KEY: version, **nested(kept(version, "fields.json"))}
    assert set(leaves(up_to_date(record, "here"))) == set(fields(Experiment))


@pytest.mark.parametrize("version", range(NEWEST + 1))
def test_an_experiment_of_each_version_is_whole(version: int) -> None:
    record = kept(version, "experiment.json")
    before = copy.deepcopy(record)
    found = whole(Experiment, up_to_date(record, "here"), "here")
    assert record == before
    assert (found.name, found.data.new_items, found.generator.dim) == ("kept", 0.1, 8)
    # What was read before there was a choice is read so again, whatever the defaults are by now.
    then = ("apart", True) if version == 0 else ("error", False)
    assert (found.data.similar_ids, found.data.multiline) == then


def test_what_is_written_now_comes_back_as_it_was() -> None:
    written = json.loads(json.dumps(versions.stored(Experiment().model_dump(mode="json"))))
    assert written[versions.KEY] == NEWEST
    assert whole(Experiment, up_to_date(written, "here"), "here") == Experiment()
    assert versions.KEY not in Experiment.model_fields, "a section of this name could not be told from the version"


def section_of(record: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The section that a field is in, and the field's name there."""
    *above, last = name.split(".")
    for part in above:
        record = record[part]
    return record, last


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The record without a field of it, by dotted name."""
    less = copy.deepcopy(record)
    section, last = section_of(less, name)
    del section[last]
    return less


NEWLY = {change.field: change.before for change in versions.STEPS[-1] if isinstance(change, Added)}


def test_a_field_that_is_absent_is_never_its_default() -> None:
    record = versions.stored(Experiment().model_dump(mode="json"))
    for name in sorted(set(fields(Experiment)) - NEWLY.keys()):
        with pytest.raises(UserError, match=rf"here: .*\({name}: the field is missing\)"):
            whole(Experiment, up_to_date(without(record, name), "here"), "here")


def test_what_was_stored_on_the_way_to_the_newest_version_is_read() -> None:
    """Between releases fields join the newest step, and what is stored has its number before it has them all."""
    record = versions.stored(Experiment().model_dump(mode="json"))
    assert NEWLY
    for name, before in NEWLY.items():
        found = up_to_date(without(record, name), "here")
        section, last = section_of(found, name)
        # A section comes with the fields of its own that are told after it.
        assert isinstance(before, dict) or section[last] == before
        whole(Experiment, found, "here")
    assert up_to_date(record, "here") == {name: value for name, value in record.items() if name != versions.KEY}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{{"version": {NEWEST + 1}}}', rf"config\.json: a newer version .*format {NEWEST + 1}.* up to {NEWEST}"),
        ('{"version": "x"}', "no version that could be"),
        ('{"version": -1}', "no version that could be"),
        ("[1]", "holds no fields"),
        ("{", "no JSON"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        versions.read(tmp_path / "config.json")
    assert str(raised.value).startswith(str(tmp_path / "config.json")) and "\n" not in str(raised.value)


def test_what_early_versions_did_not_keep_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: the file is not there; early versions .*train anew once"):
        versions.read(tmp_path / "config.json")


def test_a_field_that_is_unknown_and_a_value_that_cannot_be_are_told() -> None:
    written = CollaborativeConfig().model_dump(mode="json")
    with pytest.raises(UserError, match=r"\(gone: Extra"):
        whole(CollaborativeConfig, {**written, "gone": 1}, "here")
    with pytest.raises(UserError, match=r"\(dim: .*greater"):
        whole(CollaborativeConfig, {**written, "dim": 0}, "here")


def test_a_generator_from_before_there_were_rankers_does_what_it_did(tmp_path: Path) -> None:
    trained = TrainedGenerator.load(KEPT / "0" / "model" / "artifacts" / "bundle")
    trained.save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored[versions.KEY] == NEWEST and TrainedGenerator.load(tmp_path).config == trained.config
    for name in (versions.KEY, "beams", "ranker", "recommended", "stage_one"):
        del stored[name]
    for name in ("dense", "ranker", "ranker_weights"):
        del stored["generator"][name]
    del stored["generator"]["distill"]["share"]
    for weight, scorer in ((2.0, "fused"), (None, "generative")):
        (tmp_path / "config.json").write_text(json.dumps({**stored, "fusion_weight": weight}))
        old = TrainedGenerator.load(tmp_path)
        assert (old.recommended, old.beams, old.ranker, old.config["stage_one"]) == (scorer, 50, None, None)
        config = GeneratorConfig.model_validate(old.config["generator"])
        assert (config.dense, config.ranker, config.distill.share) == ("head", False, 1.0)


@pytest.mark.parametrize("name", ["beams", "fusion_weight", "ranker", "recommended", "stage_one", "teachers"])
def test_what_a_generator_of_this_version_lacks_is_told(tmp_path: Path, name: str) -> None:
    TrainedGenerator.load(KEPT / "0" / "model" / "artifacts" / "bundle").save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored[name]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=rf"config\.json: there is no {name}\. Run the stage"):
        TrainedGenerator.load(tmp_path)


class Toy(Section):
    """A section as it is in the toy version: `kind` was added, `inner.size` is called `width` by now."""

    width: int = Field(1)
    kind: str = Field("new")


@pytest.fixture
def toy_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ((Renamed("toy.size", "toy.width"), Added("toy.kind", "old")), (Renamed("toy", "game"),))
    monkeypatch.setattr(versions, "STEPS", steps)
    monkeypatch.setattr(versions, "VERSION", len(steps))


@pytest.mark.usefixtures("toy_steps")
def test_a_renamed_field_is_one_line() -> None:
    for record in (
        {"toy": {"size": 5}},
        {versions.KEY: 1, "toy": {"width": 5, "kind": "old"}},
        {versions.KEY: 2, "game": {"width": 5, "kind": "old"}},
    ):
        found = up_to_date(record, "here")
        assert found == {"game": {"width": 5, "kind": "old"}}
        assert whole(Toy, found["game"], "here") == Toy(width=5, kind="old")
    assert up_to_date({"other": {"size": 5}}, "here") == {"other": {"size": 5}}, "there is nothing of this section"
    assert [versions.now_named(name) for name in ("toy.size", "toy.kind", "toys.size")] == [
        "game.width",
        "game.kind",
        "toys.size",
    ]


@pytest.mark.usefixtures("toy_steps")
def test_a_flat_record_is_brought_up_to_date_as_far_as_it_goes() -> None:
    then = {"toy.size": 5, "toy.other": 1, "data": "digest"}
    assert versions.flat_up_to_date(then, {"game.width", "game.kind"}, "here") == {
        "game.width": 5,
        "game.other": 1,
        "game.kind": "old",
        "data": "digest",
    }
    assert "game.kind" not in versions.flat_up_to_date(then, {"game.width"}, "here")


@pytest.mark.usefixtures("toy_steps")
def test_what_a_person_gave_is_renamed_and_never_filled() -> None:
    assert versions.with_names_of_today({"toy": {"size": 5}}) == {"game": {"width": 5}}
    both = {"toy": {"size": 5, "width": 6}}
    assert versions.with_names_of_today(both) == {"game": {"size": 5, "width": 6}}, "two values are nobody's to choose"
    for wrong in ("no sections", {"toy": 3}, {"toy": {"size": 5}, "game": 3}, {3: {"toy": None}}):
        versions.with_names_of_today(wrong)


def test_a_renamed_file_is_found_under_either_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "FILES", {"third": "second", "second": "first"})
    assert versions.file(tmp_path, "third").name == "first"
    for name in ("first", "second", "third"):
        (tmp_path / name).touch()
        assert versions.file(tmp_path, "third") == tmp_path / name
    assert versions.file(tmp_path, "other") == tmp_path / "other"
