from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.sequences import IntArray, Sequences, from_lists
from prorec_core.training.batching import (
    HistoryBatch,
    _under_budget,
    fixed_width,
    inference_batches,
    training_batches,
)

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


@given(
    st.lists(st.integers(1, 9), max_size=40),
    st.integers(1, 60),
    st.none() | st.integers(1, 10),
)
def test_a_group_takes_users_as_long_as_there_is_room(lengths: list[int], tokens: int, most: int | None) -> None:
    ordered, users = np.sort(np.array(lengths, np.int64)), np.arange(len(lengths))
    groups: list[list[int]] = []
    for user in users.tolist():
        room = groups and (len(groups[-1]) + 1) * ordered[user] <= tokens and (most is None or len(groups[-1]) < most)
        if room:
            groups[-1].append(user)
        else:
            groups.append([user])
    assert [group.tolist() for group in _under_budget(users, ordered, tokens, most)] == groups


@pytest.mark.parametrize(("max_history", "tokens"), [(50, 128), (50, 20), (7, 64), (1, 16)])
def test_in_a_fixed_shape_a_batch_holds_what_it_holds_otherwise(max_history: int, tokens: int) -> None:
    sequences = _walks(300)
    plain = training_batches(sequences, max_history, tokens, 5, CPU)
    fixed = training_batches(sequences, max_history, tokens, 5, CPU, fixed=True)
    shapes = set()
    for batch, padded in zip(plain, fixed, strict=True):
        assert batch.targets_BL is not None and padded.targets_BL is not None
        users, length = batch.shape
        assert torch.equal(padded.items_BL[:users, :length], batch.items_BL)
        assert torch.equal(padded.targets_BL[:users, :length], batch.targets_BL)
        assert torch.equal(padded.lengths_B[:users], batch.lengths_B)
        assert not padded.lengths_B[users:].any() and int(padded.is_item_BL.sum()) == int(batch.is_item_BL.sum())
        told, all_of = padded.targets(), batch.targets()
        assert told.real_P is not None and int(told.count) == len(all_of.items_P)
        assert torch.equal(told.items_P[told.real_P], all_of.items_P)
        assert torch.equal(told.of(padded.items_BL)[told.real_P], all_of.of(batch.items_BL))
        assert padded.shape[0] * padded.shape[1] <= max(1.25 * tokens, padded.shape[1])
        shapes.add(padded.shape)
    assert len({width for _, width in shapes}) == len(shapes), "of a width there is one shape"
    assert all(fixed_width(width, max_history) == width for _, width in shapes)


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_widths_are_few_and_wide_enough(length: int, longest: int) -> None:
    length = min(length, longest)
    width = fixed_width(length, longest)
    assert length <= width <= min(max(length, 1.25 * length), longest)
    assert len({fixed_width(each, longest) for each in range(1, longest + 1)}) <= 9 + 4 * longest.bit_length()


def test_batches_move_in_one_copy_and_stay_what_they_are() -> None:
    """To a device that has no numbers, which tells shapes alone; what is there is told on the CPU."""
    plain = training_batches(_walks(40), 50, 64, 0, CPU, fixed=True)
    moved = training_batches(_walks(40), 50, 64, 0, torch.device("meta"), fixed=True)
    for batch, there in zip(plain, moved, strict=True):
        for name, value in vars(batch).items():
            if isinstance(value, torch.Tensor):
                assert getattr(there, name).shape == value.shape and getattr(there, name).device.type == "meta"
    storages = {tensor.untyped_storage()._cdata for batch in moved for tensor in (batch.items_BL, batch.lengths_B)}
    assert len(storages) == 1


def test_a_kept_batch_takes_over_another() -> None:
    first, second = training_batches(_walks(40), 50, 1 << 20, 0, CPU), training_batches(_walks(40), 50, 1 << 20, 1, CPU)
    (one,), (other,) = first, second
    kept = one.kept()
    kept.take(other)
    assert torch.equal(kept.items_BL, other.items_BL) and torch.equal(kept.users_B, other.users_B)
    assert not torch.equal(kept.users_B, one.users_B)
