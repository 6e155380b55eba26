"""Numbers for what an experiment leaves to its data: from how large they are, by a rule that is written here alone.

Knows counts and fields; knows nothing of stages, files or models. docs/fitting.md tells the rule, what it was fitted on
and what is a guess. What comes out is a plain experiment: what was written by hand and what came by the rule are the
same work to every cache. `RULE` is told with it, and rises whenever a number may come out otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from prorec_core.by_data import AUTO, of_the_shop
from prorec_core.config import BY_DATA, Experiment
from prorec_core.config_data import is_built_in
from prorec_core.errors import UserError

RULE = 3
"""The version of the rule."""

_WIDE_FROM = 4_000
"""Items from which on vectors have 128 dimensions, not 64."""
_SPARSE = 20
"""Interactions an item below which ids are learned by heart, and neighbours in histories help."""
_MUCH = 150_000
"""Interactions from which on there is enough to learn from for less dropout in the generator."""
_HISTORIES = (50, 100, 200)
"""How much of a history may be read."""
_HISTORIES_A_BATCH = 8
"""So many of the longest at least."""
_BATCHES = ((100_000, 512), (1_000_000, 1024), (10_000_000, 2048))
"""Items of history a batch, by up to how many interactions there are."""
_LARGEST_BATCH = 4096
_TRAININGS = (("collaborative", 1_600, 8, 12), ("align", 2_000, 10, 30), ("generator", 2_000, 10, 15))
"""By section so many steps, within so many epochs."""
_LENGTHS = ("align.max_history", "generator.max_history", "collaborative.max_history")
"""One that is given holds for those that are not: a generator that reads as much as Stage I is fused with its score."""


@dataclass(frozen=True)
class Size:
    """How large data are, after all filters; split by time or position, what is trained on alone.

    Attributes:
        users: how many.
        items: how many.
        interactions: of all users.
        long_history: nine of ten histories have at most so many items.
    """

    users: int
    items: int
    interactions: int
    long_history: float

    @classmethod
    def of(cls, profile: Mapping[str, Any]) -> Size:
        """From what `preprocess` found (`profile.json`)."""
        if trained := profile.get("split", {}).get("trained"):
            return cls(**trained)
        kept = profile["kept"]
        return cls(kept["users"], kept["items"], kept["interactions"], profile["history_length"]["p90"])

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items and {self.interactions:,} interactions"


def open_fields(experiment: Experiment) -> list[str]:
    """The dotted names of what an experiment leaves to its data."""
    return [field for field, value in _values(experiment) if value == AUTO]


def known_values(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain JSON values, without what it leaves to its data."""
    values = experiment.model_dump(mode="json")
    for field in open_fields(experiment):
        section, name = field.split(".")
        del values[section][name]
    return values


def as_in(experiment: Experiment, found: Experiment) -> Experiment:
    """The experiment with what it leaves open as it stands in another one, open or not."""
    values = experiment.model_dump()
    for field in open_fields(experiment):
        section, name = field.split(".")
        values[section][name] = getattr(getattr(found, section), name)
    return Experiment.model_validate(values)


