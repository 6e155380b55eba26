"""What makes vectors of items: the interface of encoders. Knows ids and texts; knows no encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import numpy.typing as npt

from prorec_core.config_data import TextConfig
from prorec_core.progress import Report

FloatArray = npt.NDArray[np.float32]


class Encoder(ABC):
    """Makes a vector of each item. Its module is imported for every cache key: what takes long to import waits."""

    @classmethod
    @abstractmethod
    def digest(cls, config: TextConfig) -> str:
        """What tells its content from any other's, whatever its name.

        Raises:
            UserError: it is not there.
        """

    @classmethod
    def made_with(cls, config: TextConfig, device: str) -> dict[str, str]:
        """Kind of device and number format, where they matter: `device` and `number_format`."""
        return {}

    @classmethod
    @abstractmethod
    def open(cls, config: TextConfig, device: str) -> Self:
        """The encoder that the configuration names, ready for use.

        Args:
            config: the section `text`.
            device: auto, cpu, cuda, …

        Raises:
            UserError: it is not there, or cannot be used.
        """

    @abstractmethod
    def encode(self, item_ids: list[str], texts: list[str], report: Report) -> FloatArray:
        """Vectors of items, float32, shape (items, s).

        Args:
            item_ids: the items' own ids.
            texts: one an item, in the same order; many may be equal.
            report: told how far it is.

        Raises:
            UserError: an item cannot have a vector.
        """
