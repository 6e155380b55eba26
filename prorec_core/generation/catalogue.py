"""Which items a model has: when each came, which it was trained on, which were withdrawn.

Knows one table, a row an item; knows nothing of codes, texts or scores. Axes: N items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prorec_core.artifacts import read_parquet, write_parquet

FILE = "catalogue.parquet"
_SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("since", pa.int32()),
        ("trained", pa.bool_()),
        ("withdrawn", pa.bool_()),
        ("bonus", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Catalogue:
    """What is known of a model's items beside their codes; the trained ones come first.

    Attributes:
        since: 0 for the items that came with the training, 1 for those added first after it, and so on; int32 (N,).
        trained: whether the training saw interactions with it, bool (N,).
        withdrawn: whether it is no longer recommended, bool (N,).
        bonus: added to its score, in nats, float32 (N,).
    """

    since: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    withdrawn: npt.NDArray[np.bool_]
    bonus: npt.NDArray[np.float32]

    @classmethod
    def of_training(cls, n_items: int, n_trained: int | None = None) -> Catalogue:
        """That of a model as it was trained.

        Args:
            n_items: all that it has.
            n_trained: so many, the first ones, were trained on (None: all); the others came after the training, as
                items that are added do, and move no score of the first.
        """
        known = n_items if n_trained is None else n_trained
        nothing = np.zeros(known, np.float32)
        own = cls(nothing.astype(np.int32), np.ones(known, np.bool_), nothing.astype(np.bool_), nothing)
        return own.with_more(n_items - known, 0.0)

    @classmethod
    def load(cls, folder: Path, n_items: int) -> Catalogue:
        """Read what `save` wrote; a model without the file is as it was trained."""
        if not (folder / FILE).is_file():
            return cls.of_training(n_items)
        table = read_parquet(folder / FILE, "train_generator")
        since, trained, withdrawn, bonus = (
            np.array(table.column(name).to_numpy(zero_copy_only=False)) for name in _SCHEMA.names[1:]
        )
        return cls(since, trained, withdrawn, bonus)

    def save(self, folder: Path) -> None:
        """Write catalogue.parquet: item int32, since int32, trained bool, withdrawn bool, bonus float32."""
        columns = [np.arange(len(self), dtype=np.int32), self.since, self.trained, self.withdrawn, self.bonus]
        write_parquet(folder / FILE, pa.table([pa.array(column) for column in columns], schema=_SCHEMA))

    def __len__(self) -> int:
        return len(self.since)

    @property
    def n_trained(self) -> int:
        """Items that were trained on."""
        return int(self.trained.sum())

    @property
    def grown(self) -> bool:
        """Whether items came after the training."""
        return bool(self.since.any())

    def offsets(self) -> npt.NDArray[np.float32] | None:
        """What is added to each item's score: its bonus, minus infinity once it is withdrawn; None where all is 0."""
        found = np.where(self.withdrawn, np.float32(-np.inf), self.bonus).astype(np.float32)
        return found if found.any() else None

    def with_more(self, count: int, bonus: float) -> Catalogue:
        """The same and after them `count` items that come now."""
        last = int(self.since.max(initial=0)) + 1
        return Catalogue(
            np.append(self.since, np.full(count, last, np.int32)),
            np.append(self.trained, np.zeros(count, np.bool_)),
            np.append(self.withdrawn, np.zeros(count, np.bool_)),
            np.append(self.bonus, np.full(count, bonus, np.float32)),
        )

    def with_withdrawn(self, rows: npt.NDArray[np.int64], withdrawn: bool) -> Catalogue:
        """The same with some items withdrawn, or back."""
        found = self.withdrawn.copy()
        found[rows] = withdrawn
        return replace(self, withdrawn=found)
