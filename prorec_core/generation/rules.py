"""Rules: which items may be recommended, as a shop says it.

Knows item ids, named lists and the form of conditions; knows nothing of catalogues, of search, or of where lists are
kept. A rule is the same for every model; what it leaves of one `rule_book` works out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from prorec_core.artifacts import sha256_json
from prorec_core.data.columns import shown
from prorec_core.data.conditions import FORM, MOST_CONDITIONS, MOST_VALUES, RANGE, malformed
from prorec_core.errors import UserError, did_you_mean
from prorec_core.sections import Section

MOST_ITEMS = 50_000
"""Items that a rule names itself; a list may be longer."""

ItemId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
ItemIds = Annotated[list[ItemId], Field(max_length=MOST_ITEMS)]
ListName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

_VALUE: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_RANGE = {
    "type": "object",
    "properties": {name: {"type": ["string", "number"]} for name in RANGE},
    "additionalProperties": False,
    "minProperties": 1,
}
Condition = Annotated[
    Any,
    WithJsonSchema(
        {
            "description": f"Of the column of this name: {FORM}. Dates are texts of ISO 8601.",
            "anyOf": [_VALUE, {"type": "array", "items": _VALUE, "minItems": 1, "maxItems": MOST_VALUES}, _RANGE],
        }
    ),
]


_SOMETHING: JsonDict = {
    "anyOf": [
        {"properties": {name: {"type": kind}}, "required": [name]}
        for name, kind in (("items", "array"), ("list", "string"), ("where", "object"))
    ]
}


class Choice(Section):
    """Some items of a catalogue, named in up to three ways."""

    model_config = ConfigDict(json_schema_extra=_SOMETHING)

    items: ItemIds | None = Field(None, description="Item ids.")
    list: ListName | None = Field(None, description="A named list of item ids.")
    where: dict[Column, Condition] | None = Field(
        None,
        min_length=1,
        max_length=MOST_CONDITIONS,
        description="Conditions on columns that data.attribute_columns keeps; all of them have to be met.",
    )

    @model_validator(mode="after")
    def _something(self) -> Choice:
        if self.items is None and self.list is None and self.where is None:
            raise ValueError("name items, a list, or conditions (where)")
        return self

    @field_validator("where", mode="after")
    @classmethod
    def _formed(cls, where: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, condition in (where or {}).items():
            if problem := malformed(condition):
                raise ValueError(f"of the column {shown(name)}: {problem}")
        return where


def _named(value: Any) -> Any:
    return {"items": value} if isinstance(value, list) else value


Chosen = Annotated[
    Choice,
    BeforeValidator(_named, json_schema_input_type=Choice | ItemIds),
]
"""A choice; a bare list is one of item ids."""


@dataclass(frozen=True)
class ItemList:
    """A named list; `digest` tells its content."""

    name: str
    digest: str
    items: Sequence[str]

    @classmethod
    def of(cls, name: str, items: Iterable[str]) -> ItemList:
        """Each id once, in the order given."""
        once = list(dict.fromkeys(items))
        return cls(name, sha256_json(once), once)


@dataclass(frozen=True)
class Rule:
    """What may be recommended, with the lists that it names: `Rule(exclude=Choice(where={"brand": "A"}))`.

    Attributes:
        only: items that alone may be: those that meet all that it says; None: all.
        exclude: items that may not be: those that meet anything that it says; None: none.
        lists: by name.

    Raises:
        UserError: a choice names a list that is not among them.
    """

    only: Choice | None = None
    exclude: Choice | None = None
    lists: Mapping[str, ItemList] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, choice in (("only", self.only), ("exclude", self.exclude)):
            if choice is not None and not isinstance(choice, Choice):
                raise UserError("is no Choice", place=place, cure="Write it as Choice(items=[…])")
            if choice is not None and choice.list is not None and choice.list not in self.lists:
                cure = did_you_mean(choice.list, self.lists)
                raise UserError(f"the list '{choice.list}' is not there", place=f"{place}.list", cure=cure)

    @cached_property
    def key(self) -> str:
        """Tells two rules of different meaning apart."""
        # Not as JSON, where numbers without end are all null.
        said = [None if choice is None else choice.model_dump() for choice in (self.only, self.exclude)]
        return sha256_json([said, {name: found.digest for name, found in self.lists.items()}])

    @classmethod
    def of(cls, only: Choice | None, exclude: Choice | None, find: Callable[[str], ItemList]) -> Rule | None:
        """The rule of a request; None where it has none.

        Args:
            only: see above.
            exclude: see above.
            find: the list of a name; raises UserError where there is none.
        """
        if only is None and exclude is None:
            return None
        lists = {}
        for place, choice in (("only", only), ("exclude", exclude)):
            if choice is not None and choice.list is not None:
                try:
                    lists[choice.list] = find(choice.list)
                except UserError as error:
                    raise UserError(error.problem, place=f"{place}.list", cure=error.cure) from None
        return cls(only, exclude, lists)
