"""What an evaluation leaves: metrics, ranks and lists. Knows its files; knows nothing of how it measures.

Axes: U users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prorec_core.artifacts import read_json, read_parquet, write_json, write_parquet
from prorec_core.data.sequences import IntArray
from prorec_core.metrics.top import TopItems

_STAGE = "evaluate"
NEW_ITEMS = "new_items"
"""The split of those users who took a new item last; by time, of the test targets that training never saw."""


@dataclass(frozen=True)
class Evaluation:
    """What the stage leaves.

    Attributes:
        metrics: `protocol`; `targets_in_history`: by split how many targets stand in the history too;
            `validation_tells`: whether validation found anything to choose by; `warnings`: sentences on data and
            figures; `remarks`: those of them that are on the lists alone; `test` and `validation`: metrics by scorer;
            `fusion_weight`, `fusion_trials`, `ranker` (its `features` and `weights`, what `fit_ranker` told of it, and
            of a baseline's the `numbers` that it ranks by) and `recommended`, the scorer that recommends;
            `comparisons`: differences of test metrics with 95% intervals; `slices`: test Recall@10 of groups of users;
            `reference`: what is known of the data by construction, if anything; `new_items`, where some are held out:
            as `new_item_metrics` gives them.
        ranks: a row for each target of a split: user int32, target int32, split, rank_<scorer> int32 each, from 1,
            0 where the target is not in the list. Of leave-one-out each user has one. Where items are held out as new
            ones, the split "new_items" has a row for each user who took one last, whose target counts on after the
            other items; by time, for each test target that training never saw.
        lists: by scorer the lists before each test target, as long as the protocol says.
    """

    metrics: dict[str, Any]
    ranks: pa.Table
    lists: Mapping[str, TopItems] = field(default_factory=dict)

    @property
    def test_ranks(self) -> dict[str, IntArray]:
        """The ranks of the test targets by scorer, int32, shape (T,) each."""
        return self._ranks_of("test")

    @property
    def new_item_ranks(self) -> dict[str, IntArray]:
        """The same of the users who took a new item last, as `new_item_metrics` gives them; {} where there are none."""
        return self._ranks_of(NEW_ITEMS) if "new_items" in self.metrics else {}

    @property
    def ends(self) -> dict[str, int]:
        """How many items the longest test list of each scorer has, where the lists were read."""
        return {name: int((found.items_UK >= 0).any(axis=0).sum()) for name, found in self.lists.items()}

    def owners(self, split: str) -> IntArray:
        """Whose each target of a split is, int32, in the order of its ranks."""
        found: IntArray = self.ranks.filter(pc.equal(self.ranks["split"], split))["user"].to_numpy()
        return found

    def _ranks_of(self, split: str) -> dict[str, IntArray]:
        rows = self.ranks.filter(pc.equal(self.ranks["split"], split))
        names = [name.removeprefix("rank_") for name in rows.column_names if name.startswith("rank_")]
        return {name: rows[f"rank_{name}"].to_numpy() for name in names}

    def save(self, folder: Path) -> None:
        """Write metrics.json, ranks.parquet and lists.parquet."""
        write_json(folder / "metrics.json", self.metrics)
        write_parquet(folder / "ranks.parquet", self.ranks)
        write_parquet(folder / "lists.parquet", _lists_table(self.lists))

    @classmethod
    def load(cls, folder: str | Path, *, lists: bool = False) -> Evaluation:
        """Read what `save` wrote, the lists only where they are asked for.

        Raises:
            UserError: a table was written by an incompatible version of this software.
        """
        folder = Path(folder)
        ranks = read_parquet(folder / "ranks.parquet", _STAGE).replace_schema_metadata(None)
        found = _lists_of(read_parquet(folder / "lists.parquet", _STAGE)) if lists else {}
        return cls(read_json(folder / "metrics.json"), ranks, found)


def _lists_table(lists: Mapping[str, TopItems]) -> pa.Table:
    """A row a user: items_<scorer> and scores_<scorer>, lists of equal length."""
    columns = {}
    for scorer, found in lists.items():
        for name, table in (("items", found.items_UK), ("scores", found.scores_UK)):
            flat = pa.array(np.ascontiguousarray(table).ravel())
            columns[f"{name}_{scorer}"] = pa.FixedSizeListArray.from_arrays(flat, found.length)
    return pa.table(columns)


def _lists_of(table: pa.Table) -> dict[str, TopItems]:
    """What `_lists_table` was made of."""

    def values(column: str) -> Any:
        return table[column].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)

    scorers = [name.removeprefix("items_") for name in table.column_names if name.startswith("items_")]
    return {scorer: TopItems(values(f"items_{scorer}"), values(f"scores_{scorer}")) for scorer in scorers}
