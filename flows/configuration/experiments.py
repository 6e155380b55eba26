"""Experiments by name, file and `--set`: from what a user writes to a checked `Experiment`, or to one clear line.

Knows YAML, presets and pydantic's complaints; knows nothing of stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import ErrorDetails

from prorec.flows.configuration import plain_yaml
from prorec.flows.datasets import presets as datasets
from prorec.tasks.local import paths
from prorec_core.config import Experiment
from prorec_core.errors import SeveralMistakesError, UserError, did_you_mean
from prorec_core.sections import MORE_MISTAKES, UNKNOWN_FIELDS, few_mistakes
from prorec_core.versions import now_named, with_names_of_today
from prorec_core.visible import shortened

BUILT_IN = "demo"
"""The preset that needs no file: all defaults."""
Parameter = Annotated[Experiment, BeforeValidator(with_names_of_today)]
"""A flow's parameter as deployments and their schedules keep it: under the names that fields had then."""
_LONGEST_SHOWN = 80
_OF_MANY = {UNKNOWN_FIELDS, MORE_MISTAKES}


def checked(experiment: Experiment) -> Experiment:
    """A flow's parameter once more: Prefect hands a default over as forms show it, unchecked (`left_open`)."""
    return Experiment.model_validate(experiment.model_dump())


def preset_files() -> dict[str, Path]:
    """The presets that are files, by name: `configs/*.yaml`."""
    return {path.stem: path for path in sorted(paths.installed("configs").glob("*.yaml"))}


def load(name: str, settings: Iterable[str] = ()) -> Experiment:
    """The experiment of a preset or a YAML file, changed by settings of the form `section.key=value`.

    Raises:
        UserError: an unknown name, a file that cannot be read, an unknown field or a value out of range.
    """
    settings = list(settings)
    values, place = _read(name, settings)
    raw: dict[tuple[str, ...], str] = {}
    for setting in settings:
        path, text = _split(setting)
        if undone := [each for each in raw if each != path and each[: len(path)] == path]:
            message = f"'{_short(setting)}' would undo the setting of {'.'.join(undone[0])} before it"
            raise UserError(message, place="--set", cure="Give one of both")
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


def _read(name: str, settings: Iterable[str]) -> tuple[dict[str, Any], str]:
    presets = preset_files()
    looks_like_file = name.endswith((".yaml", ".yml")) or "/" in name
    # Whoever names a folder has the data there, in the form that the preset is for.
    elsewhere = any(each.split("=")[0].strip() == "data.path" for each in settings)
    dataset = None if looks_like_file or (elsewhere and name in presets) else datasets.of(name)
    if dataset is not None:
        like = name if name in presets else dataset.like
        found = _read_file(presets[like]) if like in presets else {}
        if like is not None and like not in presets:
            raise UserError(f"the preset '{like}' is missing, which '{name}' is like", cure="Install prorec anew")
        return {**found, "name": name, "data": datasets.section(dataset)}, name
    if not looks_like_file and name in presets:
        return _read_file(presets[name]), presets[name].name
    if name == BUILT_IN:
        return {}, ""
    path = Path(name)
    if path.is_file():
        if not (found := _read_file(path)):
            cure = f"Write what differs from the defaults, as a section 'data:', or run '{BUILT_IN}'"
            raise UserError("there is nothing in the file", place=name, cure=cure)
        return found, name
    if looks_like_file:
        problem = "this is a folder" if path.is_dir() else "the file does not exist"
        raise UserError(problem, place=name, cure="Name a preset or a YAML file")
    known = dict.fromkeys([BUILT_IN, *presets, *datasets.names()])
    raise UserError(f"unknown experiment '{name}'", cure=did_you_mean(name, known))


def _read_file(path: Path) -> dict[str, Any]:
    found = read_yaml(path)
    return {"name": path.stem, **found} if found and "name" not in found else found


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file of sections holds.

    Raises:
        UserError: it cannot be read, is no YAML of plain values, or holds no sections.
    """
    found = plain_yaml.read_file(path)
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
        _put(values, tuple(key.split(".")), value, key, place)
    return _validated(values, place, {})


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted field as the sections of an experiment.

    Raises:
        UserError: a field lies inside another one.
    """
    values: dict[str, Any] = {}
    for key, value in settings.items():
        _put(values, tuple(key.split(".")), value, key)
    return values


