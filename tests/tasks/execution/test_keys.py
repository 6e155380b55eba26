"""Cache keys: run-only fields never change one; every other field changes those of the stages that read it."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from prorec.tasks.execution import sources
from prorec.tasks.execution import stage as stages
from prorec.tasks.execution.reads import UndeclaredReadError
from prorec.tasks.execution.stage import Stage, versions
from prorec.tasks.stages.evaluate_aligned import evaluate_aligned
from prorec.tasks.stages.evaluate_collaborative import evaluate_collaborative
from prorec.tasks.stages.evaluate_counts import evaluate_counts
from prorec.tasks.stages.evaluate_given import evaluate_given
from prorec.tasks.stages.evaluate_heuristics import of_heuristic
from prorec.tasks.stages.evaluate_two_stream import evaluate_two_stream
from prorec.tasks.stages.pipeline import STAGES, up_to
from prorec.tasks.tracking import mlflow_runs
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment
from prorec_core.metrics import scorers, table
from prorec_core.metrics.scorers import SCORERS
from prorec_core.metrics.table import METRICS
from prorec_core.registry import Registry
from prorec_core.sections import RUN_ONLY


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
    ("data", "attribute_kinds"): {"attribute_columns": ["price"]},
    ("compute", "address"): {"engine": "ray"},
    ("train_on_validation",): {"evaluate": {"fusion_weights": [2.0]}},
    **{("data", name): {"split": "by_time"} for name in ("validation_from", "test_from", "targets")},
}
"""What must be set beside a field."""


def _others(value: Any, annotation: Any, metadata: list[Any]) -> list[Any]:
    """Values that may stand where `value` does."""
    for kinds in metadata:
        if isinstance(kinds, Registry):
            return [other for other in kinds if other != value]
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
            if value:
                return [[*value, value[0]]]
            return [[{"name": "picture", "path": "x.parquet", "missing": "mean"}], ["price"], ["price=text"]]
        case None:
            return ["other", "seconds", 3.5, [1.0, 2.0, 0.5, 0.0, -0.25]]
        case str():
            return [f"{value}x", "cpu"]
    raise AssertionError(f"no other value for {value!r}")


def _base(path: tuple[str, ...]) -> Experiment:
    """What the default experiment has to be beside the field."""
    if path not in {("generator", "ranker_weights"), ("generator", "ranker_file")}:
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
    for other in _others(value, LEAVES[path].annotation, LEAVES[path].metadata):
        try:
            return _with(path, other)
        except ValidationError:
            continue
    raise AssertionError(f"no valid other value for {'.'.join(path)}")


UPSTREAM = {stage: ArtifactRef(stage=stage, digest=stage, run_id="r", uri="/u") for stage in STAGES}
HEURISTICS = tuple(of_heuristic(name) for name, row in SCORERS.items() if row.heuristic)
BASELINES = (
    evaluate_counts,
    evaluate_given,
    evaluate_collaborative,
    evaluate_aligned,
    evaluate_two_stream,
    *HEURISTICS,
)
PIPELINE = tuple(STAGES.values())
EVERY = (*PIPELINE, *BASELINES)
NUMERIC = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "polars": "polars",
    "sentence_transformers": "sentence-transformers",
    "orjson": "orjson",
}
"""The distribution of each package that computes."""


@pytest.fixture(autouse=True, scope="module")
def store() -> Iterator[None]:
    """A store that need not exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_runs, "identity", lambda: "one")
        yield


@cache
def _keys(experiment: str) -> dict[str, str]:
    known = Experiment.model_validate_json(experiment)
    return {stage.name: stage.key(known, UPSTREAM, "") for stage in PIPELINE}


def _at(experiment: Experiment, path: tuple[str, ...]) -> Any:
    value: Any = experiment
    for part in path:
        value = getattr(value, part)
    return value


def before(path: tuple[str, ...] = ()) -> dict[str, str]:
    """The keys of the experiment before a field is changed."""
    return _keys(_base(path).model_dump_json())


