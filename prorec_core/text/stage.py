"""Stage embed_text: each distinct text to one vector. Knows texts; knows nothing of items or users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from prorec_core.config import TextConfig
from prorec_core.progress import Progress, Report, silent
from prorec_core.text.encoders import load_encoder
from prorec_core.training.runtime import has_bfloat16, make_runtime

# On a CPU a small batch stays in the caches, and memory is not given back to the kernel after every layer.
_TOKENS_ON_CPU, _TOKENS_ELSEWHERE = 1024, 65_536


def embed_text(
    config: TextConfig, texts: list[str], device: str = "auto", report: Report = silent
) -> npt.NDArray[np.float32]:
    """Embed texts, each distinct one once, float32, shape (texts, s).

    Texts of about equal length share a batch, so that hardly any padding is computed.

    Args:
        config: the encoder and how much of a text it reads.
        texts: one an item; many may be equal.
        device: auto, cpu, cuda, …
        report: told after every batch, in texts.

    Raises:
        UserError: the encoder or the device is not there.
    """
    place = make_runtime(device).device
    encoder = load_encoder(config.model, place)
    encoder.max_seq_length = min(config.max_tokens, encoder.max_seq_length or config.max_tokens)
    distinct = sorted(set(texts))
    lengths = _token_counts(encoder.tokenizer, distinct, encoder.max_seq_length)
    order = np.argsort(lengths, kind="stable")
    budget = _TOKENS_ON_CPU if place.type == "cpu" else _TOKENS_ELSEWHERE
    dims = encoder.get_embedding_dimension() or 0
    vectors = np.zeros((len(distinct), dims), dtype=np.float32)
    done = 0
    with torch.autocast(place.type, torch.bfloat16, enabled=config.precision == "auto" and has_bfloat16(place)):
        for batch in batches(lengths[order], budget, config.batch_size):
            rows = order[batch]
            chosen = [distinct[row] for row in rows]
            found = encoder.encode(chosen, batch_size=len(chosen), show_progress_bar=False, convert_to_tensor=True)
            vectors[rows] = found.float().cpu().numpy()
            done += len(chosen)
            report(Progress(done, len(distinct), "text"))
    row_of = {text: row for row, text in enumerate(distinct)}
    return vectors[[row_of[text] for text in texts]]


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
