"""Was a model trained on what it is now to be measured by? Knows histories of two data sets; knows nothing of models.

A few such targets, as cancelled orders leave them, are left out of what is chosen by and measured; more of them mean
that the data are not those of a later day.

What is known is every interaction that a training read, user by user and in order, since the data set of a model is
kept with it. A target counts as seen where its user's training held the item more often than the history now before it
does: the additional time can only be the target itself, or a later one. So a log that has grown since shows nothing,
and one that is cut earlier than the model's, or whose validation items the model was trained on, does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.dataset import Dataset, NewItems
from prorec_core.data.sequences import Sequences, Split
from prorec_core.data.split import target_counts
from prorec_core.errors import UserError

_STRETCH = 3
"""Interactions one after the other by which a history is known again."""
_SHARE, _OF_SMALL, _AT_MOST = 20, 5, 4
"""What may be left out: one target in so many, in small shops so many, but never more than one in so many."""


@dataclass(frozen=True)
class Seen:
    """The targets of a split that a training saw.

    Attributes:
        targets: whether each is one, shape (targets of the split,).
        told: how many, by which training, and an example, in words.
    """

    targets: npt.NDArray[np.bool_]
    told: str

    @property
    def few(self) -> bool:
        """Whether they may be left out: 5% or less of the split, in small shops up to five, and a quarter at most."""
        total = len(self.targets)
        return int(self.targets.sum()) <= min(max(total // _SHARE, _OF_SMALL), total // _AT_MOST)


def leaving_out(dataset: Dataset, seen: Mapping[Split, Seen]) -> Dataset:
    """The same data without some targets of validation and test: those are asked of nobody.

    What is trained on stays what it is. The profile counts the targets that are left, says under `left_out` how many
    are not, and tells it among its warnings.

    Raises:
        UserError: none is left of an item that training knows.
    """
    if not seen:
        return dataset
    sequences, profile, new = dataset.sequences, dict(dataset.profile), dataset.new_items
    for split, each in seen.items():
        sequences = sequences.leaving_out(split, each.targets)
    splits = {split.name.lower(): split for split in (Split.VALIDATION, Split.TEST)}
    profile["left_out"] = {
        name: int(seen[split].targets.sum()) if split in seen else 0 for name, split in splits.items()
    }
    profile["targets_in_history"] = {name: int(sequences.taken_before(split).sum()) for name, split in splits.items()}
    told = "; ".join(each.told for each in seen.values())
    profile["warnings"] = [*profile.get("warnings", []), f"left out of what is chosen by and measured: {told}"]
    if "split" in profile:
        counts = {name: target_counts(sequences, split) for name, split in splits.items()}
        profile["split"] = {**profile["split"], **counts}
    if new is not None and new.in_sequences:
        new = NewItems.of_sequences(new.items, sequences)
        profile["new_items"] = {**profile["new_items"], "test_interactions": len(new.users)}
    return replace(dataset, sequences=sequences, profile=profile, new_items=new)


def seen_targets(trained: Dataset, training: Sequences, now: Dataset, split: Split) -> npt.NDArray[np.bool_]:
    """Whether a training saw each user's target of a split.

    Args:
        trained: the data set of the training, for the ids of its users and items.
        training: what of it was trained on, by the numbers there.
        now: the data set that is measured on.
        split: VALIDATION or TEST.

    Returns:
        Shape (targets of the split,).
    """
    users_of = _places(trained.users, now.users, "user_id")
    # Targets may be items that training does not know any more, or not yet.
    items_of = _places(trained.all_items(), now.all_items(), "item_id")
    users = users_of[np.repeat(np.arange(training.n_users), np.diff(training.offsets))]
    items, targets = items_of[training.items], now.sequences.targets(split).astype(np.int64)
    both = (users >= 0) & (items >= 0)
    width = int(max(targets.max(initial=0), items.max(initial=0))) + 1
    then = np.sort(users[both] * width + items[both])
    asked = now.sequences.owners_of(split) * np.int64(width) + targets
    times = np.searchsorted(then, asked, "right") - np.searchsorted(then, asked, "left")
    before = now.sequences.histories(split)
    rows = np.repeat(np.arange(before.n_users), np.diff(before.offsets))
    known = np.bincount(rows[before.items == targets[rows]], minlength=len(targets))
    found: npt.NDArray[np.bool_] = times > known
    return found


def strangers(title: str, then: Dataset, now: Dataset) -> str:
    """What is to be told where a training knew few of the users or items of some data; "" where it knew most.

    Args:
        title: of the training, for messages.
        then: its data set.
        now: the data that are gone on to, or measured on.

    Raises:
        UserError: it knew none of the items; or none of the users, though their histories are the same, so that they
            are called otherwise, and what it was trained on cannot be told.
    """
    ids = (then.all_items()["item_id"], now.items["item_id"]), (now.users["user_id"], then.users["user_id"])
    (items, all_items), (users, all_users) = ((int(of.is_in(known.implode()).sum()), len(of)) for known, of in ids)
    if not items:
        raise UserError(
            f"{title} was trained on none of the {all_items:,} items: they are written as '{ids[0][1][0]}' here and as "
            f"'{ids[0][0][0]}' there",
            cure="Write ids of items as they were, name a model of the same shop, or train anew",
        )
    if not users and _same_histories(then, now):
        raise UserError(
            f"the users of {title} have other ids here, with the same histories, as '{ids[1][0][0]}' here and "
            f"'{ids[1][1][0]}' there: whether it was trained on what is measured now cannot be told",
            cure="Write ids of users as they were, or train anew",
        )
    told = []
    if 2 * users < all_users:
        told.append(
            f"{users:,} of the {all_users:,} users of {title} are in these data, and of no others it can be told "
            "whether it was trained on what is measured now"
        )
    if 2 * items < all_items:
        told.append(f"{title} was trained on {items:,} of the {all_items:,} items")
    return "; ".join(told)


def _same_histories(then: Dataset, now: Dataset) -> bool:
    """Whether most users of one of two data sets did what some of the other did: the same items at the same times."""
    places = _places(then.all_items(), now.all_items(), "item_id"), np.arange(now.n_items_with_new)
    (owners, stretches), (others, theirs) = (_stretches(*each) for each in zip((then, now), places, strict=True))
    known = owners.filter(stretches.is_in(theirs.implode())), others.filter(theirs.is_in(stretches.implode()))
    sizes = then.users.height, now.users.height
    return any(2 * found.n_unique() > max(size, 1) for found, size in zip(known, sizes, strict=True))


def _stretches(dataset: Dataset, places: npt.NDArray[np.int64]) -> tuple[pl.Series, pl.Series]:
    """Of all that users did one after the other, so much at a time: whose it is, and a hash of its items and times."""
    lengths, count = np.diff(dataset.sequences.offsets), len(dataset.sequences.items)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.arange(max(count - _STRETCH + 1, 0))
    starts = starts[owners[starts] == owners[starts + _STRETCH - 1]]
    columns = (places[dataset.sequences.items], dataset.timestamps)
    rows = {f"{of}{step}": column[starts + step] for of, column in enumerate(columns) for step in range(_STRETCH)}
    return pl.Series(owners[starts]), pl.DataFrame(rows).hash_rows()


def _places(then: pl.DataFrame, now: pl.DataFrame, column: str) -> npt.NDArray[np.int64]:
    """Where the ids of one table stand in the other, -1 for those that are not there."""
    place = now.select(column, pl.int_range(pl.len(), dtype=pl.Int64).alias("place"))
    found = then.select(column).join(place, on=column, how="left", maintain_order="left")["place"]
    return found.fill_null(-1).to_numpy()
