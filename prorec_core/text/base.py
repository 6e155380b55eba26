"""What makes vectors of items: the interface of encoders. Knows ids and texts; knows no encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from prorec_core.config_data import TextConfig
from prorec_core.progress import Report
from prorec_core.text.pieces import Ways

FloatArray = npt.NDArray[np.float32]


class Encoder(ABC):
    """Makes a vector of each item. Its module is imported for every cache key: what takes long to import waits."""

    spreads: ClassVar[bool] = False
    """Whether it takes so long that workers may share it."""

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

    @classmethod
    def encoded(
        cls, config: TextConfig, device: str, items: tuple[list[str], list[str]], report: Report, ways: Ways
    ) -> FloatArray:
        """What `encode` of the encoder that `open` gives makes of items' ids and texts.

        One that `spreads` keeps what is done of it, and has others do it, as `ways` say.
        """
        return cls.open(config, device).encode(*items, report)
