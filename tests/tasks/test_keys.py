"""Cache keys: run-only fields never change one; every other field changes those of the stages that read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from flows.full import PIPELINE
from prorec_core.artifacts import STAGES, ArtifactRef
from prorec_core.config import _READS, RUN_ONLY, Experiment
from tasks import sources, tracking
from tasks.stage import Stage


def _leaves(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name), field


LEAVES = dict(_leaves(Experiment))
TOGETHER: dict[tuple[str, ...], dict[str, Any]] = {
    ("data", "min_rating"): {"rating_column": "stars"},
    ("data", "rating_column"): {"min_rating": 3.0},
    ("train_on_validation",): {"evaluate": {"fusion_weights": [2.0]}},
}
"""What must be set beside a field."""


def _others(value: Any, annotation: Any) -> list[Any]:
    """Values that may stand where `value` does."""
    if get_origin(annotation) is Literal:
        return [other for other in get_args(annotation) if other != value]
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value * 2, value - 1]
        case float():
            return [value * 1.5 + 0.01, value * 0.5]
        case list():
            return [[*value, value[0]]]
        case None:
            return ["other", "seconds", 3.5, [1.0, 2.0, 0.5, 0.0, -0.25]]
        case str():
            return [f"{value}x", "cpu"]
    raise AssertionError(f"no other value for {value!r}")


def _base(path: tuple[str, ...]) -> Experiment:
    """What the default experiment has to be beside the field."""
    if path != ("generator", "ranker_weights"):
        return Experiment()
    return Experiment.model_validate({"train_on_validation": True, "evaluate": {"fusion_weights": [2.0]}})


def _with(path: tuple[str, ...], value: Any) -> Experiment:
    values = _base(path).model_dump()
    section = values
    for part in path[:-1]:
        section = section[part]
    section.update(TOGETHER.get(path, {}))
    section[path[-1]] = value
    return Experiment.model_validate(values)


def changed(path: tuple[str, ...]) -> Experiment:
    """The same with another value at `path`."""
    value: Any = Experiment()
    for part in path:
        value = getattr(value, part)
    for other in _others(value, LEAVES[path].annotation):
        try:
            return _with(path, other)
        except ValidationError:
            continue
    raise AssertionError(f"no valid other value for {'.'.join(path)}")


UPSTREAM = {stage: ArtifactRef(stage=stage, digest=stage, run_id="r", uri="/u") for stage in STAGES}
STAGES_WITHOUT_DATA = [Stage(each.name, each.reads, each.body, each.module) for each in PIPELINE]


@pytest.fixture(autouse=True, scope="module")
def store() -> Iterator[None]:
    """A store that need not exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "identity", lambda: "one")
        yield


@cache
def _keys(experiment: str) -> dict[str, str]:
    known = Experiment.model_validate_json(experiment)
    return {stage.name: stage.key(known, UPSTREAM) for stage in STAGES_WITHOUT_DATA}


def before(path: tuple[str, ...] = ()) -> dict[str, str]:
    """The keys of the experiment before a field is changed."""
    return _keys(_base(path).model_dump_json())


def _reads(stage: str, path: tuple[str, ...]) -> bool:
    return any(path[: name.count(".") + 1] == tuple(name.split(".")) for name in _READS[stage])


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_field_changes_the_keys_of_its_readers_alone(path: tuple[str, ...]) -> None:
    experiment = changed(path)
    run_only = LEAVES[path].json_schema_extra == RUN_ONLY
    for stage in STAGES_WITHOUT_DATA:
        expected = not run_only and _reads(stage.name, path)
        assert (stage.key(experiment, UPSTREAM) != before(path)[stage.name]) is expected, stage.name


def test_every_field_that_is_not_run_only_has_a_reader() -> None:
    for path, field in LEAVES.items():
        assert field.json_schema_extra == RUN_ONLY or any(_reads(stage, path) for stage in STAGES), path


