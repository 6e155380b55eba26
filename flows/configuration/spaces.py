"""Spaces of a tuning: which fields of an experiment are tried with which values, and the stage that measures them.

Knows YAML, fields and ranges; knows nothing of how trials are run or kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field, ValidationError, field_validator, model_validator

from prorec.flows.configuration.experiments import changed, explained, nested, read_yaml
from prorec.tasks.execution.sources import source_hash
from prorec.tasks.execution.stage import versions
from prorec.tasks.local import paths
from prorec.tasks.stages.pipeline import STAGES, up_to
from prorec.tasks.tracking.mlflow_runs import flatten
from prorec_core.config import Experiment
from prorec_core.errors import UserError, did_you_mean
from prorec_core.fitting import open_fields
from prorec_core.registry import GENERATORS, QUANTIZERS, SEQUENTIAL_MODELS
from prorec_core.sections import Name, Section
from prorec_core.yaml_text import dump

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value: TypeAlias = bool | int | float | str | None

MADE_OF: Mapping[str, tuple[str, ...]] = {
    name: tuple(each.name for each in up_to(name)) for name, stage in STAGES.items() if stage.validates
}
"""The stages that measure on validation users, each with all the stages that its figure rests on, in order."""

_PROTOCOL = (
    "name",
    "seed",
    "device",
    "data",
    "evaluate",
    "train_on_validation",
    *(f"{section}.validation_users" for section in ("collaborative", "align", "generator")),
    "generator.validation_beams",
)
"""What no trial may change: all are measured on the same users in the same way."""
_MOST = 1e12
"""Beyond what any field can be, and well within what can be reckoned with."""
_LONGEST_NAME = 63
_SUFFIX = "-tune"


class Range(Section):
    """The values that a field is tried with: between two bounds, or some choices."""

    low: float | None = Field(None, ge=-_MOST, le=_MOST, description="The lowest value.")
    high: float | None = Field(None, ge=-_MOST, le=_MOST, description="The highest value.")
    log: bool = Field(False, description="Whether the logarithm is drawn evenly, not the value.")
    step: float | None = Field(None, ge=1 / _MOST, le=_MOST, description="The distance of neighbouring values.")
    choices: list[Value] | None = Field(None, min_length=2, max_length=1000, description="The values themselves.")

    @field_validator("choices", mode="before")
    @classmethod
    def _plain_choices(cls, given: Any) -> Any:
        if isinstance(given, list) and not all(isinstance(each, Value) for each in given):
            raise ValueError("a choice is a number, a text, true, false or null")
        return given

    @model_validator(mode="after")
    def _bounds_or_choices(self) -> Range:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("choices have no low, high, log or step")
            if len({repr(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("a choice stands there twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("low and high are needed, or choices")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if not math.isclose(steps, round(steps), abs_tol=1e-8):
                raise ValueError(f"step ({self.step:g}) must divide high − low ({self.high - self.low:g})")
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """All its numbers that are values of the field, or lead from one to the next."""
        return tuple(number for number in (self.low, self.high, self.step) if number is not None)


class Space(Section):
    """Ranges by dotted field.

    Attributes:
        name: of the space; a study that is given no name of its own is called after it.
        ranges: by field the values that it is tried with.
        places: by field where its range is written, for messages.
    """

    name: Name
    ranges: dict[str, Range] = Field(min_length=1, max_length=200)
    places: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """What a tuning tries, and what is measured.

    Attributes:
        space: the fields and their values.
        base: the experiment as it stands.
        stage: the stage whose validation NDCG@10 is the objective.
        shared: the stages before the first that a tuned field changes; every trial reads the same artifacts of them.
        varied: the stages from there to `stage`.
    """

    space: Space
    base: Experiment
    stage: str
    shared: tuple[str, ...]
    varied: tuple[str, ...]

    def experiment(self, values: Mapping[str, Value]) -> Experiment:
        """The experiment of a trial. A name of its own keeps its generator apart from the experiment's.

        Raises:
            UserError: the values do not go together.
        """
        mine = changed(self.base, values, "")
        return mine.model_copy(update={"name": f"{self.base.name[: _LONGEST_NAME - len(_SUFFIX)]}{_SUFFIX}"})

    @property
    def study(self) -> str:
        """What a study of it is called that is given no other name."""
        return f"{self.base.name}-{self.space.name}"

    @property
    def as_it_stands(self) -> dict[str, Value]:
        """The values that the tuned fields have in the experiment."""
        every = dict(flatten(self.base.model_dump(mode="json")))
        return {field: every[field] for field in self.space.ranges}

    def distributions(self) -> dict[str, BaseDistribution]:
        """The ranges as Optuna has them."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {}
        for field, each in self.space.ranges.items():
            if each.choices is not None:
                found[field] = CategoricalDistribution(each.choices)
                continue
            assert each.low is not None and each.high is not None
            if isinstance(self.as_it_stands[field], int):
                step = int(each.step or 1)
                found[field] = IntDistribution(int(each.low), int(each.high), log=each.log, step=step)
            else:
                found[field] = FloatDistribution(each.low, each.high, log=each.log, step=each.step)
        return found

    def settings(self, data: str) -> dict[str, Any]:
        """All that a trial's figure depends on besides its own values, flat: two studies with equal ones are one.

        Args:
            data: digest of the source of the data.
        """
        stages = [STAGES[name] for name in (*self.shared, *self.varied)]
        fields = {field: value for stage in stages for field, value in flatten(stage.values(self.base))}
        for field in ("name", *self.space.ranges):
            fields.pop(field, None)
        ranges = {f"range of {field}": each.model_dump(exclude_defaults=True) for field, each in self._ranges()}
        # Trials may differ in what they choose where a choice is tuned.
        tuned = any(kinds.field in self.space.ranges for kinds in (SEQUENTIAL_MODELS, QUANTIZERS, GENERATORS))
        code = source_hash([stage.module for stage in stages], None if tuned else self.base)
        libraries = {f"version of {name}": each for stage in stages for name, each in versions(stage.libraries).items()}
        outside = {f"outside of {stage.name}": stage.found_outside(self.base) for stage in stages if stage.reads}
        known = {"measured stage": self.stage, **ranges, **fields, "data": data, "program": code, **libraries}
        return known | {name: digest for name, digest in outside.items() if digest}

    def _ranges(self) -> list[tuple[str, Range]]:
        return sorted(self.space.ranges.items())


