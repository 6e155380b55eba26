from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from prorec_core.by_data import AUTO, STORED, ByData
from prorec_core.config import (
    BY_DATA,
    CollaborativeConfig,
    Experiment,
    GeneratorConfig,
    left_open,
)
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.registry import Registry

Path = tuple[str, ...]
_SPECIAL: dict[Path, dict[str, Any]] = {
    ("data", "timestamp_format"): {"data": {"timestamp_format": "%d/%m/%Y"}},
    ("data", "rating_column"): {"data": {"rating_column": "stars", "min_rating": 3}},
    ("data", "min_rating"): {"data": {"rating_column": "stars", "min_rating": 3}},
    ("collaborative", "dim"): {"collaborative": {"dim": 96}},
    ("collaborative", "heads"): {"collaborative": {"heads": 4}},
    ("generator", "dim"): {"generator": {"dim": 96}},
    ("generator", "heads"): {"generator": {"heads": 4}},
    ("device",): {"device": "cpu"},
    ("compute", "address"): {"compute": {"engine": "ray", "address": "auto"}},
    ("text", "vectors"): {"text": {"vectors": [{"name": "picture", "missing": "mean"}]}},
    ("name",): {"name": "another"},
    ("align", "start_norm"): {"align": {"start_norm": 0.5}},
    ("generator", "distill", "beta"): {"generator": {"distill": {"beta": 0.5}}},
    ("quantize", "rq_vae", "hidden"): {"quantize": {"rq_vae": {"hidden": [8, 4]}}},
    ("train_on_validation",): {"train_on_validation": True, "evaluate": {"fusion_weights": [3.0]}},
    ("generator", "ranker_weights"): {
        "train_on_validation": True,
        "evaluate": {"fusion_weights": [3.0]},
        "generator": {"ranker_weights": [1.0, 2.0, 0.5, 0.0, -0.25]},
    },
    ("generator", "ranker_file"): {
        "train_on_validation": True,
        "evaluate": {"fusion_weights": [3.0]},
        "generator": {"ranker_file": "ranker.json"},
    },
    ("data", "attribute_kinds"): {"data": {"attribute_columns": ["a=b"], "attribute_kinds": ["a=b=text"]}},
    ("data", "validation_from"): {"data": {"split": "by_time", "validation_from": "2024-01-31"}},
    ("data", "test_from"): {"data": {"split": "by_time", "test_from": 1_700_000_000}},
    ("data", "targets"): {"data": {"split": "by_position", "targets": "first"}},
    ("evaluate", "fusion_weights"): {"evaluate": {"fusion_weights": [3.0]}},
}


def _fields(model: type[BaseModel], path: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield (*path, name), field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, (*path, name))


ALL = list(_fields(Experiment))
LEAVES = [
    (path, field)
    for path, field in ALL
    if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
]


def _run_only(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("run_only"))


def _value(experiment: BaseModel, path: Path) -> Any:
    value: Any = experiment
    for name in path:
        value = getattr(value, name)
    return value


def _changed(path: Path, field: FieldInfo) -> Experiment:
    """The default experiment with another value at one place."""
    if path in _SPECIAL:
        return Experiment.model_validate(_SPECIAL[path])
    value, choices = _value(Experiment(), path), get_args(field.annotation)
    other: Any
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, int | float):
        other = (value / 2 or 0.5) if isinstance(value, float) else value + 1
    elif isinstance(value, list):
        other = [*value, "more"]
    elif kinds := next((each for each in field.metadata if isinstance(each, Registry)), None):
        other = next(name for name in kinds if name != value)
    elif value is None or not choices or type(None) in choices:
        other = "something_else"
    else:
        other = next(choice for choice in choices if choice != value)
    for name in reversed(path):
        other = {name: other}
    return Experiment.model_validate(other)


@pytest.mark.parametrize(("path", "field"), ALL, ids=[".".join(path) for path, _ in ALL])
def test_every_field_is_described(path: Path, field: FieldInfo) -> None:
    assert field.description
    assert len(field.description) > 3
    assert field.description[0] == field.description[0].strip()
    assert field.description.endswith(".")


@pytest.mark.parametrize(("path", "field"), LEAVES, ids=[".".join(path) for path, _ in LEAVES])
def test_every_number_has_a_range(path: Path, field: FieldInfo) -> None:
    if field.annotation in {int, float}:
        bounds = [each for each in field.metadata if each is not ByData]
        limits = {type(limit): getattr(limit, type(limit).__name__.lower()) for limit in bounds}
        lowest = limits[Ge] if Ge in limits else limits[Gt]
        highest = limits[Le] if Le in limits else limits[Lt]
        assert lowest <= _value(Experiment(), path) <= highest
        for wrong in (lowest - 1, math.inf, math.nan, highest + 1):
            nested: Any = wrong
            for name in reversed(path):
                nested = {name: nested}
            with pytest.raises(ValidationError):
                Experiment.model_validate(nested)


