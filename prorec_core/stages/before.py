"""What a stage that goes on from an earlier training reads of it. Knows its artifacts by stage; knows no registry."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prorec_core.data.dataset import Dataset
from prorec_core.quantization.quantized import CodeTable


class Before(Protocol):
    """An earlier training: the artifacts that it left, and the codes that its model has by now."""

    @property
    def codes(self) -> CodeTable:
        """The code table of its model, items that came since among them."""
        ...

    def artifact(self, stage: str) -> Path:
        """A folder with the artifact of a stage."""
        ...

    def rows(self, dataset: Dataset) -> npt.NDArray[np.int64]:
        """Where each item of other data stands in its tables, -1 for those that it lacks."""
        ...

    def expect_encoder(self, embedded: Path) -> None:
        """Refuse texts that were embedded otherwise than its own; `embedded` is what `embed_text` left."""
        ...
