"""What preprocessing leaves: items, users, sequences and their profile, in memory and as files.

Knows the layout of those files. Knows nothing of where the data came from or of what is trained on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from prorec_core.artifacts import read_json, read_parquet, write_json, write_parquet
from prorec_core.data import kept_attributes as kept
from prorec_core.data.sequences import Borders, IntArray, Sequences, Split
from prorec_core.versions import file

_STAGE = "preprocess"
_ITEMS = pa.schema(
    [
        ("item", pa.int32()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("train_count", pa.int64()),
    ]
)
_NEW_ITEMS = pa.schema([("item_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
_NEW_TESTS = pa.schema([("user", pa.int32()), ("target", pa.int32())])
_USERS = pa.schema([("user", pa.int32()), ("user_id", pa.string())])
_BORDERS = pa.schema([("validation_from", pa.int32()), ("test_from", pa.int32())])
_LEFT_OUT = pa.schema([("place", pa.int64())])
LEAVE_ONE_OUT = "leave_one_out"


@dataclass(frozen=True)
class NewItems:
    """Items with a text and without interactions, and the interactions with them that are measured.

    Attributes:
        items: one row a new item, sorted by `item_id`: item_id, title, text (strings). In tables that hold all items
            they stand after the others, in this order.
        users: users whose last interaction of all is with a new item, int32, ascending, shape (T,); by time the user of
            each test target that is one.
        targets: which new item that is, a row of `items`, int32, shape (T,).
        in_sequences: whether these interactions stand in the sequences, as they do by time, and not apart.
    """

    items: pl.DataFrame
    users: IntArray
    targets: IntArray
    in_sequences: bool = False

    @classmethod
    def of_sequences(cls, items: pl.DataFrame, sequences: Sequences) -> NewItems:
        """New items that are numbered after the others in the sequences, and the test targets that are such items."""
        targets = sequences.targets(Split.TEST)
        new = targets >= sequences.n_items
        return cls(items, sequences.owners_of(Split.TEST)[new], targets[new] - np.int32(sequences.n_items), True)

    def __len__(self) -> int:
        return self.items.height


@dataclass(frozen=True)
class Dataset:
    """A shop's data, ready for training, and split.

    Attributes:
        items: one row an item, sorted by `item_id`: item (int32, 0 to n_items - 1), item_id, title, text (strings)
            and train_count (int64, occurrences in the training part of the sequences).
        users: one row a user, sorted by `user_id`: user (int32), user_id (string).
        sequences: every user's items in order of time.
        timestamps: int64, aligned with `sequences.items`.
        profile: counts before and after each filter, quantiles of history lengths, ties; plain JSON values.
        new_items: the new items held out of all the above, and who took one last; None where none are.
        attributes: columns kept for rules, a row for each of `all_items`; None where none are.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    sequences: Sequences
    timestamps: npt.NDArray[np.int64]
    profile: dict[str, Any]
    new_items: NewItems | None = None
    attributes: pl.DataFrame | None = None

    @property
    def split(self) -> Mapping[str, Any]:
        """How the data are split, and when: as `data.split.record` says, plain values.

        Of leave-one-out, which has no moments, `kind` and `last_training_time` alone.
        """
        if found := self.profile.get("split"):
            return dict(found)
        lengths = np.diff(self.sequences.offsets)
        # The last item that a user trains on; there is none where nobody has more than the two that are held back.
        last = (self.sequences.offsets[1:] - 1 - Split.TRAIN.value)[lengths > Split.TRAIN.value]
        return {"kind": LEAVE_ONE_OUT, "last_training_time": int(self.timestamps[last].max()) if len(last) else None}

    @property
    def n_items_with_new(self) -> int:
        """Size of the catalogue once the new items are in it, after the others."""
        return self.items.height + (0 if self.new_items is None else len(self.new_items))

    def all_items(self) -> pl.DataFrame:
        """`items`, and after them the new ones with a train_count of 0."""
        if self.new_items is None:
            return self.items
        index = pl.int_range(self.items.height, self.n_items_with_new, dtype=pl.Int32).alias("item")
        new = self.new_items.items.select(index, pl.all(), pl.lit(0, pl.Int64).alias("train_count"))
        return pl.concat([self.items, new])

    def save_all_items(self, path: Path) -> None:
        """Write `all_items` as `save` writes `items`."""
        _write_items(path, self.all_items())

    def save(self, folder: Path) -> None:
        """Write items.parquet, users.parquet, sequences.parquet and profile.json.

        With new items also new_items.parquet (item_id, title, text) and new_tests.parquet (user, and target, a row
        of the former); with attributes also attributes.parquet. With another split than leave-one-out also
        borders.parquet: of each user how many of the items come before the validation, and how many before the test.
        Where targets are left out also left_out.parquet: the place of each among the items of all users.
        """
        offsets = pa.array(self.sequences.offsets.astype(np.int32))
        sequences = pa.table(
            {
                "user": pa.array(np.arange(self.sequences.n_users, dtype=np.int32)),
                "items": pa.ListArray.from_arrays(offsets, pa.array(self.sequences.items)),
                "timestamps": pa.ListArray.from_arrays(offsets, pa.array(self.timestamps)),
            }
        )
        _write_items(folder / "items.parquet", self.items)
        write_parquet(folder / "users.parquet", self.users.to_arrow().cast(_USERS))
        write_parquet(folder / "sequences.parquet", sequences)
        write_json(folder / "profile.json", self.profile)
        if (borders := self.sequences.borders) is not None:
            columns = {"validation_from": borders.validation_from, "test_from": borders.test_from}
            write_parquet(folder / "borders.parquet", pa.table(columns).cast(_BORDERS))
        if (left_out := self.sequences.left_out) is not None:
            write_parquet(folder / "left_out.parquet", pa.table({"place": np.flatnonzero(left_out)}).cast(_LEFT_OUT))
        if self.new_items is not None:
            tests = pa.table({"user": self.new_items.users, "target": self.new_items.targets})
            write_parquet(folder / "new_items.parquet", self.new_items.items.to_arrow().cast(_NEW_ITEMS))
            write_parquet(folder / "new_tests.parquet", tests.cast(_NEW_TESTS))
        if self.attributes is not None:
            kept.save(folder / kept.FILE, self.all_items()["item_id"], self.attributes)

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read what `save` wrote.

        Raises:
            UserError: the files were written by an incompatible version of this software.
        """
        folder = Path(folder)
        items = _frame(read_parquet(folder / "items.parquet", _STAGE))
        table = read_parquet(folder / "sequences.parquet", _STAGE)
        lists = table.column("items").combine_chunks()
        lengths = np.diff(lists.offsets.to_numpy())
        profile = read_json(folder / "profile.json")
        split = profile.get("split") or {"kind": LEAVE_ONE_OUT}
        sequences = Sequences(
            items=lists.flatten().to_numpy().astype(np.int32),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]),
            n_items=items.height,
            borders=None if split["kind"] == LEAVE_ONE_OUT else _borders(folder, split),
            left_out=_left_out(folder, int(lengths.sum())),
        )
        new_items = _new_items(folder, in_sequences=split["kind"] == "by_time")
        item_ids = items["item_id"] if new_items is None else pl.concat([items["item_id"], new_items.items["item_id"]])
        return cls(
            items=items,
            users=_frame(read_parquet(folder / "users.parquet", _STAGE)),
            sequences=sequences,
            timestamps=table.column("timestamps").combine_chunks().flatten().to_numpy().astype(np.int64),
            profile=profile,
            new_items=new_items,
            attributes=kept.load(folder / kept.FILE, item_ids) if (folder / kept.FILE).is_file() else None,
        )


def _write_items(path: Path, items: pl.DataFrame) -> None:
    write_parquet(path, items.to_arrow().cast(_ITEMS))


def _borders(folder: Path, split: Mapping[str, Any]) -> Borders:
    table = read_parquet(folder / "borders.parquet", _STAGE)
    before, tested = (table[name].to_numpy().astype(np.int64) for name in _BORDERS.names)
    return Borders(before, tested, int(split["least"]), split["targets"] == "first")


def _left_out(folder: Path, n_interactions: int) -> npt.NDArray[np.bool_] | None:
    if not (path := folder / "left_out.parquet").is_file():
        return None
    found = np.zeros(n_interactions, np.bool_)
    found[read_parquet(path, _STAGE)["place"].to_numpy()] = True
    return found


def _new_items(folder: Path, *, in_sequences: bool) -> NewItems | None:
    if not (path := file(folder, "new_items.parquet")).is_file():
        return None
    tests = read_parquet(file(folder, "new_tests.parquet"), _STAGE)
    users, targets = (tests[name].to_numpy().astype(np.int32) for name in ("user", "target"))
    return NewItems(_frame(read_parquet(path, _STAGE)), users, targets, in_sequences)


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table.replace_schema_metadata(None)))
