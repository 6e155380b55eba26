"""What would end a later stage, told as soon as the data are read and not after hours of training.

Knows how many items there are, which codes an experiment wants and which files it names; knows nothing of how codes or
rankers are made.
"""

from __future__ import annotations

from pathlib import Path

from prorec_core.config import Experiment
from prorec_core.errors import UserError


def expect_possible(experiment: Experiment, preprocess: Path) -> None:
    """Refuse a single item, too few tuples of codes where each has its own, and files without what they should hold.

    Args:
        experiment: what is to be trained.
        preprocess: the folder of that stage.

    Raises:
        UserError: there is one item alone; says how many items and tuples there are; or what is wrong with a table of
            codes, or with a ranker.
    """
    import pyarrow.parquet as pq

    if pq.read_metadata(preprocess / "items.parquet").num_rows < 2:
        raise UserError(
            "only one item is left, and nothing can be ranked or compared",
            place="data",
            cure="Check data.min_item_interactions, data.min_user_interactions and the column of item ids",
        )
    expect_given(experiment)
    codes = experiment.quantize
    keeps = experiment.start_from is not None and experiment.continuing.codes == "keep"
    if codes.table is not None and not keeps:
        from prorec_core.quantization.code_files import given_codes

        given_codes(codes, pq.read_table(preprocess / "items.parquet", columns=["item_id"])["item_id"].to_pylist())
    if codes.collisions == "reassign":
        from prorec_core.quantization.collisions import check_room

        files = [preprocess / name for name in ("items.parquet", "new_items.parquet")]
        check_room(sum(pq.read_metadata(file).num_rows for file in files if file.is_file()), codes.codes, codes.levels)


def expect_given(experiment: Experiment) -> None:
    """Refuse a file that should hold a ranker and does not, and lists that nothing here reads.

    Raises:
        UserError: says what is wrong with it.
    """
    from prorec_core.generation.ranker_file import given_ranker

    expect_no_lists(experiment)
    given_ranker(experiment.generator, own=not experiment.evaluate.mask_history)


def expect_no_lists(experiment: Experiment) -> None:
    """Refuse lists that another program made: they are measured in place of a model, not beside one.

    Raises:
        UserError: the experiment names some.
    """
    if experiment.evaluate.lists_file is not None:
        raise UserError(
            "lists that another program made stand for a variant of their own, and for nothing else",
            place="evaluate.lists_file",
            cure="Leave it out here, and compare: prorec compare … --lists NAME=FILE, or in Python `Run.measure`",
        )
