"""Experiments by name, file and `--set`: from what a user writes to a checked `Experiment`, or to one clear line.

Knows YAML, presets and pydantic's complaints; knows nothing of stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from prorec_core.config import Experiment
from prorec_core.errors import UserError, did_you_mean
from tasks import places

BUILT_IN = "demo"
"""The preset that needs no file: all defaults."""


def preset_files() -> dict[str, Path]:
    """The presets that are files, by name: `configs/*.yaml` of the project."""
    return {path.stem: path for path in sorted((places.project_root() / "configs").glob("*.yaml"))}


def load(name: str, settings: Iterable[str] = ()) -> Experiment:
    """The experiment of a preset or a YAML file, changed by settings of the form `section.key=value`.

    Raises:
        UserError: an unknown name, a file that cannot be read, an unknown field or a value out of range.
    """
    values, place = _read(name)
    raw: dict[tuple[str, ...], str] = {}
    for setting in settings:
        path, text = _split(setting)
        _put(values, path, _parse(setting, text), setting)
        raw[path] = text
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        # A name such as 2024 is a number to YAML, and `--set` has no way to quote it in most shells.
        wrong = [tuple(map(str, each["loc"])) for each in error.errors() if each["type"] == "string_type"]
        plain = [each for each in wrong if each in raw]
        for each in plain:
            _put(values, each, raw[each], "")
        if plain:
            return _validated(values, place, raw)
        raise explained(error, place, raw) from error


def _validated(values: dict[str, Any], place: str, raw: Mapping[tuple[str, ...], str]) -> Experiment:
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise explained(error, place, raw) from error


def _read(name: str) -> tuple[dict[str, Any], str]:
    presets = preset_files()
    looks_like_file = name.endswith((".yaml", ".yml")) or "/" in name
    if not looks_like_file and name in presets:
        return _read_file(presets[name]), presets[name].name
    if name == BUILT_IN:
        return {}, ""
    path = Path(name)
    if path.is_file():
        return _read_file(path), name
    if looks_like_file:
        raise UserError("the file does not exist", place=name, cure="Name a preset or a YAML file")
    known = dict.fromkeys([BUILT_IN, *presets])
    raise UserError(f"unknown experiment '{name}'", cure=did_you_mean(name, known))


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands here a second time", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_file(path: Path) -> dict[str, Any]:
    found = read_yaml(path)
    return {"name": path.stem, **found} if found and "name" not in found else found


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file of sections holds.

    Raises:
        UserError: it cannot be read, is no YAML, or holds no sections.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"this is no valid YAML: {error.problem or error.context}", place=f"{path}{line}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"the file cannot be read ({error})", place=str(path)) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError("the file must hold sections such as 'data:'", place=str(path))
    return found


def changed(experiment: Experiment, settings: Mapping[str, Any], place: str) -> Experiment:
    """The experiment with other values at some dotted places.

    Raises:
        UserError: an unknown field or a value out of range; it tells `place`.
    """
    values = experiment.model_dump(mode="python")
    for key, value in settings.items():
        _put(values, tuple(key.split(".")), value, key)
    return _validated(values, place, {})


def _split(setting: str) -> tuple[tuple[str, ...], str]:
    key, equals, text = setting.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise UserError(
            f"'{setting}' is no setting",
            place="--set",
            cure="Write section.key=value, for instance generator.epochs=5",
        )
    return path, text


def _parse(setting: str, text: str) -> Any:
    # YAML keeps this sign for itself, and formats of times begin with it.
    if text.startswith("%"):
        return text
    try:
        return yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError as error:
        raise UserError(f"the value of '{setting}' cannot be read", place="--set", cure="Quote it") from error


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any, setting: str) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"'{setting}' names a field inside '{part}', which is no section", place="--set")
        values = inner
    values[path[-1]] = value


def explained(
    error: ValidationError,
    place: str,
    raw: Mapping[tuple[str, ...], str] | None = None,
    root: type[BaseModel] = Experiment,
) -> UserError:
    """All complaints about what should be a `root`, a line each, as one error."""
    lines = []
    for details in error.errors():
        path = tuple(str(part) for part in details["loc"] if not _is_tag(part))
        from_settings = any(path[: len(each)] == each or each[: len(path)] == path for each in raw or ())
        field = ".".join(path) or ("experiment" if root is Experiment else "")
        where = field if from_settings or not place else f"{place}: {field}".removesuffix(": ")
        lines.append(str(UserError(_problem(details), place=where, cure=_cure(details, path, root))))
    return UserError("\n".join(lines))


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and ("[" in part or "(" in part)


def _problem(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    got = f" (got {_shown(details['input'])})"
    match details["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "greater_than_equal":
            return f"must be >= {context['ge']:g}{got}"
        case "greater_than":
            return f"must be > {context['gt']:g}{got}"
        case "less_than_equal":
            return f"must be <= {context['le']:g}{got}"
        case "less_than":
            return f"must be < {context['lt']:g}{got}"
        case "literal_error":
            return f"must be {context['expected']}{got}"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"must be a whole number{got}"
        case "float_parsing" | "float_type" | "finite_number":
            return f"must be a number{got}"
        case "bool_parsing" | "bool_type":
            return f"must be true or false{got}"
        case "string_type":
            return f"must be a text{got}"
        case "list_type":
            return f"must be a list{got}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a section with fields{got}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}{got}"
        case "too_short":
            return f"needs at least {context['min_length']} entries{got}"
        case "too_long":
            return f"has more than {context['max_length']} entries{got}"
        case "value_error":
            return str(context.get("error", details["msg"]))
        case _:
            return f"{details['msg'][:1].lower()}{details['msg'][1:]}{got}"


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _cure(details: ErrorDetails, path: tuple[str, ...], root: type[BaseModel]) -> str:
    if details["type"] == "extra_forbidden":
        section = _section(path[:-1], root)
        return did_you_mean(path[-1], section.model_fields) if section else ""
    if details["type"] == "literal_error" and isinstance(details["input"], str):
        words = [word.strip(" '") for word in details["ctx"]["expected"].replace(" or ", ",").split(",")]
        cure = did_you_mean(details["input"], words)
        return cure if cure.startswith("Did") else ""
    return ""


def _section(path: tuple[str, ...], root: type[BaseModel]) -> type[BaseModel] | None:
    """The model of a section, found from the root by the names of fields."""
    section = root
    for part in path:
        field = section.model_fields.get(part)
        models = _models(field.annotation) if field else []
        if not models:
            return None
        section = models[0]
    return section


def _models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in {Annotated, Union, UnionType}:
        return [model for each in get_args(annotation) for model in _models(each)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
