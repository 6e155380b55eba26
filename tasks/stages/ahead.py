"""What would end a later stage, told as soon as the data are read and not after hours of training.

Knows how many items there are, which codes an experiment wants and which files it names; knows nothing of how codes or
rankers are made.
"""

from __future__ import annotations

from prorec.tasks.tracking import store
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment


def expect_possible(experiment: Experiment, preprocess: ArtifactRef) -> None:
    """Refuse too few tuples of codes where each item must have its own, and files that do not hold what they should.

    Raises:
        UserError: says how many items and tuples there are; or what is wrong with a table of codes, or with a ranker.
    """
    import pyarrow.parquet as pq

    if experiment.generator.ranker_file is not None:
        from prorec_core.generation.ranker_file import given_ranker

        given_ranker(experiment.generator)
    codes, folder = experiment.quantize, store.fetch(preprocess)
    keeps = experiment.start_from is not None and experiment.continuing.codes == "keep"
    if codes.table is not None and not keeps:
        from prorec_core.quantization.code_files import given_codes

        given_codes(codes, pq.read_table(folder / "items.parquet", columns=["item_id"])["item_id"].to_pylist())
    if codes.collisions == "reassign":
        from prorec_core.quantization.collisions import check_room

        files = [folder / name for name in ("items.parquet", "new_items.parquet")]
        check_room(sum(pq.read_metadata(file).num_rows for file in files if file.is_file()), codes.codes, codes.levels)