def flags(values: Mapping[str, Value]) -> list[str]:
    """Values as arguments of `--set`."""
    return [f"{field}={_plain(value)}" for field, value in values.items()]


def as_yaml(values: Mapping[str, Value]) -> str:
    """Values as the sections of an experiment's YAML file."""
    return dump(nested(values))


def _plain(value: Value) -> str:
    return value if isinstance(value, str) else dump(value).splitlines()[0]


def load_space(words: str) -> Space:
    """The space of some names with commas between them, or of a YAML file.

    Raises:
        UserError: an unknown name, or a file that holds no spaces.
    """
    if words.endswith((".yaml", ".yml")) or "/" in words:
        path = Path(words)
        if not path.is_file():
            problem = "this is a folder" if path.is_dir() else "the file does not exist"
            raise UserError(problem, place=words, cure="Name a space or a YAML file")
        found = _read(path, words)
        return _joined(path.stem, found, list(found), words)
    standard = paths.installed("configs") / "spaces" / "standard.yaml"
    found = _read(standard, standard.name)
    names = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        if name not in found:
            raise UserError(f"unknown space '{name}'", place="--space", cure=did_you_mean(name, found))
    if not names:
        raise UserError("no space is named", place="--space", cure=f"Known: {', '.join(found)}")
    return _joined("-".join(names), found, names, standard.name)