def _reads(stage: str, path: tuple[str, ...]) -> bool:
    return any(path[: name.count(".") + 1] == tuple(name.split(".")) for name in STAGES[stage].config)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_field_changes_the_keys_of_its_readers_alone(path: tuple[str, ...]) -> None:
    experiment = changed(path)
    run_only = LEAVES[path].json_schema_extra == RUN_ONLY
    for stage in PIPELINE:
        # Where a start or a column is named, a stage reads more than it else does.
        expected = (not run_only and _reads(stage.name, path)) or stage.names(experiment) != stage.names(_base(path))
        if (registries := [each for each in LEAVES[path].metadata if isinstance(each, Registry)]) and not expected:
            # It may depend on the implementation that is chosen.
            module = Path(*registries[0].module(_at(experiment, path)).split(".")).with_suffix(".py")
            files = sources.source_files((stage.module,), experiment)
            expected = any(file.parts[-len(module.parts) :] == module.parts for file in files)
        assert (stage.key(experiment, UPSTREAM, "") != before(path)[stage.name]) is expected, stage.name


def test_every_field_that_is_not_run_only_has_a_reader() -> None:
    for path, field in LEAVES.items():
        assert field.json_schema_extra == RUN_ONLY or any(_reads(stage, path) for stage in STAGES), path


@given(st.sampled_from(PIPELINE), st.sampled_from(list(STAGES)), st.text(min_size=1))
def test_digests_of_what_is_read_change_the_key(stage: Stage, other: str, digest: str) -> None:
    upstream = {**UPSTREAM, other: UPSTREAM[other].model_copy(update={"digest": f"new {digest}"})}
    assert (stage.key(Experiment(), upstream, "") != before()[stage.name]) is (other in stage.reads)
    # Where an artifact is does not matter, only what it is.
    moved = {**UPSTREAM, other: UPSTREAM[other].model_copy(update={"uri": digest, "run_id": digest})}
    assert stage.key(Experiment(), moved, "") == before()[stage.name]


def test_keys_are_flat_and_differ_between_stages() -> None:
    assert len(set(before().values())) == len(STAGES)
    assert all(key.isalnum() for key in before().values())


def test_another_store_has_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before()
    monkeypatch.setattr(mlflow_runs, "identity", lambda: "another")
    assert all(stage.key(Experiment(), UPSTREAM, "") != before()[stage.name] for stage in PIPELINE)


def test_what_lies_outside_changes_the_key() -> None:
    trained = {"train_collaborative", "align", "quantize", "train_generator"}
    assert {stage.name for stage in PIPELINE if stage.outside} == {"preprocess", "embed_text", *trained}
    keys = {STAGES["preprocess"].key(Experiment(), {}, outside) for outside in ("a", "b")}
    assert len(keys) == 2


def test_other_weights_of_a_local_encoder_are_another_encoder(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    (tmp_path / "notes.md").write_text("one")
    experiment = Experiment.model_validate({"text": {"model": str(tmp_path)}})
    digests = [STAGES["embed_text"].found_outside(experiment)]
    (tmp_path / "model.safetensors").write_bytes(b"two")
    digests.append(STAGES["embed_text"].found_outside(experiment))
    (tmp_path / "notes.md").write_text("two")
    assert len(set(digests)) == 2 and STAGES["embed_text"].found_outside(experiment) == digests[1]
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    assert STAGES["embed_text"].found_outside(experiment) not in digests


def test_another_version_of_a_library_changes_the_keys_of_those_that_it_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before()
    real = stages._version
    monkeypatch.setattr(stages, "_version", lambda name: "0.0.1" if name == "scikit-learn" else real(name))
    moved = {stage.name for stage in PIPELINE if stage.key(Experiment(), UPSTREAM, "") != before()[stage.name]}
    assert moved == {"quantize"}
    monkeypatch.setattr(stages, "_version", lambda name: f"{real(name).partition('+')[0]}+cu130")
    assert all(stage.key(Experiment(), UPSTREAM, "") == before()[stage.name] for stage in PIPELINE)


def test_a_stage_of_another_version_has_another_key() -> None:
    for stage in PIPELINE:
        raised = dataclasses.replace(stage, version=stage.version + 1)
        assert raised.key(Experiment(), UPSTREAM, "") != stage.key(Experiment(), UPSTREAM, "")


@pytest.mark.parametrize("stage", EVERY, ids=lambda stage: stage.name)
def test_a_stage_names_the_libraries_that_its_sources_import(stage: Stage) -> None:
    imported = set()
    for file in sources.source_files((stage.module,)):
        if file.suffix == ".py":
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.partition(".")[0])
    assert {NUMERIC[name] for name in imported & NUMERIC.keys()} <= set(stage.libraries)
    assert versions(stage.libraries)


