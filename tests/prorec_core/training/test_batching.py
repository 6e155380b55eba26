from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.sequences import IntArray, Sequences, from_lists
from prorec_core.training.batching import HistoryBatch, inference_batches, training_batches

CPU = torch.device("cpu")
_ITEMS = 1000


@st.composite
def histories(draw: st.DrawFn) -> Sequences:
    """Sequences in which every interaction has an item of its own, so that a place is told by its item."""
    lengths = draw(st.lists(st.integers(0, 12), max_size=25))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).permutation(_ITEMS).astype(np.int32)
    ends = np.cumsum([0, *lengths])
    return from_lists([numbers[a:b] for a, b in pairwise(ends)], _ITEMS)


def _rows(batch: HistoryBatch) -> list[tuple[int, list[int], list[int]]]:
    assert batch.targets_BL is not None
    return [
        (user, items[:length], targets[:length])
        for user, items, targets, length in zip(
            batch.users_B.tolist(),
            batch.items_BL.tolist(),
            batch.targets_BL.tolist(),
            batch.lengths_B.tolist(),
            strict=True,
        )
    ]


@given(histories(), st.integers(1, 14), st.integers(1, 60), st.integers(0, 9))
@settings(max_examples=100)
def test_an_epoch_holds_the_latest_places_of_every_history_once(
    sequences: Sequences, max_history: int, tokens: int, seed: int
) -> None:
    seen: dict[int, tuple[list[int], list[int]]] = {}
    for batch in training_batches(sequences, max_history, tokens, seed, CPU):
        for user, items, targets in _rows(batch):
            assert user not in seen
            seen[user] = items, targets
    expected = {}
    for user in range(sequences.n_users):
        whole = sequences.of_user(user).tolist()
        if len(whole) > 1:
            expected[user] = whole[:-1][-max_history:], whole[1:][-max_history:]
    assert seen == expected


@given(histories(), st.integers(1, 14), st.integers(1, 60), st.integers(1, 7))
@settings(max_examples=100)
def test_batches_stay_under_the_budget_and_are_well_formed(
    sequences: Sequences, max_history: int, tokens: int, most: int
) -> None:
    batches = [
        *training_batches(sequences, max_history, tokens, 0, CPU),
        *inference_batches(sequences, max_history, tokens, most, CPU),
    ]
    for batch in batches:
        # A history longer than the budget is a batch of its own.
        assert batch.items_BL.numel() <= tokens or len(batch.users_B) == 1
        assert batch.items_BL.shape[1] == max(int(batch.lengths_B.max()), 1)
        for tensor in (batch.users_B, batch.items_BL, batch.lengths_B):
            assert tensor.dtype == torch.int64
        assert not batch.items_BL[~batch.is_item_BL].any()
        assert torch.equal(batch.is_item_BL.sum(1), batch.lengths_B)
        if batch.targets_BL is None:
            assert len(batch.users_B) <= most
        else:
            assert torch.equal(batch.targets_BL >= 0, batch.is_item_BL)
            assert batch.targets_BL.dtype == torch.int64


@given(histories(), st.integers(1, 14), st.integers(1, 60), st.integers(1, 7))
@settings(max_examples=100)
def test_inference_holds_every_user_once_also_those_without_history(
    sequences: Sequences, max_history: int, tokens: int, most: int
) -> None:
    found: dict[int, list[int]] = {}
    for batch in inference_batches(sequences, max_history, tokens, most, CPU):
        assert batch.targets_BL is None
        for user, items, length in zip(
            batch.users_B.tolist(), batch.items_BL.tolist(), batch.lengths_B.tolist(), strict=True
        ):
            assert user not in found
            found[user] = items[:length]
    expected = {u: sequences.of_user(u).tolist()[-max_history:] for u in range(sequences.n_users)}
    assert found == expected


def _walks(count: int) -> Sequences:
    lists: list[IntArray] = [np.arange(2 + user % 9, dtype=np.int32) for user in range(count)]
    return from_lists(lists, 20)


def _order(batches: list[HistoryBatch]) -> list[list[int]]:
    return [batch.users_B.tolist() for batch in batches]


def test_the_seed_decides_the_order() -> None:
    first, again, other = (_order(training_batches(_walks(200), 50, 64, seed, CPU)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    # Not only the batches change places: histories of equal length meet others.
    assert {frozenset(users) for users in first} != {frozenset(users) for users in other}


def test_batches_of_similar_length_waste_little() -> None:
    batches = training_batches(_walks(500), 50, 128, 0, CPU)
    padded = sum(batch.items_BL.numel() for batch in batches)
    real = sum(int(batch.lengths_B.sum()) for batch in batches)
    assert real > 0.85 * padded


def test_nobody_to_train_on_gives_no_batch() -> None:
    alone = from_lists([np.array([3], np.int32), np.array([], np.int32)], 5)
    assert training_batches(alone, 10, 64, 0, CPU) == []
    assert inference_batches(from_lists([], 5), 10, 64, 8, CPU) == []


def test_histories_that_are_all_empty_have_one_padded_place() -> None:
    (batch,) = inference_batches(from_lists([np.array([], np.int32)] * 3, 5), 10, 64, 8, CPU)
    assert batch.items_BL.tolist() == [[0]] * 3
    assert batch.lengths_B.tolist() == [0] * 3
    assert batch.is_item_BL.tolist() == [[False]] * 3


@pytest.mark.parametrize("lengths", [[3, 1, 2], [0, 3]])
def test_last_takes_each_history_s_own_end(lengths: list[int]) -> None:
    items = [np.arange(10 * row, 10 * row + n, dtype=np.int32) for row, n in enumerate(lengths)]
    (batch,) = inference_batches(from_lists(items, 50), 10, 64, 8, CPU)
    last = batch.last(batch.items_BL[:, :, None].float())[:, 0]
    for user, value in zip(batch.users_B.tolist(), last.tolist(), strict=True):
        assert value == (items[user][-1] if lengths[user] else 0)
