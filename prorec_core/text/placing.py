"""The semantic vectors of items that come after a model was made: by its own encoder and sources, or they are refused.

Knows texts, encoders, vectors and what tells one encoder from another; knows nothing of models. `semantic_vectors` is
the one place where it is decided how an item of a model gets its vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.progress import Report, silent
from prorec_core.registry import ENCODERS
from prorec_core.text.base import Encoder, FloatArray
from prorec_core.text.semantic import TEXT, SemanticSource
from prorec_core.text.vectors import VectorTable, named

GIVEN = "vectors"
"""The encoder whose vectors are in a file: those of new items come with them."""


def given_columns(text: TextConfig) -> dict[str, str]:
    """By the names of those sources whose vectors come with new items, the column that they stand in."""
    own = {TEXT: "embedding"} if text.encoder == GIVEN else {}
    return own | {each.name: each.name for each in text.vectors}


def semantic_vectors(
    text: TextConfig,
    encoder: Mapping[str, Any],
    items: tuple[list[str], list[str]],
    width: int,
    given: Mapping[str, VectorTable],
    device: str = "auto",
    report: Report = silent,
    place: str = "--items",
) -> FloatArray:
    """Vectors of new items as the model's own items have them, float32, shape (items, width).

    Args:
        text: what the model's items are described by, the encoder at a place where it is now.
        encoder: what tells it from others, and how each source became a part of E_S (`encoder.json` of the model).
        items: ids and texts of the new items.
        width: of the model's vectors.
        given: by source vectors that came with the items.
        device: auto, cpu, cuda, …
        report: told how far it is.
        place: what the items came in, for errors.

    Raises:
        UserError: the encoder is not there, or it is another one; vectors are wanted and were not given, or are of
            another width.
    """
    parts = []
    # What came with the items is looked at before texts take their time.
    sources = SemanticSource.all_of(encoder, width)
    for source in sorted(sources, key=lambda each: each.name == TEXT):
        if source.name == TEXT and text.encoder != GIVEN:
            vectors, there = _encoded(text, source.digest, items, device, report), np.ones(len(items[0]), bool)
        else:
            vectors, there = _given(source, items[0], given, place)
        if vectors.shape[1] != source.width:
            raise UserError(
                f"the vectors '{source.name}' have {vectors.shape[1]} numbers, those of the model {source.width}",
                place=place,
                cure="Give vectors of what made the model's",
            )
        parts.append((sources.index(source), source.placed(vectors, there)))
    found: FloatArray = np.hstack([part for _, part in sorted(parts, key=lambda each: each[0])])
    return found


def _encoded(
    text: TextConfig, digest: str, items: tuple[list[str], list[str]], device: str, report: Report
) -> FloatArray:
    kind: type[Encoder] = ENCODERS.load(text.encoder)
    here = kind.digest(text)
    if here != digest:
        raise UserError(
            f"the encoder '{text.model}' here is not the one that the model's texts were embedded with "
            f"({here[:12]}, not {digest[:12]})",
            place="--encoder",
            cure="Name the folder or package that holds the same files",
        )
    return kind.open(text, device).encode(items[0], items[1], report)


def _given(
    source: SemanticSource, item_ids: list[str], given: Mapping[str, VectorTable], place: str
) -> tuple[FloatArray, Any]:
    table = given.get(source.name)
    if table is None:
        vectors, there = np.zeros((len(item_ids), source.width), np.float32), np.zeros(len(item_ids), bool)
    else:
        vectors, there = table.of(item_ids)
    without = [item for item, has in zip(item_ids, there, strict=True) if not has]
    if without and source.missing == "error":
        raise UserError(
            f"{len(without):,} of {len(item_ids):,} items have no vector '{source.name}': {named(without)}",
            place=place,
            cure="Give them one each",
        )
    return vectors, there
