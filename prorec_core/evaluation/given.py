"""Lists that another program made, read from a table and laid before the targets that all others are measured on.

Knows columns, targets and histories; knows nothing of models or of how lists are measured. Axes: T targets, K items of
a list, R rows of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.columns import Field, shown
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Sequences, Split
from prorec_core.data.split_table import HELD_BACK
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from prorec_core.evaluation.given_table import ITEM, POSITION, SPLIT, USER, file_of, read_columns, table_in
from prorec_core.evaluation.stage import EvaluationInputs
from prorec_core.metrics.scorers import GIVEN
from prorec_core.metrics.table import CUTOFFS
from prorec_core.metrics.top import TopItems

SPLITS = {split.name.lower(): split for split in HELD_BACK}
OF_OTHERS = "made by another program: what it cost, and what its settings were chosen by, is not known here"
LEAST = 10
"""Items that the longest list has at least: so far down everything is compared."""
_WRITTEN = "`prorec data split` writes the users, items and positions that are asked for"


@dataclass(frozen=True)
class GivenLists:
    """Lists as they were given, one a target.

    Attributes:
        lists: by split; each as long as the protocol says, -1 where a list has no more.
        ends: by split the items of its longest list, as far as the protocol looks.
        remarks: what is not known of them, was passed over or is not there, a sentence each.
    """

    lists: Mapping[Split, TopItems]
    ends: Mapping[Split, int]
    remarks: list[str]


def given_inputs(found: GivenLists, dataset: Dataset, config: EvaluateConfig, seed: int = 0) -> EvaluationInputs:
    """Lists as something to be measured."""
    return EvaluationInputs(
        config,
        dataset,
        {split: {GIVEN: lists} for split, lists in found.lists.items()},
        seed=seed,
        recommended=GIVEN,
        ends={split: {GIVEN: end} for split, end in found.ends.items()},
        remarks=found.remarks,
    )


def read_given(config: EvaluateConfig, seed: int, dataset: Dataset) -> GivenLists:
    """The lists in the file of `evaluate.lists_file`; as `given_lists`."""
    return given_lists(table_in(file_of(config, seed)), dataset, config)


def given_lists(table: RawTable, dataset: Dataset, config: EvaluateConfig) -> GivenLists:
    """Lists in a table: one row an item of a list.

    Args:
        table: split (validation, test), user_id, item_id, and rank (whole numbers, the least first) or else score
            (numbers, the greatest first; among equals the earlier row). Where a user has several targets of a split,
            position too: the target's place in the user's sequence, from 0.
        dataset: whose targets are asked for; where it trains on the validation items, those of the test alone.
        config: length of lists, and whether a user's own items are passed over.

    Raises:
        UserError: a column is missing or has other values; a user or item that the data set lacks; an item or rank
            twice in a list; a split without lists, or with none of 10 items.
    """
    rows = _laid(read_columns(table), table, dataset)
    ordered = rows.sort("split", "target", "order", "row")
    _refuse_repeated(ordered, table)
    own = _own(ordered, dataset) if config.mask_history else np.zeros(ordered.height, np.bool_)
    length = min(config.list_length, dataset.sequences.n_items)
    kept = ordered.filter(~pl.Series(own)).with_columns(place=pl.int_range(pl.len()).over("split", "target"))
    kept = kept.filter(pl.col("place") < length)
    lists, ends, remarks = {}, {}, [OF_OTHERS]
    for name, split in SPLITS.items():
        n_targets = len(dataset.sequences.targets(split))
        of_split = kept.filter(split=name)
        lists[split] = _lists(of_split, n_targets, length)
        if split is Split.VALIDATION and not dataset.sequences.validates:
            continue
        given = ordered.filter(split=name)
        there = given["target"].n_unique()
        if n_targets and not there:
            raise UserError(
                f"there are no lists for the {name} split",
                place=table.place,
                cure="Give lists for both: methods are compared on test, and chosen on validation",
            )
        measured = given["target"].unique().to_numpy()
        lengths = (lists[split].items_UK >= 0).sum(axis=1)[measured]
        ends[split] = int(lengths.max(initial=0))
        if ends[split] < min(LEAST, length):
            before = int(given.group_by("target").len()["len"].max() or 0)  # type: ignore[arg-type]
            left = f", and had {before} before what users have already was passed over" if before > ends[split] else ""
            raise UserError(
                f"the longest {name} list has {ends[split]} items{left}",
                place=table.place,
                cure=f"Give lists of {length} items (evaluate.list_length), and of {LEAST} at least",
            )
        if there < n_targets:
            told = f"{n_targets - there:,} of {n_targets:,} {name} targets"
            remarks.append(f"{told} have no list in the given file, and count as missed")
        could_hold = np.full(n_targets, dataset.sequences.n_items)
        if config.mask_history:
            could_hold -= _distinct(dataset.sequences.histories(split))
        remarks += _short(name, lengths, could_hold[measured], ends[split])
    if passed := table.rows() - rows.height:
        remarks.append(f"{passed:,} rows of the given file are for users of whom nothing is asked in that split")
    if own.any():
        remarks.append(
            f"{int(own.sum()):,} of {rows.height:,} items in the given lists stand in the user's own history, and are "
            "passed over as everywhere while evaluate.mask_history is true"
        )
    return GivenLists(lists, ends, remarks)


def _short(name: str, lengths: npt.NDArray[np.integer], left: npt.NDArray[np.integer], end: int) -> list[str]:
    """How many lists end before the lengths at which they are measured, in a sentence; none where none does.

    Args:
        name: of the split.
        lengths: of the lists, shape (L,).
        left: items that each could hold, shape (L,).
        end: where the longest ends.
    """
    counts = {k: int((lengths < np.minimum(k, left)).sum()) for k in CUTOFFS if LEAST <= k <= end}
    told = ", ".join(f"{count:,} before the {k}th item" for k, count in counts.items() if count)
    return (
        [f"of {len(lengths):,} {name} lists there end {told}: what would stand there counts as missed"] if told else []
    )


def _laid(frame: pl.DataFrame, table: RawTable, dataset: Dataset) -> pl.DataFrame:
    """The rows of targets that are asked for, with `target`, which one of the split, and `item`, both numbers."""
    place = table.place
    Field(SPLIT, place).refuse(
        ~frame[SPLIT].is_in(list(SPLITS)).fill_null(value=False),
        f"is neither {' nor '.join(SPLITS)}",
        frame[SPLIT],
        "Write one of both",
    )
    if dataset.new_items is not None:
        new = frame[ITEM].is_in(dataset.new_items.items[ITEM].implode())
        Field(ITEM, place).refuse(
            new, "has an item that is new, and in no list,", frame[ITEM], "Leave out what is `new` in items.parquet"
        )
    for column, known in ((USER, dataset.users), (ITEM, dataset.items)):
        Field(column, place).refuse(
            ~frame[column].is_in(known[column].implode()),
            f"has an id that the data set lacks, whose ids are like {shown(known[column][0])},",
            frame[column],
            f"Take the ids of this data set, after its filters: {_WRITTEN}",
        )
    users, items = dataset.users.select(USER, "user"), dataset.items.select(ITEM, "item")
    frame = frame.join(users, on=USER, how="left").join(items, on=ITEM, how="left")
    targets = pl.concat([_targets(name, dataset) for name in SPLITS])
    keys = ["split", "user", *([POSITION] if POSITION in frame.columns else [])]
    if POSITION not in frame.columns and targets.select("split", "user").is_duplicated().any():
        raise UserError(
            "users have several targets of a split, and nothing says before which one a list stands",
            place=place,
            cure=f"Add the column {POSITION}, the target's place in the user's sequence: {_WRITTEN}",
        )
    if POSITION in frame.columns:
        asked = frame.join(targets.select("split", "user").unique(), on=["split", "user"], how="semi")
        lost = asked.join(targets, on=keys, how="anti").sort("row")
        if lost.height:
            row = lost.row(0, named=True)
            raise UserError(
                f"column '{POSITION}' names no {row['split']} target of the user {shown(row[USER])} in "
                f"{Field(POSITION, place).row(row['row'])}: {row[POSITION]}",
                place=place,
                cure=f"Count each user's items from 0: {_WRITTEN}",
            )
    return frame.join(targets, on=keys, how="inner")


def _targets(name: str, dataset: Dataset) -> pl.DataFrame:
    split = SPLITS[name]
    owners = dataset.sequences.owners_of(split)
    return pl.DataFrame(
        {
            "split": pl.repeat(name, len(owners), dtype=pl.String, eager=True),
            "user": owners,
            POSITION: dataset.sequences.positions(split),
            "target": np.arange(len(owners), dtype=np.int64),
        }
    )


def _refuse_repeated(ordered: pl.DataFrame, table: RawTable) -> None:
    """Refuse lists with an item, or a rank, twice.

    Raises:
        UserError: names the later row of both.
    """
    for what, rows, keys in (
        (f"the item {{{ITEM}}}", ordered, ["split", "target", "item"]),
        ("the rank {order}", ordered.filter("ranked"), ["split", "target", "order"]),
    ):
        again = rows.sort("row").filter(~pl.struct(keys).is_first_distinct())
        if again.height:
            row = again.row(0, named=True)
            told = what.format(**{**row, ITEM: shown(row[ITEM])})
            raise UserError(
                f"{told} stands twice in a {row['split']} list of the user {shown(row[USER])}, again in "
                f"{Field(ITEM, table.place).row(row['row'])}",
                place=table.place,
                cure="Keep one row",
            )


def _own(rows: pl.DataFrame, dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Whether each row's item stands in the history before its target, shape (R,)."""
    found = np.zeros(rows.height, np.bool_)
    for name, split in SPLITS.items():
        of_split = np.flatnonzero((rows["split"] == name).to_numpy())
        histories = dataset.sequences.histories(split)
        taken = _pairs(histories)
        listed = rows["target"].to_numpy() * np.int64(histories.n_items) + rows["item"].to_numpy()
        found[of_split] = np.isin(listed[of_split], taken)
    return found


def _pairs(histories: Sequences) -> npt.NDArray[np.int64]:
    """A number for each history and item in it: history · items + item."""
    owner = np.repeat(np.arange(histories.n_users), np.diff(histories.offsets))
    pairs: npt.NDArray[np.int64] = owner * np.int64(histories.n_items) + histories.items
    return pairs


def _distinct(histories: Sequences) -> npt.NDArray[np.int64]:
    """How many different items are in each history, shape (histories,)."""
    return np.bincount(np.unique(_pairs(histories)) // histories.n_items, minlength=histories.n_users)


def _lists(rows: pl.DataFrame, n_targets: int, length: int) -> TopItems:
    """One list a target, with the scores that were given or minus the ranks."""
    items = np.full((n_targets, length), -1, np.int32)
    scores = np.full((n_targets, length), -np.inf, np.float32)
    target, place = rows["target"].to_numpy(), rows["place"].to_numpy()
    items[target, place] = rows["item"].to_numpy()
    most = np.finfo(np.float32).max
    scores[target, place] = np.clip(rows["value"].to_numpy(), -most, most)
    return TopItems(items, scores)