@given(st.sampled_from(STAGES_WITHOUT_DATA), st.sampled_from(STAGES), st.text(min_size=1))
def test_digests_of_what_is_read_change_the_key(stage: Stage, other: str, digest: str) -> None:
    upstream = {**UPSTREAM, other: UPSTREAM[other].model_copy(update={"digest": f"new {digest}"})}
    assert (stage.key(Experiment(), upstream) != before()[stage.name]) is (other in stage.reads)
    # Where an artifact is does not matter, only what it is.
    moved = {**UPSTREAM, other: UPSTREAM[other].model_copy(update={"uri": digest, "run_id": digest})}
    assert stage.key(Experiment(), moved) == before()[stage.name]


def test_keys_are_flat_and_differ_between_stages() -> None:
    assert len(set(before().values())) == len(STAGES)
    assert all(key.isalnum() for key in before().values())


def test_another_store_has_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before()
    monkeypatch.setattr(tracking, "identity", lambda: "another")
    assert all(stage.key(Experiment(), UPSTREAM) != before()[stage.name] for stage in STAGES_WITHOUT_DATA)


def test_changed_data_changes_the_key_of_preprocess() -> None:
    stage = next(each for each in PIPELINE if each.name == "preprocess")
    assert stage.source_digest is not None
    keys = {
        Stage(stage.name, (), stage.body, stage.module, lambda _, text=text: text).key(Experiment(), {})
        for text in "ab"
    }
    assert len(keys) == 2


def test_every_stage_reads_only_earlier_ones() -> None:
    assert [stage.name for stage in PIPELINE] == list(STAGES)
    for position, stage in enumerate(PIPELINE):
        assert set(stage.reads) <= set(STAGES[:position])


@pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)
def test_sources_follow_imports(stage: Stage) -> None:
    names = {path.relative_to(sources._ROOT).as_posix() for path in sources.source_files((stage.module,))}
    assert f"tasks/{stage.name}.py" in names and "prorec_core/artifacts.py" in names
    assert not names & {"prorec_core/config.py", "prorec_core/errors.py", "tasks/stage.py"}
    assert ("tasks/inputs.py" in names) is (stage.name not in {"preprocess", "embed_text"})


def test_training_depends_on_the_loop_and_not_on_evaluation() -> None:
    names = {path.name for path in sources.source_files(("tasks.train_collaborative",))}
    assert {"loop.py", "sasrec.py", "din.py", "sequences.py"} <= names
    assert not names & {"trie.py", "demo.py", "kmeans.py"}


def test_a_page_is_part_of_its_own_evaluation_alone() -> None:
    """Another word in a report trains nothing again, and one in a comparison's page measures nothing again."""
    names = {stage.name: {path.name for path in sources.source_files((stage.module,))} for stage in PIPELINE}
    assert {stage for stage, files in names.items() if any(file.endswith(".j2") for file in files)} == {"evaluate"}
    assert "report.html.j2" in names["evaluate"] and "comparison.html.j2" not in names["evaluate"]


def test_changed_source_changes_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "prorec_core/__init__.py": "",
        "prorec_core/a/__init__.py": "",
        "prorec_core/a/one.py": "def f():\n    from prorec_core.a import two\n",
        "prorec_core/a/two.py": "x = 1\n",
        "prorec_core/a/page.html": "<p>",
        "prorec_core/b.py": "",
        "tasks/t.py": "import prorec_core.a.one\nfrom tasks.inputs import texts\nfrom tasks.stage import Work\n",
        "tasks/inputs.py": "from prorec_core import c\n",
        "tasks/stage.py": "import prorec_core.b\n",
        "prorec_core/c.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "_ROOT", tmp_path)
    sources._imports.cache_clear()
    hashes = [sources.source_hash(("tasks.t",))]
    changing = ("prorec_core/a/two.py", "prorec_core/a/page.html", "prorec_core/c.py", "tasks/t.py", "tasks/inputs.py")
    for name in changing:
        (tmp_path / name).write_text((tmp_path / name).read_text() + " ")
        hashes.append(sources.source_hash(("tasks.t",)))
    assert len(set(hashes)) == 1 + len(changing)
    (tmp_path / "prorec_core/b.py").write_text("y = 2\n")
    assert sources.source_hash(("tasks.t",)) == hashes[-1]
    sources._imports.cache_clear()


def test_keys_hold_plain_json() -> None:
    for stage in STAGES:
        json.dumps(Experiment().stage_config(stage))
