"""Stage embed_text: each item to one vector. Knows ids and texts; knows no encoder."""

from __future__ import annotations

from prorec_core.config_data import TextConfig
from prorec_core.progress import Report, silent
from prorec_core.registry import ENCODERS
from prorec_core.text.base import Encoder, FloatArray


def embed_text(
    config: TextConfig, item_ids: list[str], texts: list[str], device: str = "auto", report: Report = silent
) -> FloatArray:
    """Vectors of items by the encoder that the configuration names, float32, shape (items, s).

    Args:
        config: the encoder and how much of a text it reads.
        item_ids: the items' own ids.
        texts: one an item, in the same order; many may be equal.
        device: auto, cpu, cuda, …
        report: told how far it is.

    Raises:
        UserError: the encoder or the device is not there, or an item cannot have a vector.
    """
    encoder: Encoder = ENCODERS.load(config.encoder).open(config, device)
    return encoder.encode(item_ids, texts, report)
