"""Which interactions train, which validate and which test: by time for everyone, or by each user's own order.

Knows users, items and times as numbers, and how a moment is written. Knows nothing of files, texts or models.

By time: what is earlier than a moment trains, what follows validates, what follows another moment tests. An interaction
at exactly a moment belongs to what that begins, so that interactions at one time are never parted. All that decides
what is trained on (which users and items are there at all) is read from the interactions before the first moment alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.counting import Codes, occurrences
from prorec_core.data.filtering import BoolArray, k_core
from prorec_core.data.sequences import Borders, Longs, Sequences, Split
from prorec_core.data.times import as_timestamps, shown_time
from prorec_core.data.units import PARTS_OF_SECOND
from prorec_core.errors import UserError

Times = npt.NDArray[np.int64]
_AS_GIVEN = "as given"
"""Of the years that dates have, in seconds since 1970."""


@dataclass(frozen=True)
class Moments:
    """When validation and test begin, in the unit of the data."""

    validation_from: int
    test_from: int


@dataclass(frozen=True)
class Kept:
    """What by_time keeps of the interactions.

    Attributes:
        rows: mask of the interactions, shape (interactions,).
        known: mask of the items that training knows, shape (items,); other items that are kept are targets alone.
    """

    rows: BoolArray
    known: BoolArray


def moments_of(users: Codes, times: Times, config: DataConfig, unit: str, place: str) -> Moments:
    """The moments that are given, or those that leave validation and test their shares of the interactions.

    A share's moment is that of the first interaction of the last so many in time; others at the same time go with it.

    Args:
        users: of each interaction, shape (interactions,), each user's together and in order of time.
        times: likewise.
        config: moments and shares.
        unit: of the times.
        place: where they come from.

    Raises:
        UserError: there is no clock, a moment is no time, or no interaction is before, between or after the moments.
    """
    _expect_clock(users, times, config, place)
    total = len(times)
    if config.test_from is not None:
        test_from = _moment(config.test_from, unit, "data.test_from")
    else:
        test_from = _latest(times, round(config.test_share * total))
    earlier = times[times < test_from]
    if config.validation_from is not None:
        validation_from = _moment(config.validation_from, unit, "data.validation_from")
    else:
        validation_from = _latest(earlier, round(config.validation_share * total)) if len(earlier) else test_from
    first, last = int(times.min()), int(times.max())
    told = f"the data reach from {shown_time(first, unit)} to {shown_time(last, unit)}"
    for empty, what, setting in (
        (validation_from > test_from, "validation would begin after the test", "data.validation_from"),
        (test_from > last, f"nothing is left to test on from {shown_time(test_from, unit)} on", "data.test_from"),
        (not (earlier >= validation_from).any(), "nothing is left to validate on before the test", "data.test_from"),
        (first >= validation_from, "nothing is left to train on before the validation", "data.validation_from"),
    ):
        if empty:
            given = config.test_from is not None or config.validation_from is not None
            cure = (
                "Give moments within these times" if given else "Give other shares, or moments in data.validation_from"
            )
            raise UserError(f"{what}: {told}", place=setting, cure=cure)
    return Moments(validation_from, test_from)


def keep_by_time(
    users: Codes, items: Codes, times: Times, moments: Moments, config: DataConfig, n_items: int, place: str
) -> Kept:
    """The k-core of what is trained on, and every later interaction of whoever took part later.

    Users and items outside the core stay where they are asked about: such a user has a history, which nothing is
    trained on, and such an item is a target that training never saw.

    Args:
        users: of each interaction, shape (interactions,).
        items: likewise.
        times: likewise.
        moments: when validation and test begin.
        config: the least interactions of a user and of an item, in training.
        n_items: how many items may occur.
        place: where they come from.

    Raises:
        UserError: no user and item have interactions enough before the validation.
    """
    trained = times < moments.validation_from
    core = k_core(users[trained], items[trained], config.min_user_interactions, config.min_item_interactions)
    if not core.any():
        raise UserError(
            "nothing is left to train on: before the validation no user and item have interactions enough "
            f"({int(trained.sum()):,} of {len(users):,} interactions are that early)",
            place=place,
            cure="Lower data.min_user_interactions or data.min_item_interactions, or let validation begin later",
        )
    n_users = int(users.max()) + 1
    known = occurrences(items[trained][core], n_items) > 0
    here = occurrences(users[trained][core], n_users) + occurrences(users[~trained], n_users) > 0
    asked = occurrences(items[~trained], n_items) > 0
    return Kept((known | asked)[items] & here[users], known)


def borders_by_time(offsets: Longs, times: Times, moments: Moments, config: DataConfig) -> Borders:
    """Where each user's stretches begin, of interactions in order of user and time."""
    early = [
        np.add.reduceat(np.append(times < moment, False).astype(np.int64), offsets[:-1])
        for moment in (moments.validation_from, moments.test_from)
    ]
    return Borders(early[0], early[1], config.min_user_interactions, config.targets == "first")


def borders_by_position(offsets: Longs, config: DataConfig) -> Borders:
    """The last share of each user's interactions tests, the share before validates: each one interaction at least.

    A user has three or more.
    """
    lengths = np.diff(offsets)
    tested = np.clip(np.floor(config.test_share * lengths + 0.5).astype(np.int64), 1, lengths - 2)
    rest = lengths - tested
    validated = np.clip(np.floor(config.validation_share * lengths + 0.5).astype(np.int64), 1, rest - 1)
    return Borders(rest - validated, rest, first_only=config.targets == "first")


