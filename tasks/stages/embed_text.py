"""Stage `embed_text`: the items' texts as vectors."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec_core.config import Experiment


def _encoder_digest(experiment: Experiment) -> str:
    from prorec_core.errors import UserError
    from prorec_core.registry import ENCODERS

    try:
        return str(ENCODERS.load(experiment.text.encoder).digest(experiment.text))
    except UserError:
        # The stage itself says where it was looked for, and fails.
        return "nowhere"


@stage(
    "embed_text",
    reads=("preprocess",),
    config=("text",),
    libraries=("torch", "transformers", "tokenizers", "sentence-transformers", "numpy", "polars"),
    outside=_encoder_digest,
)
def embed_text(work: Work) -> None:
    """Embed every item's text, equal texts once."""
    from prorec_core.artifacts import write_json
    from prorec_core.data.dataset import Dataset
    from prorec_core.data.embeddings import write_embeddings
    from prorec_core.text.stage import embed_text as run

    experiment = work.experiment
    work.runtime(experiment.text.precision)
    dataset = Dataset.load(work.inputs["preprocess"])
    items = dataset.all_items()
    texts, item_ids = items["text"].to_list(), items["item_id"].to_list()
    embeddings = run(experiment.text, item_ids, texts, experiment.device, work.report)
    # What new texts have to be embedded with, to stand beside these; not where it was found.
    encoder = {"digest": _encoder_digest(experiment), "max_tokens": experiment.text.max_tokens}
    write_json(work.folder / "encoder.json", encoder)
    known = dataset.items.height
    write_embeddings(work.folder / "embeddings.parquet", embeddings[:known])
    if dataset.new_items is not None:
        write_embeddings(work.folder / "new_embeddings.parquet", embeddings[known:])
