"""Stage `preprocess`: interactions and items, filtered, in order of time."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.local import paths
from prorec_core.config import Experiment
from prorec_core.config_data import DataConfig


def located(data: DataConfig) -> DataConfig:
    """The same; what a database gave is kept beside the artifacts where no folder is named."""
    return data.model_copy(update={"path": str(paths.snapshots())}) if data.source == "sql" and not data.path else data


def source_digest(data: DataConfig) -> str:
    """Hex sha256 that changes whenever the data could.

    Raises:
        UserError: they cannot be read.
    """
    from prorec_core.data.stage import source_digest as found

    return found(located(data))


def _source_digest(experiment: Experiment) -> str:
    return source_digest(experiment.data)


@stage("preprocess", config=("data",), libraries=("polars", "pyarrow", "orjson", "numpy"), outside=_source_digest)
def preprocess(work: Work) -> dict[str, float]:
    """Read the source, filter it, and order every user's items in time."""
    from prorec_core.data.stage import preprocess as run

    dataset = run(located(work.experiment.data), report=work.report)
    dataset.save(work.folder)
    return {
        "users": dataset.sequences.n_users,
        "items": dataset.sequences.n_items,
        "interactions": len(dataset.sequences.items),
    }