def test_what_reads_a_source_decides_the_numbers_too() -> None:
    assert {"pyarrow", "orjson"} <= set(STAGES["preprocess"].libraries)


def test_a_body_cannot_read_what_its_stage_does_not_declare() -> None:
    stage = Stage("toy", (), lambda _: None, "prorec.tasks.stages.align", ("align", "evaluate.beams", "seed"))
    part = stage.part(Experiment(seed=3))
    assert (part.seed, part.align.alpha, part.evaluate.beams, part.device) == (3, 0.01, 50, "auto")
    for read in (
        lambda: part.collaborative,
        lambda: part.evaluate.mask_history,
        lambda: part.name,
        lambda: part.quantize.codes,
    ):
        with pytest.raises(UndeclaredReadError, match="'toy' reads"):
            read()
    assert not hasattr(part, "nothing_of_the_kind")


def test_every_stage_reads_only_earlier_ones() -> None:
    names = list(STAGES)
    for position, stage in enumerate(PIPELINE):
        assert set(stage.reads) <= set(names[:position])
    assert [each.name for each in up_to("align")] == ["preprocess", "embed_text", "train_collaborative", "align"]
    assert up_to(names[-1]) == PIPELINE


@pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)
def test_sources_follow_imports(stage: Stage) -> None:
    names = {path.relative_to(sources._ROOT).as_posix() for path in sources.source_files((stage.module,))}
    assert f"prorec/tasks/stages/{stage.name}.py" in names and "prorec_core/artifacts.py" in names
    assert not names & {
        "prorec_core/config.py",
        "prorec_core/config_data.py",
        "prorec_core/errors.py",
        "prorec/tasks/execution/stage.py",
        "prorec_core/stages/work.py",
    }
    assert ("prorec_core/stages/inputs.py" in names) is (stage.name not in {"preprocess", "embed_text"})


def test_training_depends_on_the_loop_and_not_on_evaluation() -> None:
    names = {path.name for path in sources.source_files(("prorec.tasks.stages.train_collaborative",), Experiment())}
    assert {"loop.py", "sasrec.py", "sequences.py"} <= names
    assert not names & {"trie.py", "demo.py", "kmeans.py", "din.py"}


def _depend_on(file: str, **sections: Any) -> set[str]:
    """The stages whose result a source file has a part in, with these choices."""
    experiment = Experiment.model_validate(sections)
    return {
        stage.name
        for stage in PIPELINE
        if file in {path.name for path in sources.source_files((stage.module,), experiment)}
    }


def test_a_change_to_an_implementation_makes_anew_what_chose_it() -> None:
    users = {"train_collaborative", "align", "train_generator", "evaluate"}
    assert _depend_on("din.py") == set() and _depend_on("sasrec.py") == users
    assert _depend_on("din.py", collaborative={"model": "din"}) == users
    assert _depend_on("residual_kmeans.py") == {"quantize"} and _depend_on("rq_vae.py") == set()
    assert _depend_on("rq_vae.py", quantize={"method": "rq_vae"}) == {"quantize"}
    assert _depend_on("encoder_decoder.py") == set() and _depend_on("timeline.py") == {"train_generator", "evaluate"}
    # Where several pipelines are read, their choices may differ.
    all_of_them = {path.name for path in sources.source_files((evaluate_two_stream.module,))}
    assert {"din.py", "sasrec.py", "timeline.py", "encoder_decoder.py"} <= all_of_them


