"""Rows of batch recommendations as columns of Arrow, and the columns that say why an item is there.

Knows reasons and Arrow; knows nothing of files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prorec_core.generation.explain import Explained
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.scoring import Scoring

SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
"""A row an item: users in the order of the input, `rank` from 1, `score` a log-probability up to a constant."""


def explained_schema(scoring: Scoring) -> pa.Schema:
    """`SCHEMA` and after it why: `baseline`; what each part of the score gave, by its name, which add up to the score
    less the baseline; `followed` and `similar`, the latest items that the item has followed most and is nearest to in
    text; `codes`, a text a level with the words of the items that share the codes up to there. Null where a part has no
    say, and all but the codes where popularity recommends.
    """
    parts = [pa.field(name, pa.float32()) for name in ("baseline", *scoring.parts)]
    items = [pa.field(name, pa.string()) for name in ("followed", "similar")]
    return pa.schema([*SCHEMA, *parts, *items, pa.field("codes", pa.list_(pa.string()), nullable=False)])


def explained_columns(
    recommender: Recommender, told: Explained, user: npt.NDArray[np.int64], place: npt.NDArray[np.int64]
) -> list[Any]:
    """Those columns of some places of lists."""
    numbers = [told.baseline_U[user], *told.contributions_UKF[user, place].T]
    trie = recommender.generator.trie
    path, codes = trie.path.cpu().numpy(), []
    for item in told.items_UK[user, place]:
        nodes = enumerate(path[item], start=1)
        codes.append([", ".join(recommender.words.of(level, int(node)).words) for level, node in nodes])
    return [
        *(pa.array(values, pa.float32(), from_pandas=True) for values in numbers),
        *(_ids(recommender, items[user, place]) for items in (told.followed_UK, told.similar_UK)),
        pa.array(codes, pa.list_(pa.string())),
    ]


def _ids(recommender: Recommender, items: npt.NDArray[np.int32]) -> Any:
    return recommender.item_id_column.take(pa.array(np.maximum(items, 0), mask=items < 0))
