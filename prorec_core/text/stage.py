"""Stage embed_text: each distinct text to one vector. Knows texts; knows nothing of items or users."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from prorec_core.config import TextConfig
from prorec_core.progress import Progress, Report, silent
from prorec_core.text.encoders import load_encoder
from prorec_core.training.runtime import has_bfloat16, make_runtime

_CHUNK = 1024


def embed_text(
    config: TextConfig, texts: list[str], device: str = "auto", report: Report = silent
) -> npt.NDArray[np.float32]:
    """Embed texts, each distinct one once, float32, shape (texts, s).

    Args:
        config: the encoder and how much of a text it reads.
        texts: one an item; many may be equal.
        device: auto, cpu, cuda, …
        report: told after every chunk, in texts.

    Raises:
        UserError: the encoder or the device is not there.
    """
    place = make_runtime(device).device
    encoder = load_encoder(config.model, place)
    encoder.max_seq_length = min(config.max_tokens, encoder.max_seq_length or config.max_tokens)
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    low = config.precision == "auto" and has_bfloat16(place)
    parts = []
    with torch.autocast(place.type, torch.bfloat16, enabled=low):
        for start in range(0, len(distinct), _CHUNK):
            chunk = distinct[start : start + _CHUNK]
            parts.append(np.asarray(encoder.encode(chunk, batch_size=config.batch_size, show_progress_bar=False)))
            report(Progress(start + len(chunk), len(distinct), "text"))
    rows = {text: row for row, text in enumerate(distinct)}
    vectors = np.concatenate(parts).astype(np.float32)
    return np.ascontiguousarray(vectors[[rows[text] for text in texts]])
