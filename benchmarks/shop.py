"""A made-up shop of any size: interactions, items, and a vector an item, as files that `prorec run` reads.

Knows sizes and chance; knows nothing of stages. Items stand in clusters of very unequal size, users mostly keep to a
few of these, and popular items are taken far more often than others: there is something to learn. Every item occurs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
_CLUSTERS = 2000
"""At most, and one for a hundred items."""
_SPREAD = 0.7
"""Of the items of a cluster around its centre, whose deviation is 1."""
_AT_ONCE = 65_536
_LIKED = 3
"""Clusters that a user keeps to."""
_FAITHFUL = 0.8
"""How often."""
_SHORTEST, _LONGEST = 4, 50
_YEARS = (1_500_000_000, 1_700_000_000)


@dataclass(frozen=True)
class Size:
    """Of a shop: items, users, and interactions a user on average."""

    items: int
    users: int
    per_user: int = 13

    def __str__(self) -> str:
        return f"{self.items:,} items, {self.users:,} users"


def clusters_of(n_items: int) -> Integers:
    """The cluster of each item, int64, shape (items,)."""
    chance = np.random.default_rng(0)
    count = min(_CLUSTERS, max(4, n_items // 100))
    return chance.choice(count, n_items, p=chance.dirichlet(np.full(count, 0.5))).astype(np.int64)


def vectors_of(clusters_N: Integers, dim: int) -> Floats:
    """A vector an item near the centre of its cluster, float32, shape (items, dim)."""
    chance = np.random.default_rng(1)
    centres = chance.standard_normal((int(clusters_N.max()) + 1, dim), dtype=np.float32)
    found = chance.standard_normal((len(clusters_N), dim), dtype=np.float32)
    found *= np.float32(_SPREAD)
    for start in range(0, len(found), _AT_ONCE):
        found[start : start + _AT_ONCE] += centres[clusters_N[start : start + _AT_ONCE]]
    return found


def write_shop(folder: Path, size: Size, dim: int) -> None:
    """Write interactions.parquet, items.parquet and vectors.parquet; no user has an item twice."""
    clusters_N = clusters_of(size.items)
    users, items = interactions_of(size, clusters_N)
    chance = np.random.default_rng(3)
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": chance.integers(*_YEARS, len(users))}).with_columns(
        pl.format("user-{}", "user_id").alias("user_id"), pl.format("item-{}", "item_id").alias("item_id")
    ).write_parquet(folder / "interactions.parquet")
    ids = pl.select(pl.format("item-{}", pl.int_range(size.items)).alias("item_id"))
    ids.with_columns(pl.format("A thing called {}", "item_id").alias("title")).write_parquet(folder / "items.parquet")
    flat = pa.array(vectors_of(clusters_N, dim).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, dim)
    pq.write_table(pa.table({"item_id": ids["item_id"].to_arrow(), "embedding": vectors}), folder / "vectors.parquet")


def settings_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What an experiment says of its data and texts, so that it reads what `write_shop` wrote and keeps all of it."""
    return {
        "data": {
            "source": "tables",
            "path": str(folder),
            "text_columns": ["title"],
            "min_user_interactions": 3,
            "min_item_interactions": 1,
        },
        "text": {"encoder": "vectors", "model": str(folder / "vectors.parquet")},
    }


def interactions_of(size: Size, clusters_N: Integers) -> tuple[Integers, Integers]:
    """Users and items, in no order of time."""
    chance = np.random.default_rng(2)
    # A tenth is drawn twice, and counts once.
    wanted = 1.1 * size.users * size.per_user - size.items
    shortest = min(_SHORTEST, size.per_user)
    mean = max(wanted / size.users - shortest, 0.0) + 1
    lengths = np.clip(chance.geometric(1 / mean, size.users) + shortest - 1, shortest, _LONGEST)
    who = np.repeat(np.arange(size.users), lengths)
    popular_N = chance.pareto(1.2, size.items) + 0.1
    # Items in the order of their clusters, so that a cluster is a stretch of the sums of popularity.
    order = np.argsort(clusters_N, kind="stable")
    sums = np.concatenate([[0.0], popular_N[order].cumsum()])
    edges = np.searchsorted(clusters_N[order], np.arange(clusters_N.max() + 2))
    liked = clusters_N[chance.integers(0, size.items, (size.users, _LIKED))]
    cluster = liked[who, chance.integers(0, _LIKED, len(who))]
    faithful = chance.random(len(who)) < _FAITHFUL
    low = np.where(faithful, sums[edges[cluster]], 0.0)
    high = np.where(faithful, sums[edges[cluster + 1]], sums[-1])
    places = np.searchsorted(sums, low + (high - low) * chance.random(len(who)), side="right") - 1
    what = order[np.clip(places, 0, size.items - 1)]
    # Every item at least once.
    who = np.concatenate([who, chance.integers(0, size.users, size.items)])
    what = np.concatenate([what, np.arange(size.items)])
    pairs = chance.permutation(np.unique(who * size.items + what))
    return pairs // size.items, pairs % size.items
