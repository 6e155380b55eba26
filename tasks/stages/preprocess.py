"""Stage `preprocess`: interactions and items, filtered, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.local import paths
from prorec_core.config import Experiment
from prorec_core.config_data import DataConfig, kept_in

if TYPE_CHECKING:
    from prorec.tasks.execution.partitions import Crew


def located(data: DataConfig) -> DataConfig:
    """The same; what a database gives is kept beside the artifacts where no folder is named."""
    return kept_in(data, paths.snapshots())


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
    from prorec_core.stages.preprocess import preprocess as run

    spread = partial(_shared_out, work) if work.experiment.compute.engine == "ray" else None
    sequences = run(work, located(work.experiment.data), spread).sequences
    return {"users": sequences.n_users, "items": sequences.n_items, "interactions": len(sequences.items)}


@contextmanager
def _shared_out(work: Work) -> Iterator[Crew]:
    """Have a cluster read and filter the log; called where the log is one that is worth it."""
    from prorec.tasks.execution.partitions import by_ray_data

    compute = work.experiment.compute
    with by_ray_data(compute) as crew:
        work.made_with.update(engine="ray", workers=str(compute.workers))
        yield crew
