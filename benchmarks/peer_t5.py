"""The usual implementation: Hugging Face T5 over flattened codes, as reimplementations of TIGER have it.

One sample a prefix, always padded to 20 items; AdamW in float32; beam search constrained by a Python function
that walks a trie of dictionaries. Settings of the network from Rajput et al., 2023 (TIGER): 4 + 4 layers,
d_model 128, d_ff 1024, 6 heads of 64. Knows codes and sequences; uses nothing of prorec_core but those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks.laps import Laps
from prorec_core.data.sequences import Sequences, Split

PAD = 0
FIRST_CODE = 1
HISTORY_ITEMS = 20
TRAINING_BATCH = 256
STEPS_A_LAP = 2
USERS_A_LAP = 32
Codes = npt.NDArray[np.uint16]


def tokens_of(codes: Codes) -> tuple[npt.NDArray[np.int64], int]:
    """A token of its own for each code of each level, shape (items, depth), and the size of the vocabulary."""
    sizes = codes.max(axis=0).astype(np.int64) + 1
    offsets = FIRST_CODE + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return codes.astype(np.int64) + offsets, int(FIRST_CODE + sizes.sum())


def new_model(vocabulary: int) -> T5ForConditionalGeneration:
    """TIGER's network with random weights: time does not depend on them."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=64,
        d_ff=1024,
        num_layers=4,
        num_decoder_layers=4,
        num_heads=6,
        dropout_rate=0.1,
        feed_forward_proj="relu",
        pad_token_id=PAD,
        eos_token_id=None,
    )
    config.decoder_start_token_id = PAD
    return T5ForConditionalGeneration(config)


def padded_histories(histories: list[npt.NDArray[np.int32]], tokens: npt.NDArray[np.int64]) -> dict[str, Tensor]:
    """The last 20 items of each history as tokens, padded at the right, with their attention mask."""
    inputs = np.full((len(histories), HISTORY_ITEMS * tokens.shape[1]), PAD)
    for row, history in enumerate(histories):
        flat = tokens[history[-HISTORY_ITEMS:]].reshape(-1)
        inputs[row, : len(flat)] = flat
    ids = torch.from_numpy(inputs)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def prefixes(sequences: Sequences) -> list[tuple[int, int]]:
    """(user, length of history) of every training sample: each item but a user's first is a target."""
    training = sequences.training()
    return [
        (user, length)
        for user in range(training.n_users)
        for length in range(1, int(training.offsets[user + 1] - training.offsets[user]))
    ]


def allowed_tokens(tokens: npt.NDArray[np.int64]) -> Callable[[int, Tensor], list[int]]:
    """The function that `generate` asks which tokens may follow: a walk down a trie of dictionaries."""
    root: dict[int, Any] = {}
    for row in tokens.tolist():
        node = root
        for token in row:
            node = node.setdefault(token, {})

    def allowed(_: int, so_far: Tensor) -> list[int]:
        node = root
        for token in so_far.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [PAD]

    return allowed


def epoch(codes: Codes, sequences: Sequences, laps: Laps) -> None:
    """Laps of a few training steps, scaled up to an epoch."""
    tokens, vocabulary = tokens_of(codes)
    model = new_model(vocabulary).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    training, samples = sequences.training(), prefixes(sequences)
    order = np.random.default_rng(0).permutation(len(samples))
    scale = len(samples) / (TRAINING_BATCH * STEPS_A_LAP)
    step = 0
    laps.start()
    while True:
        for _ in range(STEPS_A_LAP):
            places = np.take(order, range(step * TRAINING_BATCH, (step + 1) * TRAINING_BATCH), mode="wrap")
            chosen = [samples[place] for place in places]
            batch = padded_histories([training.of_user(user)[:length] for user, length in chosen], tokens)
            targets = np.array([training.of_user(user)[length] for user, length in chosen])
            loss = model(**batch, labels=torch.from_numpy(tokens[targets])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        laps.lap(scale)


def beam_search(codes: Codes, sequences: Sequences, laps: Laps, beams: int) -> None:
    """Laps of one batch of users, scaled up to all users."""
    tokens, vocabulary = tokens_of(codes)
    model = new_model(vocabulary).train(False)
    allowed = allowed_tokens(tokens)
    histories = sequences.histories(Split.TEST)
    order = np.random.default_rng(0).permutation(histories.n_users)
    start = 0
    laps.start()
    while True:
        users = np.take(order, range(start, start + USERS_A_LAP), mode="wrap")
        batch = padded_histories([histories.of_user(int(user)) for user in users], tokens)
        with torch.no_grad():
            model.generate(
                **batch,
                num_beams=beams,
                num_return_sequences=beams,
                min_new_tokens=tokens.shape[1],
                max_new_tokens=tokens.shape[1],
                prefix_allowed_tokens_fn=allowed,
            )
        start += USERS_A_LAP
        laps.lap(histories.n_users / USERS_A_LAP)
