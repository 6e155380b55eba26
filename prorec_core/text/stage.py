"""Stage embed_text: each item to one vector, of its text or of all that it is described by. Knows no encoder."""

from __future__ import annotations

from prorec_core.artifacts import sha256_json
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.progress import Report, silent
from prorec_core.registry import ENCODERS
from prorec_core.text.base import Encoder, FloatArray
from prorec_core.text.pieces import Ways
from prorec_core.text.semantic import Semantic
from prorec_core.text.sources import found_vectors, joined, source_digest, text_alone


def embed_text(
    config: TextConfig,
    item_ids: list[str],
    texts: list[str],
    device: str = "auto",
    report: Report = silent,
    ways: Ways | None = None,
) -> FloatArray:
    """Vectors of items by the encoder that the configuration names, float32, shape (items, s).

    Args:
        config: the encoder and how much of a text it reads.
        item_ids: the items' own ids.
        texts: one an item, in the same order; many may be equal.
        device: auto, cpu, cuda, …
        report: told how far it is.
        ways: where finished pieces are kept, and who makes them; by default nowhere, and this process.

    Raises:
        UserError: the encoder or the device is not there, or an item cannot have a vector.
    """
    kind: type[Encoder] = ENCODERS.load(config.encoder)
    return kind.encoded(config, device, (item_ids, texts), report, ways or Ways())


def describe(
    config: TextConfig,
    data: DataConfig,
    item_ids: list[str],
    texts: list[str],
    known: int,
    device: str = "auto",
    report: Report = silent,
    ways: Ways | None = None,
) -> Semantic:
    """E_S of items: of their texts alone, or of the texts and the vectors that the configuration names.

    Args:
        config: the section `text`.
        data: where the items file is that a source may be a column of.
        item_ids: the items' own ids, new ones after the others.
        texts: one an item.
        known: how many of the items are no new ones.
        device: auto, cpu, cuda, …
        report: told how far it is.
        ways: as for `embed_text`.

    Raises:
        UserError: as `embed_text`, or a file of vectors cannot be used.
    """
    # What is wrong with a file is told before texts take their time.
    others = found_vectors(config, data, item_ids, known)
    text = embed_text(config, item_ids, texts, device, report, ways)
    digest = ENCODERS.load(config.encoder).digest(config)
    return joined(text, digest, others, known) if others else text_alone(text, digest, known)


def outside_digest(config: TextConfig, data: DataConfig) -> str:
    """What tells all that is read from outside: the encoder, and files of vectors.

    Raises:
        UserError: one is not there.
    """
    digest = str(ENCODERS.load(config.encoder).digest(config))
    return sha256_json([digest, [source_digest(each, data) for each in config.vectors]]) if config.vectors else digest
