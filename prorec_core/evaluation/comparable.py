"""Were two rankings measured on the same thing? Knows data sets and protocols; knows nothing of models or metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Sequences, Split

_RULES = ("split", "targets", "level", "catalogue", "history_masked", "trained_on_validation")
_MOMENTS = ("validation_from", "test_from")
_EXAMPLES = 3


def data_differences(first: Dataset, second: Dataset, names: tuple[str, str]) -> list[str]:
    """What makes measurements on two data sets incomparable, a phrase each; empty when they can be compared.

    Users, items, and every user's items in order have to be equal; texts, titles and times do not matter.

    Args:
        first: one data set.
        second: the other.
        names: what to call them.
    """
    found = []
    for what, column in (("user", "user_id"), ("item", "item_id")):
        ids = [getattr(data, f"{what}s")[column] for data in (first, second)]
        for own, other, name in ((ids[0], ids[1], names[0]), (ids[1], ids[0], names[1])):
            if (only := own.filter(~own.is_in(other.implode()))).len():
                found.append(f"{only.len():,} {what}s only {name} has ({_some(only)})")
    if found:
        return found
    # Users and items are numbered by their ids, so equal numbers now mean equal ids.
    users, (one, two) = first.users["user_id"], (first.sequences, second.sequences)
    for what, differ in (("another test item", _other_targets(one, two)), ("another history", one.differs(two))):
        if differ.any():
            return [f"{differ.sum():,} of {len(users):,} users have {what} ({_some(users.filter(pl.Series(differ)))})"]
    return found


def _other_targets(one: Sequences, two: Sequences) -> npt.NDArray[np.bool_]:
    """Whether each user has other test targets there, shape (users,)."""
    owners, targets = ([getattr(each, name)(Split.TEST) for each in (one, two)] for name in ("owners_of", "targets"))
    counts = [np.bincount(each, minlength=one.n_users) for each in owners]
    found: npt.NDArray[np.bool_] = counts[0] != counts[1]
    alike = [target[~found[owner]] for owner, target in zip(owners, targets, strict=True)]
    found[owners[0][~found[owners[0]]][alike[0] != alike[1]]] = True
    return found


def protocol_differences(first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    """By which rules two protocols of metrics.json differ, as far as that makes metrics incomparable for good."""
    return _differences(_RULES, first, second, names)


def moment_differences(first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    """Where one protocol splits time at other moments: the same rules, for another stretch of time."""
    return _differences(_MOMENTS, first, second, names)


def _differences(
    fields: tuple[str, ...], first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]
) -> list[str]:
    return [
        f"{name} is {first.get(name, False)} for {names[0]}, {second.get(name, False)} for {names[1]}"
        for name in fields
        if first.get(name, False) != second.get(name, False)
    ]


def _some(ids: pl.Series) -> str:
    return f"such as {', '.join(ids.head(_EXAMPLES))}"
