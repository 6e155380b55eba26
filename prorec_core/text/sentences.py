"""Texts to vectors by a model of sentence-transformers: each distinct text once, texts of about equal length together.

Knows how such a model is found and loaded safely; knows nothing of items.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from prorec_core.artifacts import sha256_json
from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.kept import Make, Making
from prorec_core.progress import Report
from prorec_core.registry import TEXT_BACKENDS
from prorec_core.text.backends.base import Backend
from prorec_core.text.base import Encoder, FloatArray
from prorec_core.text.location import encoder_digest, find_encoder
from prorec_core.text.pieces import About, Ask, Count, Embed, Look, Ways, vectors_of

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


class SentenceEncoder(Encoder):
    """A model that is a local folder, an installed package's, or the hub's."""

    spreads: ClassVar[bool] = True

    def __init__(
        self, config: TextConfig, model: SentenceTransformer, device: torch.device, backend: type[Backend]
    ) -> None:
        self.config, self.model, self.device, self.backend = config, model, device, backend
        self.computing = ExitStack()

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
        return _placed(texts, self.config, self.made, Ways(), report)

    @classmethod
    def encoded(
        cls, config: TextConfig, device: str, items: tuple[list[str], list[str]], report: Report, ways: Ways
    ) -> FloatArray:
        if ways.spread is None:
            return _placed(items[1], config, cls.open(config, device).made, ways, report)
        with ways.spread(partial(_opened, config, device, cls.digest(config))) as make:
            return _placed(items[1], config, make, ways, report)

    def made(self, asked: Iterator[tuple[str, Ask]]) -> Iterator[tuple[str, Any]]:
        """Answers to all that is asked, one after the other."""
        with self.backend.computing(self.model, self.config, self.device):
            for name, ask in asked:
                yield name, self.answer(ask)

    def answer(self, ask: Ask) -> Any:
        """What is asked for; vectors only while the backend computes.

        Raises:
            UserError: vectors are wanted of an encoder that computes otherwise.
        """
        match ask:
            case Look():
                return self._about()
            case Count(texts):
                longest = self.model.max_seq_length or self.config.max_tokens
                return _token_counts(self.model.tokenizer, list(texts), longest)
            case Embed(wanted, about):
                if about != self._about():
                    raise UserError(
                        f"{os.uname().nodename} computes otherwise than other workers do ({_told(self._about())}, not "
                        f"{_told(about)})",
                        place="text.precision",
                        cure="Set it to float32, or have workers of one kind",
                    )
                return np.concatenate([self._vectors(list(batch)) for batch in wanted])

    def _about(self) -> About:
        number_format = self.backend.number_format(self.config.precision, self.device)
        width = self.model.get_embedding_dimension() or 0
        return About(self.device.type, number_format, self.backend.tokens_a_batch(self.device), width)

    def _vectors(self, batch: list[str]) -> FloatArray:
        found = self.model.encode(batch, batch_size=len(batch), show_progress_bar=False, convert_to_tensor=True)
        vectors: FloatArray = found.float().cpu().numpy()
        return vectors


def _placed(texts: list[str], config: TextConfig, make: Making, ways: Ways, report: Report) -> FloatArray:
    """Vectors of texts of which many may be equal."""
    distinct = sorted(set(texts))
    encoder = (SentenceEncoder.digest(config) if ways.folder else "", config.backend, config.max_tokens)
    vectors = vectors_of(distinct, config.batch_size, encoder, make, ways, report)
    row_of = {text: row for row, text in enumerate(distinct)}
    return vectors[[row_of[text] for text in texts]]


def _opened(config: TextConfig, device: str, digest: str) -> Make:
    """What answers in another process, with the encoder that this machine has under the name.

    Raises:
        UserError: it is not there, or another one.
    """
    if (here := SentenceEncoder.digest(config)) != digest:
        raise UserError(
            f"the encoder '{config.model}' on {os.uname().nodename} is not the one of other machines ({here[:12]}, not "
            f"{digest[:12]})",
            place="text.model",
            cure="Have the same files and libraries on all of them",
        )
    encoder = SentenceEncoder.open(config, device)
    # For as long as the process lives: what some backends compile takes seconds.
    encoder.computing.enter_context(encoder.backend.computing(encoder.model, config, encoder.device))
    return encoder.answer


def _told(about: About) -> str:
    return f"{about.number_format} on {about.device}"


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
        with _no_bars():
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


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the progress bar of transformers: reading weights from a disk takes less than a second or two."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _token_counts(tokenizer: object, texts: list[str], longest: int) -> npt.NDArray[np.int64]:
    """Tokens of each text as the encoder reads it; its letters where the tokenizer counts no tokens."""
    if not callable(tokenizer):
        return np.array([len(text) for text in texts], dtype=np.int64)
    read = tokenizer(texts, truncation=True, max_length=longest, return_attention_mask=False)["input_ids"]
    return np.array([len(tokens) for tokens in read], dtype=np.int64)
