"""Stage `preprocess` from files to files. Knows what the stage leaves; knows nothing of who keeps it."""

from __future__ import annotations

from prorec_core.config_data import DataConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.stage import Spread
from prorec_core.data.stage import preprocess as run
from prorec_core.stages.work import StageWork


def preprocess(work: StageWork, data: DataConfig | None = None, spread: Spread | None = None) -> Dataset:
    """Read the source, filter it, and order every user's items in time.

    Args:
        work: what the stage gets.
        data: the section, where it says more than the experiment's of where the data are.
        spread: who reads and filters a large log in parts.

    Raises:
        UserError: files, columns or values that cannot be used, or nothing left after filtering.
    """
    dataset = run(data or work.experiment.data, work.report, spread)
    dataset.save(work.folder)
    return dataset
