"""What a data set's size forbids, told as soon as the data are read and not after hours of training.

Knows how many items there are and which codes an experiment wants; knows nothing of how codes are made.
"""

from __future__ import annotations

from prorec.tasks.tracking import store
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment


def expect_capacity(experiment: Experiment, preprocess: ArtifactRef) -> None:
    """Refuse codes of which there are fewer tuples than items, where each item must have its own without a suffix.

    Raises:
        UserError: says how many items and tuples there are.
    """
    if experiment.quantize.collisions != "reassign":
        return
    import pyarrow.parquet as pq

    from prorec_core.quantization.collisions import check_room

    files = [store.fetch(preprocess) / name for name in ("items.parquet", "new_items.parquet")]
    n_items = sum(pq.read_metadata(file).num_rows for file in files if file.is_file())
    check_room(n_items, experiment.quantize.codes, experiment.quantize.levels)
