"""Stage `preprocess`: interactions and items, filtered, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.local import paths
from prorec.tasks.stages.start import base_of, start_digest
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


def _outside(experiment: Experiment) -> str:
    """The digest of the source, and after it what tells the version that is gone on from, where there is one."""
    return " ".join(filter(None, (source_digest(experiment.data), start_digest(experiment))))


def _if_it_goes_on(experiment: Experiment) -> tuple[str, ...]:
    """What decides which targets a version that is gone on from must not have seen."""
    return ("train_on_validation",) if experiment.start_from else ()


@stage(
    "preprocess",
    config=("data",),
    besides=_if_it_goes_on,
    libraries=("polars", "pyarrow", "orjson", "numpy"),
    outside=_outside,
)
def preprocess(work: Work) -> dict[str, float]:
    """Read the source, filter it, order every user's items in time, and leave out targets that were trained on."""
    from prorec_core.stages.preprocess import preprocess as run

    experiment, seen_before = work.experiment, None
    spread = partial(_shared_out, work) if experiment.compute.engine == "ray" else None
    if (base := base_of(experiment)) is not None:
        seen_before = partial(base.seen_of, validation=not experiment.train_on_validation)
    sequences = run(work, located(experiment.data), spread, seen_before).sequences
    return {"users": sequences.n_users, "items": sequences.n_items, "interactions": len(sequences.items)}


@contextmanager
def _shared_out(work: Work) -> Iterator[Crew]:
    """Have a cluster read and filter the log; called where the log is one that is worth it."""
    from prorec.tasks.execution.partitions import by_ray_data

    compute = work.experiment.compute
    with by_ray_data(compute) as crew:
        work.made_with.update(engine="ray", workers=str(compute.workers))
        yield crew
