"""What a section of a configuration is: its fields all known, its numbers and texts bounded, its mistakes told shortly.
And how one says that a field was added or renamed.

Knows pydantic; knows nothing of what the fields mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import InitErrorDetails, PydanticCustomError

from prorec_core.visible import shortened, visible

RUN_ONLY: JsonDict = {"run_only": True}
"""Marks a field that changes where or how fast a stage runs, not what it leaves; kept out of cache keys."""

Width = Annotated[int, Field(ge=1, le=65_536)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
_NO_NUL = r"^[^\x00]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=_NO_NUL)]
"""Of a column or a file."""
Place = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=_NO_NUL)]
"""A path or the name of a model."""
MOST_SEED = 2**31 - 1
MANY = 1_000_000_000
"""What stands for no limit where a count has one: more than there is of anything that is counted."""
UNKNOWN_FIELDS, MORE_MISTAKES = "unknown_fields", "more_mistakes"
"""The kinds of two complaints that stand for many."""
_MOST_MISTAKES = 5
_COUNT = "mistakes"
_LONGEST_KEY = 80


def without_run_only(value: Any) -> Any:
    """The fields of a section, and of those within it, as plain data, without those marked `RUN_ONLY`."""
    if isinstance(value, list):
        return [without_run_only(each) for each in value]
    if not isinstance(value, BaseModel):
        return value
    return {
        name: without_run_only(getattr(value, name))
        for name, field in type(value).model_fields.items()
        if field.json_schema_extra != RUN_ONLY
    }


@dataclass(frozen=True)
class Added:
    """A field that came to be.

    Attributes:
        field: its dotted name.
        before: the value with which is done what was done before it came to be, whatever its default; or a function
            that gives it from the other fields of its section.
    """

    field: str
    before: Any | Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Renamed:
    """A field, or a whole section, that got another name: its dotted name then, and the one now."""

    field: str
    now: str


Change = Added | Renamed


class Section(BaseModel):
    """A part of an experiment; unknown fields are refused, and of very many mistakes the first are told."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _few_mistakes(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            raise few_mistakes(error) from None


def few_mistakes(error: ValidationError) -> ValidationError:
    """The same complaints, where they are very many the first of them; keys as they can be shown."""
    found = error.errors(include_url=False)
    unknown = [each for each in found if each["type"] == "extra_forbidden" and len(each["loc"]) == 1]
    lines: list[InitErrorDetails] = []
    if len(unknown) > _MOST_MISTAKES:
        names = ", ".join(f"'{_shown_key(each['loc'][0])}'" for each in unknown[:3])
        found = [each for each in found if each["type"] != "extra_forbidden" or len(each["loc"]) > 1]
        told = f"{len(unknown):,} unknown fields, the first {names}"
        lines.append(_complaint(UNKNOWN_FIELDS, told, {_COUNT: len(unknown)}))
    room = _MOST_MISTAKES - len(lines)
    for each in found[:room]:
        place = tuple(_shown_key(part) for part in each["loc"])
        lines.append(_complaint(each["type"], each["msg"], each.get("ctx"), place, each["input"]))
    if left := sum(each.get("ctx", {}).get(_COUNT, 1) for each in found[room:]):
        lines.append(_complaint(MORE_MISTAKES, f"{left:,} more mistakes", {_COUNT: left}))
    return ValidationError.from_exception_data(error.title, lines)


def _complaint(
    kind: str,
    message: str,
    context: dict[str, Any] | None = None,
    place: tuple[int | str, ...] = (),
    given: Any = None,
) -> InitErrorDetails:
    # The kinds that pydantic knows would want their own words again: as one of ours each keeps kind, words and context.
    told = PydanticCustomError(kind, "{told}", {**(context or {}), "told": message})
    return InitErrorDetails(type=told, loc=place, input=given)


def _shown_key(part: int | str) -> int | str:
    return part if isinstance(part, int) else visible(shortened(part, _LONGEST_KEY))
