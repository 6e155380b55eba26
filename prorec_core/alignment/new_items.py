"""A stand-in for what interactions tell of items that nobody has used yet: what they told of items of similar text.

Knows matrices of items; knows nothing of users or training. Axes: N known items, M new items, S text dimensions, D
dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float32]

NEIGHBOURS = 10
"""Known items that stand in for a new one."""
SIMILAR = 5
"""Known items of nearest text whose counts stand for a new item's."""
_CHUNK = 1024


def by_similar_text(known_ND: Floats, known_text_NS: Floats, new_text_MS: Floats, k: int = NEIGHBOURS) -> Floats:
    """What only interactions could tell of new items, estimated: the mean over the k known items of nearest text.

    Args:
        known_ND: embeddings of the known items: E_C, or directions of E_I.
        known_text_NS: their text embeddings E_S.
        new_text_MS: those of the new items; a zero row says nothing, and gets the mean over all known items.
        k: neighbours by cosine; N at most are taken.

    Returns:
        float32, shape (M, D).
    """
    near_MK = nearest_by_text(known_text_NS, new_text_MS, k)
    means_MD: Floats = known_ND[near_MK].mean(axis=1, dtype=np.float64).astype(np.float32)
    means_MD[~new_text_MS.any(axis=1)] = known_ND.mean(axis=0, dtype=np.float64)
    return means_MD


def nearest_by_text(known_text_NS: Floats, new_text_MS: Floats, k: int) -> npt.NDArray[np.int64]:
    """The k known items whose texts are nearest to each new one's by cosine, nearest first; shape (M, min(k, N))."""
    known_NS, k = directions_of(known_text_NS), min(k, len(known_text_NS))
    found = [np.zeros((0, k), np.int64)]
    for start in range(0, len(new_text_MS), _CHUNK):
        cosines = directions_of(new_text_MS[start : start + _CHUNK]) @ known_NS.T
        found.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


def directions_of(vectors: Floats) -> Floats:
    """Vectors at length 1, float32; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def standing_for(texts_NT: Floats, known: int) -> sparse.csr_matrix:
    """Which known items stand for each item, and their shares: itself, or the nearest texts for a new one.

    None stands for a new item whose text is a zero row.
    """
    told = np.flatnonzero(texts_NT[known:].any(axis=1))
    near_MK = nearest_by_text(texts_NT[:known], texts_NT[known + told], SIMILAR)
    places = np.repeat(told, near_MK.shape[1]), near_MK.ravel()
    shares = np.full(near_MK.size, 1 / max(near_MK.shape[1], 1), np.float32)
    new = sparse.csr_matrix((shares, places), (len(texts_NT) - known, known))
    return sparse.vstack([sparse.identity(known, np.float32), new]).tocsr()
