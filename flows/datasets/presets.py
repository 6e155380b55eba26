"""An experiment for each public data set, and what is done where its files are not there yet.

Knows declarations and records. Knows nothing of how experiments are checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prorec.flows.datasets import kept
from prorec.flows.datasets.declared import DataSet, data_sets
from prorec_core.config import Experiment
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.flows.datasets.fetching import ReportOf, Tell


def of(name: str) -> DataSet | None:
    """The data set of this name, if one is declared."""
    return data_sets().get(name)


def names() -> list[str]:
    """The names of all data sets."""
    return list(data_sets())


def section(dataset: DataSet) -> dict[str, Any]:
    """The section `data` that reads it from where it is kept."""
    return {**dataset.data, "path": str(kept.folder_of(dataset))}


def have(name: str, experiment: Experiment, tell: Tell, report_of: ReportOf) -> None:
    """Fetch the data set that an experiment of its name reads, where that may be done without asking.

    Raises:
        UserError: it is not there, and must be asked for; says how.
    """
    dataset = of(name)
    if dataset is None or experiment.data.path != section(dataset)["path"] or kept.is_whole(dataset):
        return
    if dataset.by_hand or not kept.accepted(dataset.licence):
        told = f"{dataset.by_hand}, and then" if dataset.by_hand else f"read {dataset.licence.url} , and then"
        accept = "" if kept.accepted(dataset.licence) else " --accept-licence"
        handed = " --from FOLDER" if dataset.by_hand else ""
        raise UserError(
            f"the data set '{name}' is not here yet",
            place=str(kept.folder_of(dataset)),
            cure=f"{told[:1].upper()}{told[1:]} give: prorec data fetch {name}{accept}{handed}",
        )
    from prorec.flows.datasets.fetching import fetch

    tell(f"The data set '{name}' is not here yet, and is fetched: {dataset.licence.name} ({dataset.licence.url}).")
    fetch(dataset, tell, report_of)
