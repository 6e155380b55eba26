"""Stage `preprocess` from files to files. Knows what the stage leaves; knows nothing of who keeps it."""

from __future__ import annotations

from prorec_core.data.dataset import Dataset
from prorec_core.data.stage import preprocess as run
from prorec_core.stages.work import StageWork


def preprocess(work: StageWork) -> Dataset:
    """Read the source, filter it, and order every user's items in time.

    Raises:
        UserError: files, columns or values that cannot be used, or nothing left after filtering.
    """
    dataset = run(work.experiment.data, report=work.report)
    dataset.save(work.folder)
    return dataset
