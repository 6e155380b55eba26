"""Stage `embed_text` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

from prorec_core.artifacts import write_json
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import write_embeddings
from prorec_core.errors import UserError
from prorec_core.registry import ENCODERS
from prorec_core.stages.work import StageWork
from prorec_core.text.base import Encoder
from prorec_core.text.pieces import Spread, Ways
from prorec_core.text.semantic import SemanticSource
from prorec_core.text.stage import describe, outside_digest


def described_by(config: TextConfig, data: DataConfig) -> str:
    """What tells an encoder's content, and that of files of vectors, from any other's.

    "nowhere" where one is not found, as the stage then says.
    """
    try:
        return outside_digest(config, data)
    except UserError:
        return "nowhere"


def embed_text(work: StageWork, data: DataConfig | None = None, spread: Spread | None = None) -> list[SemanticSource]:
    """Embed every item's text, equal texts once; vectors of one's own stand beside it.

    Finished pieces wait among the checkpoints, so that a killed run goes on with them.

    Args:
        work: of the stage.
        data: where the items file is, of which a source may be a column; by default as the experiment says.
        spread: has others make the pieces of an encoder that can be shared; by default this process does.

    Raises:
        UserError: the encoder is not found, or gives no vector for an item; or vectors cannot be used.
    """
    experiment, text = work.experiment, work.experiment.text
    kind: type[Encoder] = ENCODERS.load(text.encoder)
    ways = Ways(work.checkpoints / "pieces", spread if kind.spreads else None)
    if ways.spread is None:
        work.runtime(text.precision)
        work.made_with.update(kind.made_with(text, experiment.device))
    dataset = Dataset.load(work.inputs["preprocess"])
    items, known = dataset.all_items(), dataset.items.height
    texts, item_ids = items["text"].to_list(), items["item_id"].to_list()
    if data is None:
        data = experiment.data if text.columns else DataConfig()
    found = describe(text, data, item_ids, texts, known, experiment.device, work.report, ways)
    if ways.spread is not None:
        work.made_with.update(ways.made_with)
    # What new items have to be embedded with, to stand beside these; not where it was found.
    encoder = {
        "digest": kind.digest(text),
        "encoder": text.encoder,
        "backend": text.backend,
        "precision": text.precision,
        "max_tokens": text.max_tokens,
        "sources": [each.to_json() for each in found.sources],
    }
    write_json(work.folder / "encoder.json", encoder)
    write_embeddings(work.folder / "embeddings.parquet", found.embeddings[:known])
    if dataset.new_items is not None:
        write_embeddings(work.folder / "new_embeddings.parquet", found.embeddings[known:])
    return found.sources
