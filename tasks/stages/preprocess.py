"""Stage `preprocess`: interactions and items, filtered, in order of time."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec_core.config import Experiment


def _source_digest(experiment: Experiment) -> str:
    from prorec_core.data.stage import source_digest

    return source_digest(experiment.data)


@stage("preprocess", config=("data",), libraries=("polars", "pyarrow", "orjson", "numpy"), outside=_source_digest)
def preprocess(work: Work) -> dict[str, float]:
    """Read the source, filter it, and order every user's items in time."""
    from prorec_core.stages.preprocess import preprocess as run

    sequences = run(work).sequences
    return {"users": sequences.n_users, "items": sequences.n_items, "interactions": len(sequences.items)}
