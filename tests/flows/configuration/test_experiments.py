"""From a name, a file and settings to an experiment, or to one clear line."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prefect.exceptions import ParameterTypeError

from prorec.flows.configuration.experiments import load, nested, preset_files
from prorec.flows.datasets.declared import data_sets
from prorec_core import versions
from prorec_core.config import BY_DATA, Experiment
from prorec_core.errors import UserError
from prorec_core.fitting import Size, fitted, open_fields
from prorec_core.sections import Renamed


def test_demo_is_all_defaults() -> None:
    assert load("demo") == Experiment()


@pytest.mark.parametrize("name", preset_files())
def test_presets_are_valid_and_hold_only_differences(name: str) -> None:
    # Without a folder, a preset of the name of a public data set reads that.
    folder = ["data.path=/data"]
    experiment = load(name, folder)
    assert experiment.name == name
    assert load(str(preset_files()[name]), folder) == experiment


@pytest.mark.parametrize(
    "name", dict.fromkeys([*preset_files(), *(each for each in data_sets() if data_sets()[each].like)])
)
def test_presets_say_every_number_that_could_follow_the_data(name: str) -> None:
    assert open_fields(load(name)) == []


@pytest.mark.parametrize(
    ("preset", "size"),
    [
        ("demo", Size(2_996, 1_189, 26_795, 14.0)),
        ("amazon-beauty", Size(22_363, 12_101, 198_502, 14.0)),
        ("ml-100k", Size(943, 1_349, 99_287, 241.0)),
        # The rule was not fitted on these.
        ("yelp", Size(30_431, 20_033, 316_354, 19.0)),
    ],
)
def test_the_rule_gives_data_as_large_as_a_presets_its_numbers(preset: str, size: Size) -> None:
    known = load(preset, ["data.path=/data"])
    own = Experiment.model_validate({"data": {"source": "tables"}})
    found = fitted(own, size)
    assert {name: getattr(found, name) for name in BY_DATA} == {name: getattr(known, name) for name in BY_DATA}


def test_own_data_are_open_whatever_they_begin_as(tmp_path: Path) -> None:
    own = ["data.source=tables", f"data.path={tmp_path}"]
    (tmp_path / "shop.yaml").write_text(f"data: {{source: tables, path: {tmp_path}}}\ngenerator: {{dim: 64}}")
    every = open_fields(load("demo", own))
    assert len(every) == 19 and open_fields(load("repeat-purchases", own)) == every
    assert set(every) - set(open_fields(load(str(tmp_path / "shop.yaml")))) == {"generator.dim"}
    assert open_fields(load("amazon-beauty", [*own, "align.graph=auto"])) == ["align.graph"]
    assert load("demo", ["generator.dim=auto"]) == Experiment()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["generator.dim=automatic"], "generator.dim: must be a whole number (got 'automatic')."),
        (["generator.epochs=0"], "generator.epochs: must be >= 1 (got 0)."),
        (["generator.epoch=4"], "generator.epoch: unknown field. Did you mean 'epochs'?"),
        (["generatr.epochs=4"], "generatr: unknown field. Did you mean 'generator'?"),
        (["quantize.rq_vae.epoch=4"], "quantize.rq_vae.epoch: unknown field. Did you mean 'epochs'?"),
        (["generator.epochs=many"], "generator.epochs: must be a whole number (got 'many')."),
        (["generator.learning_rate=0"], "generator.learning_rate: must be > 0 (got 0)."),
        (["generator.dropout=1"], "generator.dropout: must be < 1 (got 1)."),
        (["align.alpha=101"], "align.alpha: must be <= 100 (got 101)."),
        (["generator.warm_start=perhaps"], "generator.warm_start: must be true or false (got 'perhaps')."),
        (["generator=3"], "generator: must be a section with fields (got 3)."),
        (["seed.of=3"], "seed: must be a whole number"),
        (["data.text_columns=title"], "data.text_columns: must be a list (got 'title')."),
        (["data.text_columns=[]"], "data.text_columns: needs at least 1 entries (got [])."),
        (["quantize.rq_vae.hidden=[0]"], "quantize.rq_vae.hidden.0: must be >= 1 (got 0)."),
        (["generator.dim=5"], "generator: heads (2) must divide dim (5)."),
        (["name=A b"], "name: must match"),
        (["generator.epochs"], "--set: 'generator.epochs' is no setting. Write section.key=value"),
        (["=3"], "--set: '=3' is no setting."),
        (["data.text_columns=[title"], "--set: the value of 'data.text_columns=[title' cannot be read."),
        (["seed=1", "seed.x=2"], "--set: 'seed.x=2' names a field inside 'seed', which is no section."),
        (["quantize.method=rqvae"], "Did you mean 'rq_vae'?"),
        (["generator.epochs=3", "generator={dim: 32}"], "would undo the setting of generator.epochs before it."),
        (["evaluate.fusion_weights=[1e300]"], "evaluate.fusion_weights.0: must be <= 1e+06 (got 1e+300)."),
        (["generator.max_history=60", "generator.distill.soft_targets=0.5"], "generator.max_history to at most align"),
        (
            ["seed=!!int 3"],
            "--set: the value of 'seed=!!int 3' cannot be read. Quote it: the tag '!!int' is not taken.",
        ),
        (["device=cuda:999999999999999999999"], "device: must match"),
        (["x" * 10_000], "--set: 'xxx"),
        (["x" * 10_000 + "=3"], "xxx...: unknown field."),
        (["seed=" + "9" * 5000], "seed: must be a whole number (got '999"),
        (["data=" + "[" * 3000], "--set: the value of 'data=[[["),
        (["a\x1b[31m=3"], "a\\x1b[31m: unknown field."),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load("demo", settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_each_mistake_has_its_line() -> None:
    with pytest.raises(UserError) as caught:
        load("demo", ["generator.epochs=0", "seed=-1"])
    assert sorted(str(caught.value).splitlines()) == [
        "generator.epochs: must be >= 1 (got 0).",
        "seed: must be >= 0 (got -1).",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  path: [x\nname: a\n", "line 3: this is no valid YAML"),
        ("data:\n  path: x\n  path: y\n", "line 3: this is no valid YAML: the key 'path' stands here a second time."),
        ("- a\n", "the file must hold sections such as 'data:'"),
        ("generator: {epochs: 0}\n", "generator.epochs: must be >= 1 (got 0)."),
        ("generater: {epochs: 1}\n", "generater: unknown field. Did you mean 'generator'?"),
        ("name: \xff\n", "the file cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        load(str(path))
    assert str(path) in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dmo", "unknown experiment 'dmo'. Did you mean 'demo'?"),
        ("nowhere/own.yaml", "nowhere/own.yaml: the file does not exist."),
        ("xyzzy", "unknown experiment 'xyzzy'. Known: demo"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(name)
    assert message in str(caught.value)


def test_a_file_without_a_name_is_named_after_itself(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("seed: 3\n")
    experiment = load(str(tmp_path / "own.yaml"), ["generator.epochs=2", "data.path=../x", "name=2024"])
    assert (experiment.name, experiment.seed, experiment.generator.epochs) == ("2024", 3, 2)
    assert experiment.data.path == "../x" and load(str(tmp_path / "own.yaml")).name == "own"


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "{}\n"])
def test_an_empty_file_is_refused_and_does_not_run_the_demo(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(UserError, match=r"own\.yaml: there is nothing in the file\. Write what differs"):
        load(str(tmp_path / "own.yaml"))
    with pytest.raises(UserError, match="this is a folder"):
        load(str(tmp_path))


@given(st.integers(1, 1000), st.floats(1e-6, 1.0), st.booleans())
def test_settings_read_back_what_they_say(epochs: int, rate: float, warm: bool) -> None:
    generator = load(
        "demo",
        [
            f"generator.epochs={epochs}",
            f"generator.learning_rate={rate!r}",
            f"generator.warm_start={str(warm).lower()}",
            "data.rating_column=null",
        ],
    ).generator
    assert (generator.epochs, generator.learning_rate, generator.warm_start) == (epochs, rate, warm)


def test_a_format_of_times_needs_no_second_quotes() -> None:
    """YAML keeps the sign that it begins with for itself."""
    found = load("demo", ["data.timestamp_format=%m/%d/%Y %H:%M:%S", "data.missing=['NULL', nan]"])
    assert found.data.timestamp_format == "%m/%d/%Y %H:%M:%S" and found.data.missing == ["NULL", "nan"]


def test_a_shown_experiment_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(Experiment(seed=5).model_dump(mode="json")))
    assert load(str(path)) == Experiment(seed=5)


def test_dotted_fields_are_sections() -> None:
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    with pytest.raises(UserError, match=r"'a\.b' names a field inside 'a', which is no section"):
        nested({"a": 1, "a.b": 2})


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a field and a section of today had been renamed in the newest version."""
    step = (Renamed("data.shuffle_seed", "data.ties_seed"), Renamed("fuse", "align"))
    monkeypatch.setattr(versions, "STEPS", (*versions.STEPS, step))
    monkeypatch.setattr(versions, "VERSION", versions.VERSION + 1)


