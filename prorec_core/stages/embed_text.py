"""Stage `embed_text` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

from prorec_core.artifacts import write_json
from prorec_core.config_data import TextConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import write_embeddings
from prorec_core.errors import UserError
from prorec_core.registry import ENCODERS
from prorec_core.stages.work import StageWork
from prorec_core.text import stage as text


def encoder_digest(config: TextConfig) -> str:
    """What tells an encoder's content from another's; "nowhere" where it is not found, as the stage then says."""
    try:
        return str(ENCODERS.load(config.encoder).digest(config))
    except UserError:
        return "nowhere"


def embed_text(work: StageWork) -> None:
    """Embed every item's text, equal texts once.

    Raises:
        UserError: the encoder is not found, or gives no vector for an item.
    """
    experiment = work.experiment
    work.runtime(experiment.text.precision)
    dataset = Dataset.load(work.inputs["preprocess"])
    items = dataset.all_items()
    texts, item_ids = items["text"].to_list(), items["item_id"].to_list()
    embeddings = text.embed_text(experiment.text, item_ids, texts, experiment.device, work.report)
    # What new texts have to be embedded with, to stand beside these; not where it was found.
    encoder = {"digest": encoder_digest(experiment.text), "max_tokens": experiment.text.max_tokens}
    write_json(work.folder / "encoder.json", encoder)
    known = dataset.items.height
    write_embeddings(work.folder / "embeddings.parquet", embeddings[:known])
    if dataset.new_items is not None:
        write_embeddings(work.folder / "new_embeddings.parquet", embeddings[known:])
