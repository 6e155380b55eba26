"""Stage `embed_text`: the items' texts as vectors."""

from __future__ import annotations

from tasks.stage import Work, stage


@stage("embed_text", reads=("preprocess",))
def embed_text(work: Work) -> None:
    """Embed every item's text, equal texts once."""
    from prorec_core.data.dataset import Dataset
    from prorec_core.data.embeddings import write_embeddings
    from prorec_core.text.stage import embed_text as run

    experiment = work.experiment
    dataset = Dataset.load(work.inputs["preprocess"])
    embeddings = run(experiment.text, dataset.all_items()["text"].to_list(), experiment.device, work.report)
    known = dataset.items.height
    write_embeddings(work.folder / "embeddings.parquet", embeddings[:known], "embed_text")
    if dataset.cold is not None:
        write_embeddings(work.folder / "cold_embeddings.parquet", embeddings[known:], "embed_text")