@pytest.mark.usefixtures("renamed")
def test_a_field_under_its_former_name_is_told_the_one_of_today(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("data: {shuffle_seed: 1}\n")
    with pytest.raises(UserError) as caught:
        load(str(path))
    assert str(caught.value) == f"{path}: data.shuffle_seed is now data.ties_seed."
    with pytest.raises(UserError) as caught:
        load("demo", ["data.shuffle_seed=1"])
    assert str(caught.value) == "data.shuffle_seed is now data.ties_seed."


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize("module", ["full.prorec", "compare.compare"])
def test_parameters_that_a_deployment_keeps_are_read_under_former_names(module: str) -> None:
    name, _, of = module.partition(".")
    flow = getattr(importlib.import_module(f"prorec.flows.{name}"), of)
    given = {"experiment": {"seed": 3, "data": {"shuffle_seed": 5}, "fuse": {"alpha": 0.5}}}
    found = flow.validate_parameters(given)["experiment"]
    assert found == Experiment.model_validate({"seed": 3, "data": {"ties_seed": 5}, "align": {"alpha": 0.5}})
    with pytest.raises(ParameterTypeError, match=r"experiment\.data\.gone: Extra inputs are not permitted"):
        flow.validate_parameters({"experiment": {"data": {"gone": 5}}})
