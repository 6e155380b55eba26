"""Stage `preprocess` from files to files. Knows what the stage leaves; knows nothing of who keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prorec_core.config_data import DataConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.seen import Seen, leaving_out
from prorec_core.data.sequences import Split
from prorec_core.data.stage import Spread
from prorec_core.data.stage import preprocess as run
from prorec_core.stages.work import StageWork

SeenBefore = Callable[[Dataset], Mapping[Split, Seen]]
"""Gives the few targets that the training which is gone on from saw, or refuses them."""


def preprocess(
    work: StageWork,
    data: DataConfig | None = None,
    spread: Spread | None = None,
    seen_before: SeenBefore | None = None,
) -> Dataset:
    """Read the source, filter it, and order every user's items in time.

    Args:
        work: what the stage gets.
        data: the section, where it says more than the experiment's of where the data are.
        spread: who reads and filters a large log in parts.
        seen_before: says which targets are left out; None: none are, since the training begins anew.

    Raises:
        UserError: files, columns or values that cannot be used, or nothing left after filtering; an earlier training
            saw too many of the targets.
    """
    dataset = run(data or work.experiment.data, work.report, spread)
    if seen_before is not None:
        dataset = leaving_out(dataset, seen_before(dataset))
    dataset.save(work.folder)
    return dataset
