"""Stage `embed_text`: the items' texts as vectors."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec_core.config import Experiment


def _outside(experiment: Experiment) -> str:
    from prorec_core.errors import UserError
    from prorec_core.text.stage import outside_digest

    try:
        return outside_digest(experiment.text, experiment.data)
    except UserError:
        # The stage itself says where it was looked for, and fails.
        return "nowhere"


@stage(
    "embed_text",
    reads=("preprocess",),
    # Where the items file is, of which a source may be a column, and how its ids are read.
    config=(
        "text",
        *(f"data.{name}" for name in ("source", "demo", "interactions_file", "items_file", "quotes", "multiline")),
        *(f"data.{name}" for name in ("item_column", "missing")),
    ),
    libraries=("torch", "transformers", "tokenizers", "sentence-transformers", "numpy", "polars", "pyarrow", "orjson"),
    outside=_outside,
)
def embed_text(work: Work) -> dict[str, float]:
    """Embed every item's text, equal texts once; vectors of one's own beside it."""
    from prorec_core.artifacts import write_json
    from prorec_core.data.dataset import Dataset
    from prorec_core.data.embeddings import write_embeddings
    from prorec_core.registry import ENCODERS
    from prorec_core.text.stage import describe

    experiment = work.experiment
    text = experiment.text
    work.runtime(text.precision)
    work.made_with.update(ENCODERS.load(text.encoder).made_with(text, experiment.device))
    dataset = Dataset.load(work.inputs["preprocess"])
    items, known = dataset.all_items(), dataset.items.height
    texts, item_ids = items["text"].to_list(), items["item_id"].to_list()
    found = describe(text, experiment.data, item_ids, texts, known, experiment.device, work.report)
    # What new items have to be embedded with, to stand beside these; not where it was found.
    encoder = {
        "digest": ENCODERS.load(text.encoder).digest(text),
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
    return {f"without_{each.name}": each.without for each in found.sources if each.mean is not None}