def test_what_ranks_does_not_depend_on_what_trains() -> None:
    assert _depend_on("loop.py") == {"train_collaborative", "align", "train_generator"}
    assert not _depend_on("kmeans.py") & {"train_generator", "evaluate"}


def test_a_page_is_part_of_its_own_report_alone() -> None:
    """Another word or plot in a report measures nothing again, and one in a comparison's page draws no report."""
    names = {stage.name: {path.name for path in sources.source_files((stage.module,))} for stage in PIPELINE}
    assert {stage for stage, files in names.items() if any(file.endswith(".j2") for file in files)} == {"report"}
    assert "evaluation.html.j2" in names["report"] and "comparison.html.j2" not in names["report"]
    assert not {"plots.py", "report.py", "tables.py", "drawing.py"} & names["evaluate"]


def _hashes() -> dict[str, str]:
    return {stage.name: sources.source_hash((stage.module,), Experiment()) for stage in EVERY}


def test_a_row_of_a_table_measures_again_and_its_words_draw_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = {"evaluate", *(stage.name for stage in BASELINES)}
    before = _hashes()
    words = {"label": "other", "meaning": "other"}
    monkeypatch.setitem(METRICS, "mrr", replace(METRICS["mrr"], **words, format=".2f", shown={}))
    monkeypatch.setitem(SCORERS, "fused", replace(SCORERS["fused"], **words, colour="#000000", marker="."))
    assert _hashes() == before
    monkeypatch.setitem(METRICS, "mrr", replace(METRICS["mrr"], of_ranks=lambda ranks, k: ranks * 0.5))
    assert {name for name, found in _hashes().items() if found != before[name]} == measuring
    monkeypatch.undo()
    monkeypatch.setitem(METRICS, "recall", replace(METRICS["recall"], cutoffs=(10,)))
    assert {name for name, found in _hashes().items() if found != before[name]} == measuring
    monkeypatch.undo()
    monkeypatch.setitem(SCORERS, "fused", replace(SCORERS["fused"], compared=()))
    assert {name for name, found in _hashes().items() if found != before[name]} == measuring
    # What is shown rests on the whole files, words and all.
    assert {"table.py", "scorers.py"} <= {path.name for path in sources.source_files((STAGES["report"].module,))}
    assert _depend_on("measuring.py") == {"evaluate"}