def _split(setting: str) -> tuple[tuple[str, ...], str]:
    key, equals, text = setting.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise UserError(
            f"'{_short(setting)}' is no setting",
            place="--set",
            cure="Write section.key=value, for instance generator.epochs=5",
        )
    return path, text


def _parse(setting: str, text: str) -> Any:
    # YAML keeps this sign for itself, and formats of times begin with it.
    if text.startswith("%"):
        return text
    try:
        return plain_yaml.parse(text) if text.strip() else ""
    except plain_yaml.PlainYAMLError as error:
        message = f"the value of '{_short(setting)}' cannot be read"
        raise UserError(message, place="--set", cure=f"Quote it: {error.problem}") from error


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any, setting: str, place: str = "--set") -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            message = f"'{_short(setting)}' names a field inside '{part}', which is no section"
            raise UserError(message, place=place, cure="Leave out what follows it")
        values = inner
    values[path[-1]] = value


def with_files_in(folder: str, experiment: Experiment) -> Experiment:
    """The experiment with full paths in place of those that start at a folder; as it is where that is not known, ""."""

    def in_full(given: str | None) -> str | None:
        return given if given is None or given.startswith("~") else str(Path(folder) / given)

    data, text, quantize, generator = experiment.data, experiment.text, experiment.quantize, experiment.generator
    evaluate = experiment.evaluate
    # What is no folder there is a model of the hub, or a package.
    encoder = text.model if not (Path(folder) / text.model).exists() else in_full(text.model)
    vectors = [each.model_copy(update={"path": in_full(each.path)}) for each in text.vectors]
    return experiment.model_copy(
        update={
            "data": data.model_copy(update={"path": in_full(data.path)}),
            "text": text.model_copy(update={"model": encoder, "vectors": vectors}),
            "quantize": quantize.model_copy(update={"table": in_full(quantize.table)}),
            "generator": generator.model_copy(update={"ranker_file": in_full(generator.ranker_file)}),
            "evaluate": evaluate.model_copy(update={"lists_file": in_full(evaluate.lists_file)}),
        }
    )


def explained(
    error: ValidationError,
    place: str,
    raw: Mapping[tuple[str, ...], str] | None = None,
    root: type[BaseModel] = Experiment,
) -> UserError:
    """All complaints about what should be a `root`, a line each, as one error; of very many the first."""
    errors = []
    for details in few_mistakes(error).errors():
        path = tuple(str(part) for part in details["loc"])
        from_settings = any(path[: len(each)] == each or each[: len(path)] == path for each in raw or ())
        field = ".".join(path) or ("experiment" if root is Experiment else "")
        where = field if from_settings or not place else f"{place}: {field}".removesuffix(": ")
        now = now_named(field) if root is Experiment and details["type"] == "extra_forbidden" else field
        if now != field:
            errors.append(UserError(f"{field} is now {now}", place="" if from_settings else place))
        else:
            errors.append(UserError(_problem(details), place=where, cure=_cure(details, path, root)))
    return errors[0] if len(errors) == 1 else SeveralMistakesError(errors)


def _problem(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    got = f" (got {_shown(details['input'])})"
    match details["type"]:
        case kind if kind in _OF_MANY:
            return details["msg"]
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
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
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
    if isinstance(value, str):
        return shortened(repr(value[:_LONGEST_SHOWN]), _LONGEST_SHOWN)
    try:
        return "null" if value is None else shortened(str(value), _LONGEST_SHOWN)
    except (ValueError, RecursionError):
        # Python writes no number of thousands of digits, and nothing that lies thousands of levels deep.
        return "too large to be shown"


def _short(setting: str) -> str:
    return shortened(setting, _LONGEST_SHOWN)


def _cure(details: ErrorDetails, path: tuple[str, ...], root: type[BaseModel]) -> str:
    if details["type"] == UNKNOWN_FIELDS:
        section = _section(path, root)
        return did_you_mean("", section.model_fields) if section else ""
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
