"""The semantic vectors of items that come after a model was made: by its own encoder, or they are refused.

Knows texts, encoders and what tells one encoder from another; knows nothing of models. `semantic_vectors` is the one
place where it is decided how an item of a model gets its vector.
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

GIVEN = "vectors"
"""The encoder whose vectors are in a file: those of new items come with them."""


def semantic_vectors(
    text: TextConfig,
    encoder: Mapping[str, Any],
    items: tuple[list[str], list[str]],
    width: int,
    given: FloatArray | None = None,
    device: str = "auto",
    report: Report = silent,
    place: str = "--items",
) -> FloatArray:
    """Vectors of new items as the model's own items have them, float32, shape (items, width).

    Args:
        text: the encoder that the model's items were embedded with, at a place where it is now.
        encoder: what tells it from others: its `digest`.
        items: ids and texts of the new items.
        width: of the model's vectors.
        given: vectors that came with the items, one a row.
        device: auto, cpu, cuda, …
        report: told how far it is.
        place: what the items came in, for errors.

    Raises:
        UserError: the encoder is not there, or it is another one; vectors are wanted and none were given, or the other
            way round, or they are of another width.
    """
    if text.encoder == GIVEN:
        if given is None:
            raise UserError(
                "the model's items have vectors of their own, and these have none",
                place=place,
                cure="Give a Parquet file with the column embedding, made as those of text.model were",
            )
        found = given
    else:
        kind: type[Encoder] = ENCODERS.load(text.encoder)
        digest = kind.digest(text)
        if digest != encoder["digest"]:
            raise UserError(
                f"the encoder '{text.model}' here is not the one that the model's texts were embedded with "
                f"({digest[:12]}, not {str(encoder['digest'])[:12]})",
                place="--encoder",
                cure="Name the folder or package that holds the same files",
            )
        found = kind.open(text, device).encode(items[0], items[1], report)
    if found.shape[1] != width:
        raise UserError(
            f"the vectors have {found.shape[1]} numbers, those of the model {width}",
            place=place,
            cure="Give vectors of the encoder that made the model's",
        )
    if broken := int((~np.isfinite(found).all(axis=1)).sum()):
        raise UserError(f"{broken:,} vectors hold what is no finite number", place=place, cure="Correct them")
    return found
