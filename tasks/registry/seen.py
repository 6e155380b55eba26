"""Was a version trained on what is to be measured now? Follows the versions that its training went on from.

Knows versions and the data sets that are kept of them; knows nothing of how anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prorec.tasks.registry import models
from prorec.tasks.registry.models import Version
from prorec.tasks.tracking import store
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prorec_core.data.dataset import Dataset
    from prorec_core.data.sequences import Split


def seen_in_line(version: Version, now: Dataset, splits: Sequence[Split], tell: Callable[[str], None]) -> str:
    """Which version of a line was trained on targets that are to be measured or chosen by, in words; "" for none.

    Looks at a version and at all that were gone on from before it, the nearest first. What cannot be looked at any more
    is told.

    Args:
        version: the last of the line.
        now: the data that are measured on.
        splits: whose targets no training may have seen.
        tell: told where the line is lost.
    """
    from prorec_core.data.seen import seen_targets

    for each, trained in _line(version, tell):
        sequences = trained.sequences
        if models.VALIDATION_TAG in each.tags:
            sequences = sequences.with_validation_in_training()
        for split in splits:
            seen = seen_targets(trained, sequences.training(), now, split)
            if seen.any():
                row = int(seen.argmax())
                item = now.all_items()["item_id"][int(now.sequences.targets(split)[row])]
                user = now.users["user_id"][int(now.sequences.owners_of(split)[row])]
                return (
                    f"{each.title} was trained on {int(seen.sum()):,} of the {len(seen):,} {split.name.lower()} items, "
                    f"as '{item}' of '{user}'"
                )
    return ""


def _line(version: Version, tell: Callable[[str], None]) -> Iterator[tuple[Version, Dataset]]:
    """A version and those that were gone on from before, with their data, the nearest first."""
    from prorec_core.data.dataset import Dataset

    seen = set[str]()
    while version.title not in seen:
        seen.add(version.title)
        kept = version.artifact("preprocess")
        try:
            if kept is None:
                raise UserError("it is not known which")
            yield version, Dataset.load(store.fetch(kept))
        except UserError as error:
            tell(f"The data of {version.title} are not there ({error}): whether it was trained on what is measured now "
                 "cannot be seen")  # fmt: skip
        before = version.tags.get(models.STARTED_FROM_TAG)
        if before is None:
            return
        name, _, number = before.removeprefix("models:/").partition("/")
        found = models.find(name, number)
        if found is None:
            tell(f"{before}, which {version.title} went on from, is not there any more: whether it was trained on what "
                 "is measured now cannot be seen")  # fmt: skip
            return
        version = found