def _unbounded(schema: Any, place: str = "") -> Iterator[str]:
    """The places in a JSON schema where a number lacks a bound, or a text or list may be of any length."""
    if isinstance(schema, list):
        for part in schema:
            yield from _unbounded(part, place)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind in {"integer", "number"}:
        for bounds in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if not any(bound in schema for bound in bounds):
                yield f"{place}: no {bounds[0]}"
    needed = {"string": ("maxLength", "pattern", "enum", "const"), "array": ("maxItems",), "object": ()}.get(
        kind or "", ()
    )
    if needed and not any(each in schema for each in needed):
        yield f"{place}: no {needed[0]}"
    for name, part in schema.items():
        if name == "additionalProperties" and isinstance(part, dict) and "maxProperties" not in schema:
            yield f"{place}: no maxProperties"
        if name in {"properties", "$defs"}:
            for inner, of_inner in part.items():
                yield from _unbounded(of_inner, f"{place}.{inner}".removeprefix("."))
        elif name in {"items", "anyOf", "allOf", "oneOf"}:
            yield from _unbounded(part, place)


def test_everything_has_bounds() -> None:
    assert list(_unbounded(Experiment.model_json_schema())) == []
    assert list(_unbounded({"properties": {"a": {"type": "integer", "minimum": 1}}})) == ["a: no maximum"]


def test_the_ends_of_ranges_can_be_reckoned_with() -> None:
    """Nothing within the bounds makes a score infinite or 0: λ times a log-probability, a cosine over a temperature."""
    most = EvaluateConfig(fusion_weights=[1e6]).fusion_weights[0]
    assert np.isfinite(np.float32(most) * np.float32(-1e4))
    assert np.isfinite(np.float32(1.0) / np.float32(GeneratorConfig(node_temperature=1e-3).node_temperature))
    for section in ({"distill": {"temperature": 1e-300}}, {"node_temperature": 1e-300}):
        with pytest.raises(ValidationError):
            GeneratorConfig.model_validate(section)


def test_very_many_mistakes_are_few_complaints() -> None:
    """Whoever checks parameters, Prefect too, says what pydantic says."""
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate({f"field{number}": number for number in range(2000)} | {"seed": -1})
    first, second = caught.value.errors()
    assert first["msg"] == "2,000 unknown fields, the first 'field0', 'field1', 'field2'"
    assert second["loc"] == ("seed",) and second["type"] == "greater_than_equal"
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate({"evaluate": {"fusion_weights": [-1] * 1000}, "seed": "x"})
    told = caught.value.errors()
    assert len(told) <= 8 and "996 more mistakes" in {each["msg"] for each in told}
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate({"x" * 10_000: 1, "a\nb\x1b": 2})
    assert all(part.isprintable() and len(part) <= 80 for each in caught.value.errors() for part in each["loc"])


@pytest.mark.parametrize("change", [{}, *({".".join(path): (path, field)} for path, field in LEAVES)])
def test_a_yaml_file_says_the_same(change: dict[str, tuple[Path, FieldInfo]]) -> None:
    experiment = _changed(*next(iter(change.values()))) if change else Experiment()
    for mode in ("json", "python"):
        again = Experiment.model_validate(yaml.safe_load(yaml.safe_dump(experiment.model_dump(mode=mode))))
        assert again == experiment


