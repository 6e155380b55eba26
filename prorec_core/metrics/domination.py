"""How much of an embedding's structure comes from text and how much from behaviour: semantic domination.

Knows matrices of item embeddings; knows nothing of where they come from. Axes: N items, K neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]

_EXACT_ITEMS = 20_000
"""Up to this many items every item's neighbours are looked up; above, those of a sample of about as much work."""
_CKA_ITEMS = 100_000
"""Up to this many items count in a linear CKA; above, so many are drawn."""
_ROWS = 65_536
"""Items whose squares are made at a time."""
SIMILARITY_CELLS = 8_000_000
"""Similarities held at a time (float32)."""


def neighbours(embeddings: Floats, queries: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """The k items nearest by cosine to each query item, itself apart, among all items.

    Args:
        embeddings: shape (N, any).
        queries: item indices whose neighbours are sought, shape (Q,).
        k: less than N.

    Returns:
        Item indices, int64, shape (Q, k), nearest first. Exact; similarities are float32.
    """
    n_items = len(embeddings)
    vectors = torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(embeddings, np.float32)), dim=1)
    chunk = max(1, SIMILARITY_CELLS // n_items)
    found = np.empty((len(queries), k), np.int64)
    # One table for all chunks: a new one each time leaves holes in the heap, which then grows by many tables.
    table = torch.empty((min(chunk, len(queries)), n_items))
    for start in range(0, len(queries), chunk):
        asked = torch.from_numpy(queries[start : start + chunk])
        similarities = torch.mm(vectors[asked], vectors.T, out=table[: len(asked)])
        similarities[torch.arange(len(asked)), asked] = -torch.inf
        found[start : start + chunk] = similarities.topk(k, dim=1).indices.numpy()
    return found


def neighbour_overlap(a: Floats, b: Floats, k: int = 10, seed: int = 0) -> float:
    """Mean share of an item's k nearest neighbours by cosine in `a` that are so in `b` too.

    1: equal neighbourhoods; about k / N: unrelated ones. Exact up to 20,000 items; above, over a sample of
    items drawn with `seed`, each against the whole catalogue.

    Args:
        a: shape (N, any).
        b: shape (N, any).
        k: neighbours an item; at most N - 1 are taken.
        seed: of the sample.
    """
    queries, k = _queries(len(a), seed), _fitting(len(a), k)
    return _shared(neighbours(a, queries, k), neighbours(b, queries, k))


def linear_cka(a: Floats, b: Floats) -> float:
    """Linear centred kernel alignment, Kornblith et al. 2019, eq. 3: ‖BᵀA‖² / (‖AᵀA‖ ‖BᵀB‖), columns centred.

    1 for embeddings equal up to rotation and scale, towards 0 for unrelated ones (the expectation of unrelated
    ones grows with dimensions / N). 0 where one of them is constant.

    Args:
        a: shape (N, p).
        b: shape (N, q); nothing larger than (p + q)² is made of them.
    """
    mean_a, mean_b = a.mean(axis=0, dtype=np.float64), b.mean(axis=0, dtype=np.float64)
    between = np.zeros((a.shape[1], b.shape[1]))
    within_a, within_b = np.zeros((a.shape[1],) * 2), np.zeros((b.shape[1],) * 2)
    chunk = max(1, SIMILARITY_CELLS // max(a.shape[1] + b.shape[1], 1))
    for start in range(0, len(a), chunk):
        part_a, part_b = a[start : start + chunk] - mean_a, b[start : start + chunk] - mean_b
        between += part_a.T @ part_b
        within_a += part_a.T @ part_a
        within_b += part_b.T @ part_b
    size = float(np.linalg.norm(within_a) * np.linalg.norm(within_b))
    return float(np.square(between).sum()) / size if size > 0 else 0.0


def domination(
    integrated: Floats,
    semantic: Floats,
    collaborative: Floats,
    k: int = 10,
    seed: int = 0,
    sources: Mapping[str, Floats] | None = None,
) -> dict[str, Any]:
    """Compare an integrated embedding with its two sources, beside two plain concatenations of them.

    Of items that are equally near to one, as where more than k share a text, k count and the others do not: there
    overlaps with that side are told too low.

    Args:
        integrated: E_I, shape (N, any).
        semantic: E_S, text embeddings as the encoder gave them, shape (N, s).
        collaborative: E_C, item embeddings of the collaborative model, shape (N, d).
        k: neighbours an item in the overlap.
        seed: of the samples of items: whose neighbours are looked up (above 20,000 items), and that count in CKA (above
            100,000).
        sources: parts of E_S by name, shape (N, any), where it is made of several; items whose row is zero lack it,
            and are asked in none.

    Returns:
        A row each under `integrated`, `naive_concatenation` (E_S and E_C side by side, each at its own scale)
        and `standardised_concatenation` (each half centred and scaled to the same total variance):
        overlap_semantic, overlap_collaborative, cka_semantic, cka_collaborative, and
        text_share = overlap_semantic / (overlap_semantic + overlap_collaborative).
        Where there are sources, under `by_source` of each row the overlap and cka with each, and its share of all
        overlaps, those with the sources and with E_C.
        Under `sources` the overlap and cka of E_S with E_C; `neighbours`, `items` and `sampled_items` say of
        how many these are.
    """
    queries, k = _queries(len(integrated), seed), _fitting(len(integrated), k)
    drawn = _drawn(len(integrated), _CKA_ITEMS, seed) if len(integrated) > _CKA_ITEMS else None

    def cka(a: Floats, b: Floats) -> float:
        return linear_cka(a, b) if drawn is None else linear_cka(a[drawn], b[drawn])

    near_semantic = neighbours(semantic, queries, k)
    near_collaborative = neighbours(collaborative, queries, k)
    near_source = {}
    for name, part in (sources or {}).items():
        has = part[queries].any(axis=1)
        if has.any():
            near_source[name] = has, neighbours(part, queries[has], k)

    def by_source(embeddings: Floats, near: npt.NDArray[np.int64], of_behaviour: float) -> dict[str, Any]:
        overlaps = {name: _shared(near[has], of) for name, (has, of) in near_source.items()}
        total = sum(overlaps.values()) + of_behaviour
        return {
            name: {
                "overlap": round(overlap, 6),
                "cka": round(cka(embeddings, (sources or {})[name]), 6),
                "share": round(overlap / total, 6) if total else round(1 / (len(overlaps) + 1), 6),
            }
            for name, overlap in overlaps.items()
        }

    def row(embeddings: Floats) -> dict[str, Any]:
        near = neighbours(embeddings, queries, k)
        of_text, of_behaviour = _shared(near, near_semantic), _shared(near, near_collaborative)
        total = of_text + of_behaviour
        numbers = {
            "overlap_semantic": of_text,
            "overlap_collaborative": of_behaviour,
            "cka_semantic": cka(embeddings, semantic),
            "cka_collaborative": cka(embeddings, collaborative),
            "text_share": of_text / total if total else 0.5,
        }
        rounded: dict[str, Any] = {name: round(number, 6) for name, number in numbers.items()}
        return {**rounded, "by_source": by_source(embeddings, near, of_behaviour)} if near_source else rounded

    return {
        "neighbours": k,
        "items": len(integrated),
        "sampled_items": len(queries),
        "integrated": row(integrated),
        "naive_concatenation": row(np.hstack([semantic, collaborative])),
        "standardised_concatenation": row(np.hstack([_standardised(semantic), _standardised(collaborative)])),
        "sources": {
            "overlap": round(_shared(near_semantic, near_collaborative), 6),
            "cka": round(cka(semantic, collaborative), 6),
        },
    }


def _queries(n_items: int, seed: int) -> npt.NDArray[np.int64]:
    if n_items <= _EXACT_ITEMS:
        return np.arange(n_items)
    return _drawn(n_items, min(max(1_000, _EXACT_ITEMS**2 // n_items), n_items), seed)


def _drawn(n_items: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """So many items, drawn evenly, ascending."""
    return np.sort(np.random.default_rng(seed).choice(n_items, count, replace=False))


def _fitting(n_items: int, k: int) -> int:
    if n_items < 2:
        raise ValueError("neighbours need at least two items")
    return min(k, n_items - 1)


def _shared(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    """Mean share of equal indices in the rows of two tables of shape (Q, k)."""
    return float((a[:, :, None] == b[:, None, :]).sum()) / a.size


def _standardised(embeddings: Floats) -> Floats:
    centred: Floats = embeddings - embeddings.mean(axis=0)
    parts = (centred[start : start + _ROWS] for start in range(0, len(centred), _ROWS))
    size = np.sqrt(sum(np.square(part, dtype=np.float64).sum() for part in parts) / len(centred))
    centred /= np.float32(max(float(size), 1e-12))
    return centred
