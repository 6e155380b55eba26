"""Texts to vectors by a model of sentence-transformers: each distinct text once, texts of about equal length together.

Knows how such a model is found and loaded safely; knows nothing of items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from prorec_core.artifacts import sha256_json
from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.progress import Progress, Report
from prorec_core.registry import TEXT_BACKENDS
from prorec_core.text.backends.base import Backend
from prorec_core.text.base import Encoder, FloatArray
from prorec_core.text.location import encoder_digest, find_encoder

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


class SentenceEncoder(Encoder):
    """A model that is a local folder, an installed package's, or the hub's."""

    def __init__(
        self, config: TextConfig, model: SentenceTransformer, device: torch.device, backend: type[Backend]
    ) -> None:
        self.config, self.model, self.device, self.backend = config, model, device, backend

    @classmethod
    def digest(cls, config: TextConfig) -> str:
        content, libraries = encoder_digest(config.model), TEXT_BACKENDS.load(config.backend).libraries()
        return sha256_json([content, config.backend, dict(libraries)]) if libraries else content

    @classmethod
    def made_with(cls, config: TextConfig, device: str) -> dict[str, str]:
        backend: type[Backend] = TEXT_BACKENDS.load(config.backend)
        place = backend.device(device)
        return {"device": place.type, "number_format": backend.number_format(config.precision, place)}

    @classmethod
    def open(cls, config: TextConfig, device: str) -> Self:
        backend: type[Backend] = TEXT_BACKENDS.load(config.backend)
        # What is not installed is told before anything is loaded.
        backend.libraries()
        place = backend.device(device)
        model = load_encoder(config.model, place)
        model.max_seq_length = min(config.max_tokens, model.max_seq_length or config.max_tokens)
        return cls(config, model, place, backend)

    def encode(self, item_ids: list[str], texts: list[str], report: Report) -> FloatArray:
        distinct = sorted(set(texts))
        longest = self.model.max_seq_length or self.config.max_tokens
        lengths = _token_counts(self.model.tokenizer, distinct, longest)
        order = np.argsort(lengths, kind="stable")
        budget = self.backend.tokens_a_batch(self.device)
        vectors = np.zeros((len(distinct), self.model.get_embedding_dimension() or 0), dtype=np.float32)
        done = 0
        with self.backend.computing(self.model, self.config, self.device):
            for batch in batches(lengths[order], budget, self.config.batch_size):
                rows = order[batch]
                chosen = [distinct[row] for row in rows]
                found = self.model.encode(
                    chosen, batch_size=len(chosen), show_progress_bar=False, convert_to_tensor=True
                )
                vectors[rows] = found.float().cpu().numpy()
                done += len(chosen)
                report(Progress(done, len(distinct), "text"))
        row_of = {text: row for row, text in enumerate(distinct)}
        return vectors[[row_of[text] for text in texts]]


def load_encoder(name: str, device: torch.device) -> SentenceTransformer:
    """The encoder called `name`, ready on `device`.

    No code that comes with a model is run, and only safetensors are read.

    Raises:
        UserError: it is nowhere (names the four places looked at), or its files cannot be used.
    """
    from sentence_transformers import SentenceTransformer

    folder = find_encoder(name)
    for pickled in folder.rglob("pytorch_model.bin"):
        if not any(pickled.parent.glob("*.safetensors")):
            raise UserError("weights are pickled", place=str(pickled), cure="Convert them to safetensors")
    try:
        return SentenceTransformer(
            str(folder),
            device=str(device),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the text encoder cannot be loaded ({said[:200]})",
            place=str(folder),
            cure="Check that the folder is complete and holds safetensors",
        ) from error


def batches(lengths: npt.NDArray[np.int64], budget: int, most: int) -> Iterator[slice]:
    """Cut texts, sorted by length, into runs that are at most `most` long and, padded, hold at most `budget` tokens.

    A text longer than the budget is a batch of its own.
    """
    start = 0
    for end in range(1, len(lengths) + 1):
        full = end == len(lengths) or (end + 1 - start) * lengths[end] > budget or end - start == most
        if full:
            yield slice(start, end)
            start = end


def _token_counts(tokenizer: object, texts: list[str], longest: int) -> npt.NDArray[np.int64]:
    """Tokens of each text as the encoder reads it; its letters where the tokenizer counts no tokens."""
    if not callable(tokenizer):
        return np.array([len(text) for text in texts], dtype=np.int64)
    read = tokenizer(texts, truncation=True, max_length=longest, return_attention_mask=False)["input_ids"]
    return np.array([len(tokens) for tokens in read], dtype=np.int64)