def _read(path: Path, place: str) -> dict[str, dict[str, Range]]:
    found: dict[str, dict[str, Range]] = {}
    for name, fields in read_yaml(path).items():
        if "." in str(name):
            cure = f"Put the fields below a name of yours, as in 'mine: {{{name}: …}}'"
            raise UserError("a field where a space's name belongs", place=f"{place}: {name}", cure=cure)
        if not isinstance(fields, dict) or not fields:
            raise UserError("a space is a section of fields with ranges", place=f"{place}: {name}")
        found[str(name)] = {str(field): _range(each, f"{place}: {name}: {field}") for field, each in fields.items()}
    if not found:
        raise UserError("there is no space in it", place=place)
    return found


def _range(found: Any, place: str) -> Range:
    if not isinstance(found, dict):
        raise UserError("a range is needed", place=place, cure="Write {low: …, high: …} or {choices: [ … ]}")
    try:
        return Range.model_validate(found)
    except ValidationError as error:
        raise explained(error, place, root=Range) from error


def _joined(name: str, found: Mapping[str, Mapping[str, Range]], names: list[str], place: str) -> Space:
    ranges: dict[str, Range] = {}
    written: dict[str, str] = {}
    for each in names:
        for field, values in found[each].items():
            if ranges.get(field, values) != values:
                raise UserError("has another range in another of the spaces", place=f"{place}: {each}: {field}")
            ranges[field], written[field] = values, f"{place}: {each}"
    return Space(name=name, ranges=ranges, places=written)


def plan(space: Space, base: Experiment, stage: str | None = None) -> Plan:
    """What is tried where this space of this experiment is tuned.

    Args:
        space: the fields and their values.
        base: the experiment as it stands.
        stage: the stage that measures; by default the earliest that all fields have an effect on.

    Raises:
        UserError: a field that does not exist, is no trial's to change or has no effect on that stage; a value that
            the field cannot have; no such stage.
    """
    if stage is not None and stage not in MADE_OF:
        raise UserError(f"'{stage}' measures nothing in training", place="--stage", cure=did_you_mean(stage, MADE_OF))
    if base.train_on_validation:
        raise UserError("leaves nothing to measure trials on", place="train_on_validation", cure="Set it to false")
    for field, each in space.ranges.items():
        _check(field, each, base, space.places[field])
    read = {name: set(dict(flatten(stage.values(base)))) for name, stage in STAGES.items()}

    def moves(field: str, measuring: str) -> bool:
        return any(field in read[each] for each in MADE_OF[measuring])

    for field in space.ranges:
        if not moves(field, stage or list(MADE_OF)[-1]):
            at = stage or "any stage"
            raise UserError(f"changes nothing that {at} measures", place=f"{space.places[field]}: {field}")
    chosen = stage or next(each for each in MADE_OF if all(moves(field, each) for field in space.ranges))
    stages = MADE_OF[chosen]
    first = next(place for place, each in enumerate(stages) if read[each] & space.ranges.keys())
    return Plan(space, base, chosen, stages[:first], stages[first:])


def _check(field: str, each: Range, base: Experiment, place: str) -> None:
    """Refuse a field that is not there to be tuned, and a range that it cannot have."""
    where = f"{place}: {field}"
    for kept in _PROTOCOL:
        if field == kept or field.startswith(f"{kept}."):
            raise UserError("cannot be tuned", place=where, cure="All trials share data, seeds and protocol")
    for value in each.choices if each.choices is not None else (each.low, each.high):
        changed(base, {field: value}, place)
    if each.choices is not None:
        return
    # A number that is still open is of the kind that the built-in shop's is.
    current = dict(flatten((base if field not in open_fields(base) else Experiment()).model_dump(mode="json"))).get(
        field
    )
    if current is None:
        raise UserError(
            "has no number in the experiment as it stands (null)",
            place=where,
            cure=f"Give it one, as with --set {field}={each.low:g}, or give choices here",
        )
    if isinstance(current, bool) or not isinstance(current, int | float):
        raise UserError("is no number", place=where, cure="Give choices")
    if isinstance(current, int) and (wrong := [number for number in each.bounds if not number.is_integer()]):
        raise UserError(f"must be a whole number (got {wrong[0]:g})", place=where)
