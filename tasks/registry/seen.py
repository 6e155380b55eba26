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

    import numpy as np
    import numpy.typing as npt

    from prorec_core.data.dataset import Dataset
    from prorec_core.data.seen import Seen
    from prorec_core.data.sequences import Split


def seen_in_line(
    version: Version, now: Dataset, splits: Sequence[Split], tell: Callable[[str], None]
) -> dict[Split, Seen]:
    """Which targets, that are to be measured or chosen by, a line of versions was trained on; none where it saw none.

    Looks at a version and at all that were gone on from before it, the nearest first. What cannot be looked at any more
    is told. What a version was validated on is as good as trained on where it is a test: rankers are fitted to it.

    Args:
        version: the last of the line.
        now: the data that are measured on.
        splits: whose targets no training may have seen.
        tell: told where the line is lost, and where the version knows few of the users or items.

    Raises:
        UserError: it knows none of the items, or of users with the same histories none by their ids.
    """
    import numpy as np

    from prorec_core.data.seen import Seen, seen_targets, strangers
    from prorec_core.data.sequences import Split

    found = {split: np.zeros(len(now.sequences.targets(split)), np.bool_) for split in splits}
    by: dict[Split, list[str]] = {split: [] for split in splits}
    for each, trained in _line(version, tell):
        if each is version and (told := strangers(version.title, trained, now)):
            tell(told)
        with_validation = trained.sequences.with_validation_in_training()
        for split in splits:
            all_of_it = split is Split.TEST or models.VALIDATION_TAG in each.tags
            sequences = with_validation if all_of_it else trained.sequences
            seen = seen_targets(trained, sequences.training(), now, split)
            if (seen & ~found[split]).any():
                by[split].append(each.title)
                found[split] |= seen
    return {split: Seen(seen, _told(by[split], now, split, seen)) for split, seen in found.items() if by[split]}


def _told(titles: list[str], now: Dataset, split: Split, seen: npt.NDArray[np.bool_]) -> str:
    from prorec_core.data.sequences import Split

    row = int(seen.argmax())
    item = now.all_items()["item_id"][int(now.sequences.targets(split)[row])]
    user = now.users["user_id"][int(now.sequences.owners_of(split)[row])]
    who = titles[0] if len(titles) == 1 else f"{titles[0]}, or a version before it,"
    how = "trained or validated" if split is Split.TEST else "trained"
    return (
        f"{who} was {how} on {int(seen.sum()):,} of the {len(seen):,} {split.name.lower()} items, "
        f"as '{item}' of '{user}'"
    )


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
