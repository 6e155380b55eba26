"""From the names of spaces to what is tried and what measures it, or to one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from prorec.flows.configuration.experiments import load, preset_files
from prorec.flows.configuration.spaces import MADE_OF, Plan, as_yaml, flags, load_space, plan
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tuning.study import _in
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.fitting import Size, fitted

STANDARD = {
    "collaborative": "train_collaborative",
    "align": "align",
    "codes": "train_generator",
    "generator": "train_generator",
}
"""The spaces that come with the project, and the stage that measures each."""


def _file(folder: Path, found: object) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(found))
    return str(path)


def _plan(folder: Path, fields: object, stage: str | None = None) -> Plan:
    return plan(load_space(_file(folder, {"mine": fields})), Experiment(), stage)


@pytest.mark.parametrize("preset", ["demo", *preset_files()])
def test_every_standard_space_fits_every_preset(preset: str) -> None:
    for name, stage in STANDARD.items():
        found = plan(load_space(name), load(preset))
        assert found.stage == stage and found.study == f"{preset}-{name}"
        assert (*found.shared, *found.varied) == MADE_OF[stage]
        assert found.distributions().keys() == found.space.ranges.keys()
    with pytest.raises(UserError) as error:
        load_space("every")
    assert all(name in str(error.value) for name in STANDARD), "there is none that this test does not know"


@settings(max_examples=20, deadline=None)
@given(st.integers(10, 10**7), st.integers(5, 10**6), st.integers(3, 1000), st.floats(3, 5000))
def test_a_tuning_of_own_data_begins_where_the_rule_ends(users: int, items: int, each: int, longest: float) -> None:
    open_ = Experiment.model_validate({"data": {"source": "tables"}})
    found = fitted(open_, Size(users, items, users * each, longest))
    for name, stage in STANDARD.items():
        planned = plan(load_space(name), found)
        assert planned.stage == stage
        for field, distribution in planned.distributions().items():
            assert _in(distribution, planned.as_it_stands[field]), f"{field} {planned.as_it_stands[field]}"


def test_a_space_is_checked_before_the_data_are_known(tmp_path: Path) -> None:
    open_ = Experiment.model_validate({"data": {"source": "tables"}})
    space = load_space(
        _file(tmp_path, {"mine": {"align.epochs": {"low": 5, "high": 9}, "align.graph": {"low": 0, "high": 1}}})
    )
    assert plan(space, open_).stage == "align"
    with pytest.raises(UserError, match=r"mine: align.epochs: must be a whole number \(got 5.5\)"):
        plan(load_space(_file(tmp_path, {"mine": {"align.epochs": {"low": 5.5, "high": 9}}})), open_)


def test_what_a_stage_is_made_of_is_what_the_pipeline_reads() -> None:
    for last, names in MADE_OF.items():
        read = {last}
        while more := {each for name in read for each in STAGES[name].reads} - read:
            read |= more
        assert names == tuple(stage for stage in STAGES if stage in read)
        assert all(STAGES[name].module == f"prorec.tasks.stages.{name}" for name in names)


def test_the_earliest_stage_measures_that_all_fields_change(tmp_path: Path) -> None:
    dropout = {"low": 0.1, "high": 0.5}
    both = plan(load_space("align,generator"), Experiment())
    assert both.stage == "train_generator" and both.varied == ("align", "quantize", "train_generator")
    text = _plan(tmp_path, {"text.max_tokens": {"choices": [16, 64]}})
    assert (text.stage, text.shared) == ("align", ("preprocess",)), "train_collaborative reads no texts"
    later = _plan(tmp_path, {"collaborative.dropout": dropout}, "align")
    assert later.stage == "align" and later.varied == ("train_collaborative", "align")
    for field, stage in (("generator.dropout", "align"), ("text.max_tokens", "train_collaborative")):
        with pytest.raises(UserError, match=f"mine.yaml: mine: {field}: changes nothing that {stage} measures"):
            _plan(tmp_path, {field: {"choices": [16, 64] if "text" in field else [0.1, 0.2]}}, stage)


def test_ranges_become_those_of_their_fields(tmp_path: Path) -> None:
    found = _plan(
        tmp_path,
        {
            "align.alpha": {"low": "1e-3", "high": 1, "log": True},
            "align.dropout": {"low": 0, "high": 0.5, "step": 0.1},
            "align.epochs": {"low": 2, "high": 10, "step": 4},
            "align.fusion": {"choices": ["sum", "concat"]},
        },
    )
    assert found.distributions() == {
        "align.alpha": FloatDistribution(0.001, 1.0, log=True),
        "align.dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "align.epochs": IntDistribution(2, 10, step=4),
        "align.fusion": CategoricalDistribution(["sum", "concat"]),
    }
    assert found.as_it_stands == {
        "align.alpha": 0.01, "align.dropout": 0.2, "align.epochs": 30, "align.fusion": "sum",
    }  # fmt: skip
    tried = found.experiment({"align.alpha": 0.5, "align.fusion": "concat"})
    assert (tried.align.alpha, tried.align.fusion, tried.name) == (0.5, "concat", "demo-tune")


def test_best_values_can_be_pasted(tmp_path: Path) -> None:
    values = {"align.alpha": 1e-05, "generator.distill.beta": 0.0, "generator.warm_start": False, "generator.layers": 3}
    values["quantize.method"] = "rq_vae"
    wanted = plan(load_space("align"), Experiment()).experiment(values).model_copy(update={"name": "demo"})
    assert load("demo", flags(values)) == wanted
    path = tmp_path / "demo.yaml"
    path.write_text(as_yaml(values))
    assert load(str(path)) == wanted


def test_settings_are_equal_where_trials_may_be_mixed(tmp_path: Path) -> None:
    align = load_space("align")
    usual = plan(align, Experiment()).settings("digest")

    def differing(experiment: Experiment, data: str = "digest") -> set[str]:
        found = plan(align, experiment).settings(data)
        return {key for key in found | usual if found.get(key) != usual.get(key)}

    assert differing(load("demo", ["align.alpha=0.3", "generator.dim=32", "name=other", "device=cpu"])) == set()
    assert differing(load("demo", ["align.epochs=3", "seed=4"])) == {"align.epochs", "seed"}
    assert differing(load("demo", ["evaluate.mask_history=false"])) == {"evaluate.mask_history"}
    assert differing(Experiment(), "other") == {"data"}
    ranges = dict(align.ranges)
    ranges["align.alpha"] = ranges["align.alpha"].model_copy(update={"high": 2.0})
    wider = plan(align.model_copy(update={"ranges": ranges}), Experiment()).settings("digest")
    assert {key for key in usual if usual[key] != wider[key]} == {"range of align.alpha"}
    later = plan(align, Experiment(), "train_generator").settings("digest")
    assert later["measured stage"] == "train_generator" and later["program"] != usual["program"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"align.alhpa": {"low": 0, "high": 1}}, "align.alhpa: unknown field. Did you mean 'alpha'?"),
        ({"algin.alpha": {"low": 0, "high": 1}}, "algin: unknown field. Did you mean 'align'?"),
        ({"align.alpha": {"low": -1, "high": 1}}, "align.alpha: must be >= 0 (got -1.0)."),
        ({"align.dropout": {"low": 0.5, "high": 1}}, "align.dropout: must be < 1 (got 1.0)."),
        ({"align.alpha": {"low": 1, "hihg": 2}}, "align.alpha: hihg: unknown field. Did you mean 'high'?"),
        ({"align.alpha": {"low": 1, "high": "x"}}, "align.alpha: high: must be a number (got 'x')."),
        ({"align.alpha": {"low": 1}}, "align.alpha: low and high are needed, or choices."),
        ({"align.alpha": {"low": 1, "high": 1}}, "align.alpha: low (1) must be below high (1)."),
        ({"align.alpha": {"low": 0, "high": 1, "log": True}}, "align.alpha: log needs a low above 0, and no step."),
        ({"align.alpha": {"low": 0, "high": 1, "step": 0.3}}, "align.alpha: step (0.3) must divide high − low (1)."),
        ({"align.alpha": {"choices": [1, 2], "low": 1}}, "align.alpha: choices have no low, high, log or step."),
        ({"align.alpha": {"choices": [1, 1]}}, "align.alpha: a choice stands there twice."),
        ({"align.alpha": {"choices": [1]}}, "align.alpha: choices: needs at least 2 entries (got [1])."),
        (
            {"align.alpha": {"choices": [[1], [2]]}},
            "align.alpha: choices: a choice is a number, a text, true, false or",
        ),
        ({"align.alpha": {"choices": list(range(1001))}}, "align.alpha: choices: has more than 1000 entries"),
        ({"align.alpha": {"low": 0, "high": 1e308}}, "align.alpha: high: must be <= 1e+12 (got 1e+308)."),
        ({"align.alpha": {"low": 0, "high": 1, "step": 1e-300}}, "align.alpha: step: must be >= 1e-12 (got 1e-300)."),
        ({"align.alpha": {"low": 0, "high": "9" * 5000}}, "align.alpha: high: must be a number (got '999"),
        ({"a\x1b[31m": {"low": 0, "high": 1}}, "a\\x1b[31m: unknown field."),
        ({"align.alpha": 3}, "align.alpha: a range is needed. Write {low: …, high: …} or {choices: [ … ]}."),
        ({"align.epochs": {"low": 1.5, "high": 9}}, "align.epochs: must be a whole number (got 1.5)."),
        ({"align.epochs": {"low": 1, "high": 2, "step": 0.5}}, "align.epochs: must be a whole number (got 0.5)."),
        ({"align.fusion": {"choices": ["sum", "mean"]}}, "align.fusion: must be 'sum' or 'concat' (got 'mean')."),
        (
            {"generator.distill.beta": {"low": 0.1, "high": 1}},
            "generator.distill.beta: has no number in the experiment as it stands (null). Give it one, as with "
            "--set generator.distill.beta=0.1, or give choices here.",
        ),
        ({"generator.trie_mask": {"low": 0, "high": 1}}, "generator.trie_mask: is no number. Give choices."),
        ({"text.batch_size": {"low": 1, "high": 8}}, "text.batch_size: changes nothing that any stage measures."),
        ({"data.demo.users": {"low": 50, "high": 60}}, "data.demo.users: cannot be tuned."),
        ({"evaluate.mask_history": {"choices": [True, False]}}, "evaluate.mask_history: cannot be tuned."),
        ({"generator.validation_users": {"low": 5, "high": 9}}, "generator.validation_users: cannot be tuned."),
        ({"align.validation_users": {"low": 5, "high": 9}}, "align.validation_users: cannot be tuned."),
        ({"train_on_validation": {"choices": [True, False]}}, "train_on_validation: cannot be tuned."),
        ({"seed": {"low": 1, "high": 9}}, "seed: cannot be tuned. All trials share data, seeds and protocol."),
        ({}, "mine: a space is a section of fields with ranges."),
    ],
)
def test_what_cannot_be_tuned_is_one_line_that_names_the_place(tmp_path: Path, fields: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        _plan(tmp_path, fields)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'mine.yaml'}: mine") and message in text
    assert "\n" not in text and "?." not in text


def test_names_and_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    two = {name: {"align.alpha": {"low": 0, "high": high}} for name, high in (("a", 1), ("b", 2))}
    for words, message in (
        ("algin", "--space: unknown space 'algin'. Did you mean 'align'?"),
        (" , ", "--space: no space is named. Known: collaborative, align, graph, codes, generator."),
        ("nowhere.yaml", "nowhere.yaml: the file does not exist. Name a space or a YAML file."),
        (_file(tmp_path, two), "mine.yaml: b: align.alpha: has another range in another of the spaces."),
    ):
        with pytest.raises(UserError) as error:
            load_space(words)
        assert message in str(error.value)
    with pytest.raises(UserError, match="there is no space in it"):
        load_space(_file(tmp_path, {}))
    with pytest.raises(UserError, match=r"mine.yaml: align.alpha: a field where .* 'mine: \{align.alpha: …\}'"):
        load_space(_file(tmp_path, {"align.alpha": {"low": 0, "high": 1}}))
    with pytest.raises(UserError, match="measures nothing in training"):
        plan(load_space("align"), Experiment(), "evaluate")


def test_what_trains_on_the_validation_items_cannot_be_tuned() -> None:
    more = load("demo", ["train_on_validation=true", "evaluate.fusion_weights=[2]"])
    with pytest.raises(UserError, match="train_on_validation: leaves nothing to measure trials on"):
        plan(load_space("align"), more)
