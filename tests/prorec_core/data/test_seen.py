"""Whether a model was trained on what it is measured by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.data.dataset import Dataset
from prorec_core.data.seen import seen_targets
from prorec_core.data.sequences import Split
from tests.data_sets import data_set

LOGS = st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=9), min_size=1, max_size=6)


def shop(histories: list[list[int]], users: list[int] | None = None) -> Dataset:
    names = [f"u{user}" for user in (users if users is not None else range(len(histories)))]
    return data_set([np.array(history, np.int32) for history in histories], 6, user_ids=names)


def seen(then: Dataset, now: Dataset, split: Split, *, validation: bool = False) -> list[bool]:
    sequences = then.sequences.with_validation_in_training() if validation else then.sequences
    found: list[bool] = seen_targets(then, sequences.training(), now, split).tolist()
    return found


@given(LOGS, st.lists(st.integers(0, 5), max_size=4))
def test_a_log_that_has_grown_shows_nothing(histories: list[list[int]], later: list[int]) -> None:
    then, now = shop(histories), shop([[*history, *later] for history in histories])
    for split in (Split.TEST, Split.VALIDATION):
        assert not any(seen(then, now, split))
    assert not any(seen(then, now, Split.TEST, validation=True))


@given(LOGS)
def test_a_log_that_was_cut_since_shows_what_was_trained_on(histories: list[list[int]]) -> None:
    then, now = shop([[*history, 0, 1] for history in histories]), shop(histories)
    assert all(seen(then, now, Split.TEST)) and all(seen(then, now, Split.VALIDATION))


def test_validation_items_that_were_trained_on_are_seen_unless_the_user_went_on() -> None:
    then = shop([[0, 1, 2, 3], [0, 1, 2, 3]])
    now = shop([[0, 1, 2, 3], [0, 1, 2, 3, 4]])
    assert seen(then, now, Split.VALIDATION, validation=True) == [True, False]
    assert seen(then, now, Split.TEST, validation=True) == [False, False]


@pytest.mark.parametrize("users", [[1, 0], [7, 8]])
def test_users_are_matched_by_their_ids(users: list[int]) -> None:
    then, now = shop([[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]], users=users), shop([[0, 1, 2], [5, 4, 3]])
    expected = {(1, 0): [False, False], (7, 8): [False, False]}[tuple(users)]
    assert seen(then, now, Split.TEST) == expected
