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
    texts = Dataset.load(work.inputs["preprocess"]).items["text"].to_list()
    embeddings = run(experiment.text, texts, experiment.device, work.report)
    write_embeddings(work.folder / "embeddings.parquet", embeddings, "embed_text")
