"""The implementation that PRORec is timed against does the same work: every sample, and only items that exist."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import peer_t5
from prorec_core.data.sequences import Sequences

CODES = np.array([[0, 1, 0], [0, 1, 1], [0, 2, 0], [3, 0, 0]], np.uint16)


def test_each_code_of_each_level_has_a_token_of_its_own() -> None:
    tokens, vocabulary = peer_t5.tokens_of(CODES)
    assert tokens.tolist() == [[1, 6, 8], [1, 6, 9], [1, 7, 8], [4, 5, 8]]
    assert vocabulary == 10


def test_the_python_trie_allows_exactly_the_items_that_exist() -> None:
    tokens, vocabulary = peer_t5.tokens_of(CODES)
    allowed = peer_t5.allowed_tokens(tokens)
    paths = [[peer_t5.PAD]]
    for _ in range(CODES.shape[1]):
        paths = [[*path, token] for path in paths for token in allowed(0, torch.tensor(path))]
    assert sorted(path[1:] for path in paths) == sorted(tokens.tolist())
    assert allowed(0, torch.tensor([peer_t5.PAD, vocabulary - 1])) == [peer_t5.PAD]


def test_there_is_a_sample_for_every_training_item_but_each_first(checkerboard: Sequences) -> None:
    samples = peer_t5.prefixes(checkerboard)
    training = checkerboard.training()
    assert len(set(samples)) == len(samples) == len(training.items) - training.n_users


def test_histories_keep_their_last_items_and_are_padded_to_one_length() -> None:
    tokens, _ = peer_t5.tokens_of(CODES)
    long = np.array([3] * 5 + [0] * peer_t5.HISTORY_ITEMS, np.int32)
    batch = peer_t5.padded_histories([np.array([3], np.int32), long], tokens)
    assert batch["input_ids"].shape == (2, peer_t5.HISTORY_ITEMS * 3)
    assert batch["input_ids"][0].tolist() == [4, 5, 8] + [peer_t5.PAD] * (3 * peer_t5.HISTORY_ITEMS - 3)
    assert batch["input_ids"][1].tolist() == [1, 6, 8] * peer_t5.HISTORY_ITEMS
    assert batch["attention_mask"].sum(1).tolist() == [3, 3 * peer_t5.HISTORY_ITEMS]
