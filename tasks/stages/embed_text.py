"""Stage `embed_text`: the items' texts, and what else describes them, as vectors."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.preprocess import located
from prorec_core.config import Experiment


def _items_file(experiment: Experiment) -> tuple[str, ...]:
    """The section that tells where the items file is, where a source is a column of it."""
    return ("data",) if experiment.text.columns else ()


def _outside(experiment: Experiment) -> str:
    from prorec_core.stages.embed_text import described_by

    return described_by(experiment.text, located(experiment.data))


@stage(
    "embed_text",
    reads=("preprocess",),
    config=("text",),
    besides=_items_file,
    libraries=("torch", "transformers", "tokenizers", "sentence-transformers", "numpy", "polars", "pyarrow", "orjson"),
    outside=_outside,
)
def embed_text(work: Work) -> dict[str, float]:
    """Embed every item's text, equal texts once; vectors of one's own stand beside it."""
    from prorec_core.stages.embed_text import embed_text as run

    sources = run(work, located(work.experiment.data) if work.experiment.text.columns else None)
    return {f"without_{each.name}": each.without for each in sources if each.mean is not None}