def test_the_schema_tells_descriptions_and_limits() -> None:
    schema = Experiment.model_json_schema()
    epochs = schema["$defs"]["GeneratorConfig"]["properties"]["epochs"]
    assert epochs["anyOf"] == [
        {"minimum": 1, "maximum": 1000, "type": "integer"},
        {"const": "auto", "type": "string"},
    ]
    assert epochs["description"] and epochs["default"] == "auto"
    patience = schema["$defs"]["GeneratorConfig"]["properties"]["patience"]
    assert (patience["minimum"], patience["maximum"], patience["default"]) == (1, 1000, 4)
    assert all(not part.get("additionalProperties", True) for part in schema["$defs"].values())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"collaborative": {"dim": 30, "heads": 4}}, r"heads \(4\) must divide dim \(30\)"),
        ({"generator": {"dim": 30, "heads": 4}}, r"heads \(4\) must divide dim \(30\)"),
        ({"data": {"min_rating": 3}}, "rating_column and min_rating go together"),
        ({"compute": {"address": "auto"}}, "set engine to ray beside it"),
        ({"generator": {"epoch": 3}}, "Extra inputs are not permitted"),
        ({"generator": {"dropout": 1.0}}, "less than 1"),
        ({"evaluate": {"fusion_weights": [-1.0]}}, "greater than or equal to 0"),
        ({"evaluate": {"fusion_weights": []}}, "at least 1 item"),
        ({"train_on_validation": True}, "leaves nothing to choose a fusion weight on"),
        ({"generator": {"ranker_weights": [1.0] * 5}}, "ranker_weights is for train_on_validation"),
        ({"generator": {"ranker_file": "x"}}, "ranker_file is for train_on_validation"),
        ({"generator": {"ranker_file": "x", "ranker_weights": [1.0] * 5}}, "two rankers"),
        ({"generator": {"ranker_file": "x", "ranker": False}}, "ranker_file without ranker"),
        ({"generator": {"ranker_weights": [1.0] * 4}}, "at least 5 items"),
        ({"generator": {"ranker_weights": [1.0] * 5, "ranker": False}}, "ranker_weights without ranker"),
        ({"name": "No Spaces"}, "should match pattern"),
        ({"device": "gpu"}, "should match pattern"),
        ({"device": "cuda:x"}, "should match pattern"),
        ({"quantize": {"codes": 70_000}}, "less than or equal to 65535"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Experiment.model_validate(wrong)


def test_sections_are_values() -> None:
    assert Experiment() == Experiment()
    with pytest.raises(ValidationError, match="frozen"):
        TextConfig().model = "another"  # type: ignore[misc]
    assert GeneratorConfig().distill == GeneratorConfig().distill
    assert CollaborativeConfig(heads=8).heads == 8
    assert EvaluateConfig().fusion_weights[0] == 0


def test_a_column_has_one_part() -> None:
    with pytest.raises(ValidationError, match="must be different columns"):
        Experiment.model_validate({"data": {"user_column": "item_id"}})
    assert (
        Experiment.model_validate({"data": {"user_column": "who", "timestamp_column": None}}).data.user_column == "who"
    )


def _by_data(experiment: Experiment) -> dict[str, Any]:
    return {
        f"{name}.{field}": getattr(getattr(experiment, name), field) for name, of in BY_DATA.items() for field in of
    }


OWN = {"data": {"source": "tables", "path": "somewhere"}}


def test_own_data_that_say_nothing_leave_their_numbers_open_and_the_shop_has_its_own() -> None:
    shop = _by_data(Experiment())
    assert (shop["collaborative.dim"], shop["quantize.codes"], shop["generator.learning_rate"]) == (64, 64, 0.002)
    assert set(_by_data(Experiment.model_validate(OWN)).values()) == {AUTO}
    assert Experiment.model_validate(OWN) == Experiment(data=DataConfig(source="tables", path="somewhere"))


def test_what_is_said_stays_whoever_says_it() -> None:
    given = {"collaborative": {"dim": 64}, "align": {"graph": "auto"}}
    sections = CollaborativeConfig(dim=64, heads=4)
    for experiment in (Experiment.model_validate(OWN | given), Experiment(**OWN, collaborative=sections)):
        found = _by_data(experiment)
        assert found.pop("collaborative.dim") == 64 and set(found.values()) == {AUTO}
    # A number that happens to be the shop's is said all the same, and comes back from a complete record.
    whole = Experiment.model_validate(OWN | given)
    assert Experiment.model_validate(whole.model_dump()) == whole
    assert Experiment.model_validate(whole.model_dump(mode="json")) == whole


def test_auto_means_the_shops_own_numbers_where_the_data_are_the_shops() -> None:
    every = {name: dict.fromkeys(fields, AUTO) for name, fields in BY_DATA.items()}
    assert Experiment.model_validate(every) == Experiment()
    assert set(_by_data(left_open()).values()) == {AUTO}
    assert Experiment.model_validate(left_open().model_dump()) == Experiment()
    assert set(_by_data(Experiment.model_validate({**left_open().model_dump(), **OWN})).values()) == {AUTO}


def test_nothing_is_filled_into_a_stored_record() -> None:
    record = {**Experiment.model_validate(OWN).model_dump(), "quantize": {}}
    assert Experiment.model_validate(record, context=STORED).quantize.codes == 64
    assert "codes" not in Experiment.model_validate(record, context=STORED).quantize.model_fields_set


@pytest.mark.parametrize("wrong", ["Auto", "automatic", "", True, None, [AUTO]])
def test_no_other_word_stands_for_a_number(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Experiment.model_validate({"generator": {"dim": wrong}})


def test_open_numbers_are_checked_once_they_are_known() -> None:
    soft = {"distill": {"soft_targets": 0.5}, "heads": 3, "max_history": 100}
    open_ = Experiment.model_validate(OWN | {"generator": soft})
    assert open_.generator.heads == 3
    with pytest.raises(ValidationError, match=r"heads \(3\) must divide dim \(64\)"):
        Experiment.model_validate(OWN | {"generator": soft | {"dim": 64}})
    with pytest.raises(ValidationError, match="soft_targets are Stage I's"):
        Experiment.model_validate(OWN | {"generator": soft, "align": {"max_history": 50}})
