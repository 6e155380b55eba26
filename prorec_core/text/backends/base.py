"""What computes an encoder: the interface of backends. Knows models of sentence-transformers; knows no library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from prorec_core.config_data import TextConfig

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


class Backend(ABC):
    """Has a model compute in its own way. Imported for every cache key: what takes long to import waits."""

    @classmethod
    @abstractmethod
    def libraries(cls) -> Mapping[str, str]:
        """Versions, by name, of the libraries that decide its numbers beside those that every encoder needs.

        Raises:
            UserError: one is not installed.
        """

    @classmethod
    @abstractmethod
    def device(cls, asked: str) -> torch.device:
        """Where it computes, of what the experiment asks for (auto, cpu, cuda, …).

        Raises:
            UserError: it is not there.
        """

    @classmethod
    @abstractmethod
    def number_format(cls, precision: str, device: torch.device) -> str:
        """In which numbers it multiplies: float32, bfloat16, int8."""

    @classmethod
    @abstractmethod
    def tokens_a_batch(cls, device: torch.device) -> int:
        """How many tokens a batch best has, padding included."""

    @classmethod
    @abstractmethod
    def computing(
        cls, model: SentenceTransformer, config: TextConfig, device: torch.device
    ) -> AbstractContextManager[None]:
        """While it lasts, `model.encode` computes this way.

        Raises:
            UserError: it cannot compute this model.
        """
