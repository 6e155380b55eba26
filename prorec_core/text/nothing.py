"""No texts: items are what `text.vectors` says of them alone. Knows nothing."""

from __future__ import annotations

from typing import Self

import numpy as np

from prorec_core.config_data import TextConfig
from prorec_core.progress import Progress, Report
from prorec_core.text.base import Encoder, FloatArray


class NoText(Encoder):
    """Gives every item a vector of no dimensions."""

    @classmethod
    def digest(cls, config: TextConfig) -> str:
        return ""

    @classmethod
    def open(cls, config: TextConfig, device: str) -> Self:
        return cls()

    def encode(self, item_ids: list[str], texts: list[str], report: Report) -> FloatArray:
        report(Progress(len(texts), len(texts), "item"))
        return np.zeros((len(texts), 0), np.float32)