def record(
    config: DataConfig, sequences: Sequences, times: Times, unit: str, moments: Moments | None
) -> dict[str, Any]:
    """What is kept of the split in profile.json, plain values.

    Returns:
        `kind`, `unit` of its times, `targets` (all or first), `validation_from` and `test_from` (moments; None by
        position), `least` as `Borders` has it, `last_training_time`, `first_validation_time`, `first_test_time`; of
        `trained`, what is trained on: `users`, `items`, `interactions`, and `long_history`, the length that nine of
        ten histories have at most; and of `validation` and `test`: `targets`, `users`; `new_users`, whom training
        never saw, and `targets_of_new_users`; `new_items` and `targets_of_new_items`; `without_history`, targets
        before which nothing known stands.

    Raises:
        UserError: no target of a split is of an item that training knows.
    """
    assert sequences.borders is not None
    starts, borders = sequences.offsets[:-1], sequences.borders
    places = np.arange(len(times)) - np.repeat(starts, np.diff(sequences.offsets))
    early, tested = (
        np.repeat(each, np.diff(sequences.offsets)) for each in (borders.validation_from, borders.test_from)
    )
    stretches = {
        "last_training_time": int(times[places < early].max()),
        "first_validation_time": int(times[(places >= early) & (places < tested)].min(initial=int(times.max()))),
        "first_test_time": int(times[places >= tested].min(initial=int(times.max()))),
    }
    return {
        "kind": config.split,
        "unit": unit,
        "targets": config.targets,
        "validation_from": None if moments is None else moments.validation_from,
        "test_from": None if moments is None else moments.test_from,
        "least": borders.least,
        **stretches,
        "trained": _trained(sequences),
        **{split.name.lower(): target_counts(sequences, split) for split in (Split.VALIDATION, Split.TEST)},
    }


def _trained(sequences: Sequences) -> Mapping[str, float]:
    training = sequences.training()
    lengths = np.diff(training.offsets)
    lengths = lengths[lengths > 0]
    return {
        "users": len(lengths),
        "items": len(np.unique(training.items)),
        "interactions": int(lengths.sum()),
        "long_history": float(np.quantile(lengths, 0.9)) if len(lengths) else 0.0,
    }


def target_counts(sequences: Sequences, split: Split) -> Mapping[str, int]:
    """What `record` keeps of the targets of validation or test.

    Raises:
        UserError: none is of an item that training knows.
    """
    trained = np.diff(sequences.training().offsets) > 0
    targets, owners = sequences.targets(split), sequences.owners_of(split)
    new = targets >= sequences.n_items
    if new.all():
        name = split.name.lower()
        raise UserError(
            f"there is no {name} target of an item that training knows ({len(targets):,} are of other items)",
            place="data.split",
            cure=f"Give {name} a longer stretch (data.{name}_from, data.{name}_share), or lower "
            "data.min_item_interactions",
        )
    unseen = ~trained[owners]
    return {
        "targets": len(targets),
        "users": len(np.unique(owners)),
        "new_users": len(np.unique(owners[unseen])),
        "targets_of_new_users": int(unseen.sum()),
        "new_items": len(np.unique(targets[new])),
        "targets_of_new_items": int(new.sum()),
        "without_history": int((~sequences.with_history(split)).sum()),
    }


def _expect_clock(users: Codes, times: Times, config: DataConfig, place: str) -> None:
    """Refuse times that are none: the rows' own numbers, one for all, or each user's 0, 1, 2, …"""
    starts = np.append(True, users[1:] != users[:-1])
    firsts = times[starts]
    steps = np.diff(times)[~starts[1:]]
    problem = ""
    if config.timestamp_column is None:
        problem = "data.timestamp_column is null"
    elif bool((times == times[0]).all()):
        problem = "all interactions have the same time"
    elif len(firsts) > 1 and bool((firsts == firsts[0]).all()) and len(steps) and bool((steps == 1).all()):
        problem = f"times are positions in each user's history, from {firsts[0]} on"
    if problem:
        raise UserError(
            f"there is no clock to split by: {problem}",
            place=place,
            cure="Name the column of times in data.timestamp_column, or set data.split=by_position",
        )


def _latest(times: Times, count: int) -> int:
    """The time of the first of the last so many, one at least."""
    place = len(times) - min(max(count, 1), len(times))
    return int(np.partition(times, place)[place])


def _moment(given: str | int, unit: str, setting: str) -> int:
    """A moment in the unit of the data.

    Raises:
        UserError: it is no time, or it is a date and the data have numbers of a unit that nobody declared.
    """
    if isinstance(given, int) or given.strip().isdecimal():
        return int(given)
    try:
        found, own = as_timestamps(pl.Series("moment", [given]), setting)
    except UserError as error:
        raise UserError(
            f"'{given}' is no time",
            place=setting,
            cure="Write 2024-01-31 or 2024-01-31 10:00:00, or a number as in the data",
        ) from error
    if unit not in PARTS_OF_SECOND:
        raise UserError(
            "times are numbers of a unit that is not declared, and this is a date",
            place=setting,
            cure="Say in data.timestamp_format which unit they have, as 'seconds', or give the moment as such a number",
        )
    # Rounded up to a unit of the data, so that what is earlier stays before it.
    return -(-int(found[0]) * PARTS_OF_SECOND[unit] // PARTS_OF_SECOND[own])
