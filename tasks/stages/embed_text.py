"""Stage `embed_text`: the items' texts, and what else describes them, as vectors."""

from __future__ import annotations

import logging
from functools import partial

from prorec.tasks.execution.chunks import by_workers
from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.preprocess import located
from prorec_core.config import Experiment

_log = logging.getLogger(__name__)


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

    compute = work.experiment.compute
    spread = partial(by_workers, compute=compute, tell=_tell) if compute.engine == "ray" else None
    sources = run(work, located(work.experiment.data) if work.experiment.text.columns else None, spread)
    if spread is not None and "number_format" in work.made_with:
        work.made_with.update(engine="ray", workers=str(compute.workers))
    return {f"without_{each.name}": each.without for each in sources if each.mean is not None}


def _tell(text: str) -> None:
    _log.warning("embed_text: %s", text)