def test_no_code_that_measures_stands_in_a_table() -> None:
    """Of these files only the rows count in the key of what measures."""
    measures = [row.of_ranks or row.of_lists for row in METRICS.values()]
    for module, shown in (
        (table, {"label", "figure", "columns", "what_decides"}),
        (scorers, {"about", "label", "in_order", "ranked_baselines", "what_decides"}),
    ):
        own = {
            node.name
            for node in ast.parse(Path(str(module.__file__)).read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        # The source of what a row measures by is part of what decides.
        assert own - {measure.__name__ for measure in measures if measure} == shown


def test_changed_source_changes_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "prorec_core/__init__.py": "",
        "prorec_core/a/__init__.py": "",
        "prorec_core/a/one.py": "def f():\n    from prorec_core.a import two\n",
        "prorec_core/a/two.py": "x = 1\n",
        "prorec_core/a/page.html": "<p>",
        "prorec_core/b.py": "",
        "prorec/tasks/t.py": "import prorec_core.a.one\n"
        "from prorec_core.stages.inputs import texts\nfrom prorec.tasks.execution.stage import Work\n",
        "prorec_core/stages/inputs.py": "from prorec_core import c\n",
        "prorec/tasks/execution/stage.py": "import prorec_core.b\n",
        "prorec_core/c.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "_ROOT", tmp_path)
    sources._imports.cache_clear()
    hashes = [sources.source_hash(("prorec.tasks.t",))]
    changing = (
        "prorec_core/a/two.py",
        "prorec_core/a/page.html",
        "prorec_core/c.py",
        "prorec/tasks/t.py",
        "prorec_core/stages/inputs.py",
    )
    for name in changing:
        (tmp_path / name).write_text((tmp_path / name).read_text() + " ")
        hashes.append(sources.source_hash(("prorec.tasks.t",)))
    assert len(set(hashes)) == 1 + len(changing)
    (tmp_path / "prorec_core/b.py").write_text("y = 2\n")
    assert sources.source_hash(("prorec.tasks.t",)) == hashes[-1]
    sources._imports.cache_clear()


def test_keys_hold_plain_json() -> None:
    for stage in STAGES:
        json.dumps(STAGES[stage].values(Experiment()))


def test_the_run_only_fields_are_those_that_leave_no_trace() -> None:
    run_only = {".".join(path) for path, field in LEAVES.items() if field.json_schema_extra == RUN_ONLY}
    # What the last three name is in the keys by its content.
    where = {"data.path", "data.sql.connection", "data.sql.snapshot"}
    where |= {"start_from", "generator.ranker_file", "evaluate.lists_file"}
    engine = {f"compute.{name}" for name in ("engine", "address", "workers", "gpus_per_worker", "cpus_per_worker")}
    assert run_only == {"device", "steps", "text.batch_size", *engine, *where}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"data": {"min_user_interactions": 6}}, {"preprocess"}),
        ({"text": {"max_tokens": 64}}, {"embed_text"}),
        ({"quantize": {"codes": 32}}, {"quantize"}),
        ({"quantize": {"embedding": "semantic"}}, {"quantize", "train_generator", "evaluate"}),
        ({"evaluate": {"examples": 1}}, {"evaluate"}),
        ({"evaluate": {"beams": 20}}, {"train_generator", "evaluate"}),
        ({"evaluate": {"mask_history": False}}, {"train_collaborative", "align", "train_generator", "evaluate"}),
        ({"generator": {"epochs": 3}}, {"train_generator"}),
        ({"align": {"alpha": 1}}, {"align"}),
        ({"collaborative": {"dim": 32}}, {"train_collaborative"}),
        ({"seed": 5}, {"train_collaborative", "align", "quantize", "train_generator", "evaluate"}),
        (
            {"train_on_validation": True, "evaluate": {"fusion_weights": [2]}},
            {"train_collaborative", "align", "train_generator", "evaluate"},
        ),
    ],
)
def test_a_change_reaches_the_stages_that_read_it_and_no_other(change: dict[str, Any], stages: set[str]) -> None:
    plain, changed = Experiment(), Experiment.model_validate(change)
    moved = {name for name, stage in STAGES.items() if stage.values(plain) != stage.values(changed)}
    assert moved == stages | {"report"}, "which shows the whole experiment"


def test_readers_and_the_section_of_the_data_count_where_something_is_read_of_them() -> None:
    plain = Experiment()
    column = Experiment.model_validate({"text": {"vectors": [{"name": "picture", "column": "vector"}]}})
    table = Experiment.model_validate({"quantize": {"table": "codes.csv"}})
    for name, asks in (("embed_text", column), ("quantize", table)):
        read = [
            {path.name for path in sources.source_files((STAGES[name].module,), each)} & {"formats.py", "delimited.py"}
            for each in (plain, asks)
        ]
        assert read == [set(), {"formats.py", "delimited.py"}], name
    stage = STAGES["embed_text"]
    assert "data" not in stage.values(plain) and "data" in stage.values(column)
    with pytest.raises(UndeclaredReadError):
        _ = stage.part(plain).data.path
    assert stage.part(column).data.path is None