def fitted(experiment: Experiment, size: Size, known: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment with a number for everything that it leaves to its data; what it says stays.

    Args:
        experiment: of the built-in shop it gets the shop's own numbers.
        size: of its data.
        known: numbers that some fields are to have in place of the rule's, where the experiment leaves them open, by
            dotted name.

    Raises:
        UserError: what it says does not go together with these numbers.
    """
    left = open_fields(experiment)
    if not left:
        return experiment
    if is_built_in(experiment.data):
        found = {field: of_the_shop(Experiment, *field.split(".")) for field in left}
    else:
        said = {field: value for field, value in _values(experiment) if value != AUTO}
        fixed = {**(known or {}), **said}
        found = by_rule(size, fixed, experiment.collaborative.heads, experiment.generator.heads)
    values = experiment.model_dump()
    for field in left:
        section, name = field.split(".")
        values[section][name] = found[field]
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        told = ", ".join(f"{field} {found[field]}" for field in left)
        raise UserError(
            f"what the experiment says does not go together with what follows from its data "
            f"({error.errors()[0]['msg'].removeprefix('Value error, ')}; {told})",
            place=experiment.name,
            cure="Give these fields numbers of your own",
        ) from error


def by_rule(
    size: Size, fixed: Mapping[str, Any] | None = None, heads: int = 2, generator_heads: int = 2
) -> dict[str, Any]:
    """The numbers of all fields that may follow the data, by dotted name.

    Args:
        size: of the data.
        fixed: those that are given, which others are reckoned from.
        heads: the width of vectors is a multiple of these.
        generator_heads: the same of the generator's.
    """
    found: dict[str, Any] = dict(fixed or {})

    def put(field: str, value: float) -> None:
        found.setdefault(field, value)

    put("collaborative.dim", _multiple(_width(size), heads))
    put("generator.dim", _multiple(found["collaborative.dim"], generator_heads))
    put("quantize.codes", _codes(size))
    sparse = size.interactions < _SPARSE * size.items
    put("align.graph", 0.5 if sparse else 0.0)
    put("collaborative.dropout", 0.5 if sparse else 0.3)
    put("align.dropout", 0.2)
    put("generator.dropout", 0.2 if size.interactions >= _MUCH else 0.3)
    # .004 at 64 dimensions and .002 at 128: a step in each dimension is the smaller the more there are.
    put("collaborative.learning_rate", _rounded(0.256 / found["collaborative.dim"]))
    put("align.learning_rate", _rounded(0.256 / found["collaborative.dim"]))
    put("generator.learning_rate", 0.002)
    by_size = next((each for each in _HISTORIES if size.long_history <= each), _HISTORIES[-1])
    length = next((found[each] for each in _LENGTHS if each in found), by_size)
    for section, steps, least, most in _TRAININGS:
        put(f"{section}.max_history", length)
        put(f"{section}.tokens_per_batch", _tokens(size, found[f"{section}.max_history"]))
        an_epoch = size.interactions / found[f"{section}.tokens_per_batch"]
        put(f"{section}.epochs", min(max(round(steps / an_epoch), least), most))
    return found


def _width(size: Size) -> int:
    return 128 if size.items >= _WIDE_FROM else 64


def _codes(size: Size) -> int:
    """Twice the root of the number of items, as the nearest power of two: of two levels one tuple in four is used."""
    return int(min(max(2 ** round(math.log2(2 * math.sqrt(size.items))), 16), 1024))


def _tokens(size: Size, max_history: int) -> int:
    by_count = next((tokens for most, tokens in _BATCHES if size.interactions <= most), _LARGEST_BATCH)
    return max(by_count, int(2 ** math.ceil(math.log2(_HISTORIES_A_BATCH * max_history))))


def _multiple(width: int, heads: int) -> int:
    return -(-width // heads) * heads


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def _values(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    for section, fields in BY_DATA.items():
        for field in fields:
            yield f"{section}.{field}", getattr(getattr(experiment, section), field)


def beside_the_rule(sections: Mapping[str, Any], size: Size) -> list[tuple[str, Any, Any]]:
    """An experiment's numbers, each with what it would be if it alone were left to the data; dotted name first.

    How much of a history is read counts as one number.

    Args:
        sections: of a whole experiment, as plain values; nothing in it is open.
        size: of its data.
    """
    used = {f"{section}.{field}": sections[section][field] for section, of in BY_DATA.items() for field in of}
    heads = [sections[section]["heads"] for section in ("collaborative", "generator")]

    def alone(field: str) -> Any:
        left = _LENGTHS if field in _LENGTHS else (field,)
        return by_rule(size, {name: value for name, value in used.items() if name not in left}, *heads)[field]

    return [(field, value, alone(field)) for field, value in used.items()]


def plain(value: float) -> str:
    """A number as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def told(before: Experiment, after: Experiment, size: Size) -> str:
    """What was left open and what it came to, in one line.

    Fields of one name and one value are told once: `dim 128`; else with their section.
    """
    values = dict(_values(after))
    by_name: dict[str, dict[str, Any]] = {}
    for field in open_fields(before):
        section, name = field.split(".")
        by_name.setdefault(name, {})[section] = values[field]
    words = []
    for name, of in by_name.items():
        if len(set(of.values())) == 1 and len(of) == sum(name in fields for fields in BY_DATA.values()):
            words.append(f"{name} {plain(next(iter(of.values())))}")
        else:
            words += [f"{section}.{name} {plain(value)}" for section, value in of.items()]
    return f"by rule {RULE} from {size}: {', '.join(words)}"
