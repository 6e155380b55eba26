"""What items are described by: their text, vectors of one's own, or several of these side by side as one E_S.

Knows vectors, and which items lack one; knows nothing of encoders. Where there are several, or vectors of one's own are
named, each source is centred and scaled to a total variance of 1 over the items that have it, so that a wide source
weighs no more than a narrow one; an item without a vector stands at the mean, which is zero there. Axes: N items, S
dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prorec_core.artifacts import sha256_file, sha256_json
from prorec_core.config_data import DataConfig, TextConfig, VectorSource
from prorec_core.errors import UserError
from prorec_core.registry import IN_COLUMN, ITEMS_FILES
from prorec_core.text.semantic import TEXT, FloatArray, Mask, Semantic, SemanticSource
from prorec_core.text.vectors import VectorTable, existing, named, read_file

_EXAMPLES = 3


def text_alone(embeddings: FloatArray, digest: str, known: int) -> Semantic:
    """E_S where the text is all: as the encoder gave it."""
    return Semantic(embeddings, [SemanticSource(TEXT, embeddings.shape[1], digest, items=known)])


Found = tuple[SemanticSource, FloatArray, Mask, str]
"""A source without its mean and scale, its vectors as they are, whose they are, and where."""


def found_vectors(config: TextConfig, data: DataConfig, item_ids: Sequence[str], known: int) -> list[Found]:
    """The vectors that the configuration names.

    Args:
        config: the section `text`.
        data: where the items file is, and how its ids are read.
        item_ids: of all N items.
        known: how many of them, the first, are no new ones.

    Raises:
        UserError: a file cannot be used, or an item lacks a vector where that is an error.
    """
    found = []
    for each in config.vectors:
        table = _read(each, data)
        vectors, there = table.of(item_ids)
        without = [item for item, has in zip(item_ids, there, strict=True) if not has]
        if without and each.missing == "error":
            raise UserError(
                f"{len(without):,} of {len(item_ids):,} items have no vector '{each.name}': {named(without)}",
                place=table.place,
                cure="Add them, or set missing: mean for this source in text.vectors",
            )
        lacking = int((~there[:known]).sum())
        source = SemanticSource(
            each.name,
            vectors.shape[1],
            source_digest(each, data),
            missing=each.missing,
            items=known,
            without=lacking,
            new_without=len(without) - lacking,
            examples=without[:_EXAMPLES],
        )
        found.append((source, vectors, there, table.place))
    return found


def joined(text: FloatArray, digest: str, others: Sequence[Found], known: int) -> Semantic:
    """E_S of the text and of other vectors, side by side.

    Args:
        text: what the encoder gave, float32, shape (N, any); of no dimensions where there is none.
        digest: the encoder's.
        others: what `found_vectors` gave.
        known: how many items, the first, decide means and scales; the others are new.

    Raises:
        UserError: no two items differ in a source.
    """
    everybody = np.ones(len(text), bool)
    own = SemanticSource(TEXT, text.shape[1], digest, items=known)
    found: list[Found] = [*([(own, text, everybody, "text.encoder")] if own.width else []), *others]
    sources = [_measured(source, vectors, there, place) for source, vectors, there, place in found]
    parts = [source.placed(vectors, there) for source, (_, vectors, there, _) in zip(sources, found, strict=True)]
    return Semantic(np.hstack(parts), sources)


def source_digest(source: VectorSource, data: DataConfig) -> str:
    """What tells a source's content from any other's, whatever the name of its file.

    Raises:
        UserError: it is not there.
    """
    if source.path is None:
        return sha256_json([ITEMS_FILES.load(IN_COLUMN)(data).digest(), source.column])
    return sha256_file(existing(source.path, _setting(source)))


def _read(source: VectorSource, data: DataConfig) -> VectorTable:
    if source.path is None:
        found: VectorTable = ITEMS_FILES.load(IN_COLUMN)(data).vectors(source.column)
        return found
    return read_file(existing(source.path, _setting(source)), source.column, every=False)


def _setting(source: VectorSource) -> str:
    return f"text.vectors, '{source.name}', path={source.path}"


def _measured(source: SemanticSource, vectors: FloatArray, there: Mask, place: str) -> SemanticSource:
    """The source with the mean and the scale of the known items that have a vector."""
    own = vectors[: source.items][there[: source.items]]
    mean = own.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = float(np.sqrt(np.square(own - mean, dtype=np.float64).sum() / max(len(own), 1)))
    if not np.isfinite(scale) or scale <= 1e-6 * float(np.linalg.norm(mean)):
        raise UserError(
            f"the vectors '{source.name}' of the {len(own):,} items that have one do not differ",
            place=place,
            cure="Leave this source out, or give vectors that tell items apart",
        )
    return replace(source, mean=[float(each) for each in mean], scale=scale)
