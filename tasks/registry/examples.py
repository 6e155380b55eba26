"""Users of the data set that a registered model was made with, as examples of histories.

Knows MLflow's registry and the files of `preprocess`; reads as much of them as a few users need.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.tracking import store
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.tasks.registry.recommenders import RegisteredVersion

_LATEST = 50
"""Items of a history that are given."""


@dataclass(frozen=True)
class ExampleUser:
    """A user's id and latest items, the oldest first; `held_back` is what the user took next, after them."""

    user_id: str
    history: list[str]
    held_back: str


def example_users(version: RegisteredVersion, count: int) -> list[ExampleUser]:
    """A few users drawn at random, without their last item; none where the data set is not at hand."""
    if paths.nothing_tracked():
        return []
    carried = models.find(version.name, version.version)
    data = carried.artifact("preprocess") if carried else None
    if data is None:
        return []
    try:
        folder = store.fetch(data)
    except UserError:
        return []
    # Sequences that are split by time hold items that training never saw, numbered after the others.
    tables = [folder / name for name in ("items.parquet", "new_items.parquet") if (folder / name).is_file()]
    ids = pa.concat_tables([pq.read_table(table, columns=["item_id"]) for table in tables])["item_id"]
    names = pq.read_table(folder / "users.parquet", columns=["user_id"])["user_id"]
    file = pq.ParquetFile(folder / "sequences.parquet")
    # One part of the file has users enough.
    part = random.randrange(file.num_row_groups)
    table = file.read_row_group(part, columns=["user", "items"])
    found = []
    for row in random.sample(range(table.num_rows), min(count, table.num_rows)):
        taken = ids.take(table["items"][row].as_py()[-_LATEST - 1 :]).to_pylist()
        found.append(ExampleUser(names[table["user"][row].as_py()].as_py(), taken[:-1], taken[-1]))
    return found
