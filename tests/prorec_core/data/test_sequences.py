from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.data.sequences import Sequences, Split, from_lists

N_ITEMS = 7
histories = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=3, max_size=9), min_size=1, max_size=8)


def sequences(lists: list[list[int]]) -> Sequences:
    return from_lists([np.array(items, dtype=np.int32) for items in lists], N_ITEMS)


def as_lists(found: Sequences) -> list[list[int]]:
    return [found.of_user(user).tolist() for user in range(found.n_users)]


@given(histories)
def test_split_leaves_out_the_last_items(lists: list[list[int]]) -> None:
    found = sequences(lists)
    assert as_lists(found) == lists
    assert as_lists(found.training()) == [items[:-2] for items in lists]
    assert as_lists(found.histories(Split.VALIDATION)) == [items[:-2] for items in lists]
    assert as_lists(found.histories(Split.TEST)) == [items[:-1] for items in lists]
    assert found.targets(Split.VALIDATION).tolist() == [items[-2] for items in lists]
    assert found.targets(Split.TEST).tolist() == [items[-1] for items in lists]


@given(histories, st.sampled_from([Split.VALIDATION, Split.TEST]), st.data())
def test_targets_that_are_left_out_are_asked_of_nobody(
    lists: list[list[int]], split: Split, data: st.DataObject
) -> None:
    whole = sequences(lists)
    out = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    found = whole.leaving_out(split, np.array(out))
    kept = [user for user, is_out in enumerate(out) if not is_out]
    assert found.owners_of(split).tolist() == kept
    assert found.targets(split).tolist() == whole.targets(split)[kept].tolist()
    assert found.taken_before(split).tolist() == whole.taken_before(split)[kept].tolist()
    histories = found.histories(split)
    assert (as_lists(histories), histories.owners.tolist()) == (as_lists(whole.histories(split).select(kept)), kept)
    assert len(found.answerable(split)) == len(kept)
    other = Split.TEST if split is Split.VALIDATION else Split.VALIDATION
    assert found.targets(other).tolist() == whole.targets(other).tolist()
    assert as_lists(found.training()) == as_lists(whole.training())
    # Twice is as good as at once, and who is selected keeps what is left out.
    rest = found.leaving_out(split, np.ones(len(kept), np.bool_))
    assert rest.targets(split).tolist() == [] and len(rest.histories(split).offsets) == 1
    turned = np.arange(len(lists))[::-1]
    assert found.select(turned).targets(split).tolist() == found.targets(split).tolist()[::-1]


@given(histories)
def test_nothing_held_back_is_counted_for_training(lists: list[list[int]]) -> None:
    found = sequences(lists)
    counts = found.train_counts()
    for target in (found.targets(Split.VALIDATION), found.targets(Split.TEST)):
        counts = counts + np.bincount(target, minlength=N_ITEMS)
    assert counts.tolist() == np.bincount(found.items, minlength=N_ITEMS).tolist()


@given(histories)
def test_selected_users_come_in_the_order_named(lists: list[list[int]]) -> None:
    chosen = np.arange(len(lists))[::-1].astype(np.int64)
    assert as_lists(sequences(lists).select(chosen)) == lists[::-1]


@given(st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=5), min_size=1, max_size=8), st.data())
def test_users_are_selected_as_one_by_one(lists: list[list[int]], data: st.DataObject) -> None:
    found = sequences(lists).with_validation_in_training()
    users = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=12))
    chosen = found.select(np.array(users, np.int64))
    assert as_lists(chosen) == [lists[user] for user in users]
    assert (chosen.n_items, chosen.held_back, chosen.items.dtype) == (found.n_items, found.held_back, np.int32)


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 2), max_size=3)] * 2), min_size=1, max_size=8))
def test_users_who_differ_are_those_with_another_list(pairs: list[tuple[list[int], list[int]]]) -> None:
    one, two = (sequences([pair[side] for pair in pairs]) for side in (0, 1))
    assert one.differs(two).tolist() == [first != second for first, second in pairs]


def test_validation_items_can_be_trained_on_and_test_items_never() -> None:
    sequences = from_lists([np.array([3, 1, 2, 0], np.int32), np.array([4, 2, 3], np.int32)], 5)
    more = sequences.with_validation_in_training()
    assert sequences.validates and not more.validates
    assert sequences.training().items.tolist() == [3, 1, 4]
    assert more.training().items.tolist() == [3, 1, 2, 4, 2]
    assert more.train_counts().tolist() == [0, 1, 2, 1, 1]
    for split in (Split.VALIDATION, Split.TEST):
        assert more.targets(split).tolist() == sequences.targets(split).tolist()
        assert more.histories(split).items.tolist() == sequences.histories(split).items.tolist()


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=6), min_size=1, max_size=8),
    st.sampled_from([Split.VALIDATION, Split.TEST]),
)
def test_targets_taken_before_are_those_in_the_history(lists: list[list[int]], split: Split) -> None:
    found = sequences(lists)
    end = -1 - split.value
    assert found.taken_before(split).tolist() == [items[end] in items[:end] for items in lists]
