"""Which items meet conditions on their attributes: equality, membership and ranges.

Knows attributes by their kind and what may be asked of each; knows nothing of models, or of where conditions come from.
Axes: N items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.attributes import kind_of, moment
from prorec_core.data.columns import shown
from prorec_core.errors import UserError, did_you_mean
from prorec_core.values import AttributeKind

Mask = npt.NDArray[np.bool_]
RANGE: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": np.greater,
    "gte": np.greater_equal,
    "lt": np.less,
    "lte": np.less_equal,
}
MOST_CONDITIONS, MOST_VALUES = 20, 1000
FORM = "give a value, a list of values, or a range as {gte: 5, lt: 20}"

_SAYS: Mapping[AttributeKind, str] = {
    "number": "a number",
    "boolean": "true or false",
    "date": "a date as 2024-01-31 or 2024-01-31T10:00:00Z",
    "texts": "a text",
    "text": "a text",
}


def malformed(condition: Any) -> str:
    """What is wrong with the form of a condition, whatever it is asked of; nothing where it is one."""
    if isinstance(condition, Mapping):
        if not condition or (odd := [name for name in condition if name not in RANGE]):
            return f"a range has {', '.join(RANGE)}" + (f" and no {shown(odd[0])}" if condition else "")
        values: list[Any] = list(condition.values())
    elif isinstance(condition, list):
        if not 1 <= len(condition) <= MOST_VALUES:
            return f"a list of values has 1 to {MOST_VALUES:,} of them"
        values = condition
    else:
        values = [condition]
    wrong = [value for value in values if not isinstance(value, str | bool | int | float)]
    return FORM if wrong else ""


@dataclass(frozen=True)
class Attribute:
    """One column of the items.

    Attributes:
        name: of the column.
        kind: what it holds.
        values: numbers, truths, microseconds of dates, or numbers of words; of `texts` those of all items in a row.
        items: of which item each value is, int64, ascending; items without one are not there.
        words: numbers of words, of `text` and `texts`.
    """

    name: str
    kind: AttributeKind
    values: npt.NDArray[Any]
    items: npt.NDArray[np.int64]
    words: Mapping[str, int]

    @classmethod
    def of(cls, column: pl.Series) -> Attribute:
        """A column as `prorec_core.data.attributes` keeps it."""
        kind = kind_of(column.dtype)
        frame = pl.DataFrame({"item": pl.int_range(column.len(), dtype=pl.Int64, eager=True), "value": column})
        if kind == "texts":
            frame = frame.filter(pl.col("value").list.len() > 0).explode("value")
        frame = frame.drop_nulls()
        values, words = frame["value"], {}
        if kind in ("text", "texts"):
            different = values.unique(maintain_order=True)
            words = {word: number for number, word in enumerate(different.to_list())}
            values = values.replace_strict(different, pl.int_range(len(words), eager=True), return_dtype=pl.Int32)
        elif kind == "date":
            values = values.to_physical()
        return cls(column.name, kind, values.to_numpy(), frame["item"].to_numpy(), words)

    def meets(self, condition: Any, n_items: int) -> Mask:
        """Which of N items meet a condition; one without a value meets none. bool, shape (N,).

        Raises:
            UserError: a value that is not of the column's kind, or a range of what has no order.
        """
        if problem := malformed(condition):
            raise UserError(problem)
        if isinstance(condition, Mapping):
            if self.kind not in ("number", "date"):
                raise UserError(
                    f"a range asks for numbers or dates, and the column holds {self.kind}",
                    cure="Give a value or a list of values",
                )
            met = np.ones(len(self.values), bool)
            for name, bound in condition.items():
                met &= RANGE[name](self.values, self._value(bound))
        else:
            wanted = [self._value(each) for each in (condition if isinstance(condition, list) else [condition])]
            met = np.isin(self.values, np.array([each for each in wanted if each is not None]))
        found = np.zeros(n_items, bool)
        found[self.items[met]] = True
        return found

    def examples(self, most: int) -> list[Any]:
        """Values as one would ask for them, for people: the commonest words, or the smallest and the largest."""
        if not len(self.values):
            return []
        if self.words:
            counts = np.bincount(self.values, minlength=len(self.words))
            names = list(self.words)
            return [names[place] for place in np.argsort(-counts, kind="stable")[:most]]
        ends = [self.values.min(), self.values.max()]
        if self.kind == "date":
            return [str(np.datetime64(int(end), "us"))[:10] for end in ends]
        return [end.item() if math.isfinite(end) else None for end in ends]

    def _value(self, given: Any) -> Any:
        """A value as the column has it; None for a word that no item has."""
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if self.kind == "number" and is_number and not (isinstance(given, float) and math.isnan(given)):
            # What no number of 64 bits is, is still more or less than all of them.
            return (
                given
                if isinstance(given, float) or -(2**63) <= given < 2**63
                else float(np.clip(given, -(2**70), 2**70))
            )
        if self.kind == "boolean" and isinstance(given, bool):
            return given
        if self.kind in ("text", "texts") and isinstance(given, str):
            return self.words.get(given)
        if self.kind == "date" and isinstance(given, str) and (found := moment(given.strip())) is not None:
            return found
        raise UserError(f"{shown(given)} is not what the column holds", cure=f"Give {_SAYS[self.kind]}")


class Attributes:
    """All columns of a catalogue that conditions may be asked of."""

    def __init__(self, columns: Sequence[pl.Series], n_items: int) -> None:
        """Columns as `prorec_core.data.attributes` keeps them, each of N values."""
        self.n_items = n_items
        self.by_name = {column.name: Attribute.of(column) for column in columns}

    def meet(self, where: Mapping[str, Any], place: str) -> Mask:
        """Which items meet all of some conditions, by name of column. bool, shape (N,).

        Raises:
            UserError: a column that was not kept, or a condition that cannot be asked of it; `place` is said with it.
        """
        met = np.ones(self.n_items, bool)
        for name, condition in where.items():
            if name not in self.by_name:
                kept = did_you_mean(name, self.by_name) if self.by_name else "This model was made without any"
                raise UserError(
                    f"no column {shown(name)} is kept with the model", place=place, cure=f"{kept} (attribute_columns)"
                )
            try:
                met &= self.by_name[name].meets(condition, self.n_items)
            except UserError as error:
                raise UserError(error.problem, place=f"{place}.{name}", cure=error.cure) from None
        return met
