"""What items share with a history: leading codes, and nearness of texts. Knows tables; knows nothing of models.

Axes: A items, H items of the history, L levels, S dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.embeddings import FloatArray


def in_common(
    item_ids: Sequence[str],
    asked: Sequence[int],
    had: Sequence[int],
    titles: pl.Series,
    codes: npt.NDArray[np.integer],
    texts: FloatArray,
) -> pl.DataFrame:
    """Of each item the one of the history that is nearest by codes, and the one of nearest text.

    Args:
        item_ids: of the items that are asked for, length A.
        asked: their rows, length A.
        had: the rows of the history's items, one at least, length H.
        titles: of all items.
        codes: of all items, shape (items, L).
        texts: embeddings of all items, shape (items, S).

    Returns:
        One row an item: item_id, shared_codes (leading codes that are equal), by_codes (title, null where not even the
        first code is shared), by_text (title) and text_similarity (cosine).
    """
    titles_H = titles.gather(list(had)).to_list()
    equal_AHL = (codes[asked][:, None] == codes[had][None]).cumprod(axis=2)
    shared_AH = equal_AHL.sum(axis=2)
    similar_AH = _normalised(texts[asked]) @ _normalised(texts[had]).T
    nearest_A, shared_A = shared_AH.argmax(axis=1), shared_AH.max(axis=1)
    return pl.DataFrame(
        {
            "item_id": item_ids,
            "shared_codes": shared_A,
            "by_codes": [titles_H[at] if n else None for at, n in zip(nearest_A, shared_A, strict=True)],
            "by_text": [titles_H[at] for at in similar_AH.argmax(axis=1)],
            "text_similarity": similar_AH.max(axis=1),
        },
        schema_overrides={"item_id": pl.String, "shared_codes": pl.Int64, "by_codes": pl.String},
    )


def _normalised(vectors: FloatArray) -> FloatArray:
    """Rows of length one; rows of zeros stay."""
    found: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found
