"""PyTorch, in bfloat16 where the hardware has it: as the models come. Knows devices and number formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prorec_core.config_data import TextConfig
from prorec_core.text.backends.base import Backend

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


# On a CPU a small batch stays in the caches, and memory is not given back to the kernel after every layer.
_TOKENS_ON_CPU, _TOKENS_ELSEWHERE = 1024, 65_536


class Torch(Backend):
    """Computes where models are trained."""

    @classmethod
    def libraries(cls) -> Mapping[str, str]:
        return {}

    @classmethod
    def device(cls, asked: str) -> torch.device:
        from prorec_core.training.runtime import make_runtime

        return make_runtime(asked).device

    @classmethod
    def number_format(cls, precision: str, device: torch.device) -> str:
        from prorec_core.training.runtime import has_bfloat16

        return "bfloat16" if precision == "auto" and has_bfloat16(device) else "float32"

    @classmethod
    def tokens_a_batch(cls, device: torch.device) -> int:
        return _TOKENS_ON_CPU if device.type == "cpu" else _TOKENS_ELSEWHERE

    @classmethod
    @contextmanager
    def computing(cls, model: SentenceTransformer, config: TextConfig, device: torch.device) -> Iterator[None]:
        import torch

        low = cls.number_format(config.precision, device) == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            yield
