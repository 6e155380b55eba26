"""Whether a model was trained on what it is measured by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.data.dataset import Dataset
from prorec_core.data.seen import Seen, leaving_out, seen_targets, strangers
from prorec_core.data.sequences import Borders, Split
from prorec_core.errors import UserError
from prorec_core.evaluation.remarks import remarks_on_data
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


def some(total: int, *targets: int) -> Seen:
    return Seen(np.isin(np.arange(total), targets), f"x/1 was trained on {len(targets)} of the {total} items")


@pytest.mark.parametrize(
    ("total", "most"), [(3, 0), (4, 1), (12, 3), (20, 5), (100, 5), (119, 5), (120, 6), (10_000, 500)]
)
def test_few_are_a_twentieth_in_small_shops_five_and_never_more_than_a_quarter(total: int, most: int) -> None:
    assert some(total, *range(most)).few and not some(total, *range(most + 1)).few


def test_what_is_left_out_is_counted_and_told() -> None:
    whole = shop([[0, 1, 0], [0, 1, 2], [1, 1, 2], [3, 4, 3]])
    whole = replace(whole, profile={"kept": {"users": 4}, "warnings": ["odd"], "targets_in_history": {}})
    assert leaving_out(whole, {}) is whole
    found = leaving_out(whole, {Split.VALIDATION: some(4, 2), Split.TEST: some(4, 0, 2)})
    assert found.sequences.targets(Split.VALIDATION).tolist() == [1, 1, 4]
    assert found.sequences.targets(Split.TEST).tolist() == [2, 3]
    assert found.profile["left_out"] == {"validation": 1, "test": 2}
    assert found.profile["targets_in_history"] == {"validation": 0, "test": 1}
    odd, told = found.profile["warnings"]
    assert odd == "odd" and told.startswith("left out of what is chosen by and measured: x/1 was trained on 1 of the 4")
    assert "; x/1 was trained on 2 of the 4" in told and whole.profile["warnings"] == ["odd"]
    assert "(1 of 2)" in remarks_on_data(found.profile, mask_history=True)[-1], "of those that are asked for"


def test_by_time_the_counts_are_of_the_targets_that_are_left() -> None:
    whole = shop([[0, 1, 2, 3], [1, 0, 3, 2]])
    borders = Borders(np.array([1, 1]), np.array([2, 2]))
    whole = replace(
        whole,
        sequences=replace(whole.sequences, borders=borders),
        profile={"split": {"kind": "by_time", "validation": {"targets": 2}, "test": {"targets": 4}}},
    )
    split = leaving_out(whole, {Split.TEST: some(4, 1, 2, 3)}).profile["split"]
    assert (split["kind"], split["validation"]["targets"]) == ("by_time", 2)
    assert (split["test"]["targets"], split["test"]["users"]) == (1, 1)


def test_users_and_items_that_are_written_otherwise_are_told() -> None:
    histories = [[user, *range(5)] for user in range(6)]
    then = shop(histories)
    assert strangers("m/1", then, shop([[*history, 5] for history in histories])) == ""
    renamed = replace(then, users=then.users.with_columns(user_id="customer-" + then.users["user_id"]))
    with pytest.raises(
        UserError, match=r"the users of m/1 have other ids here, .* as 'customer-u0' here and 'u0' there"
    ):
        strangers("m/1", then, renamed)
    with pytest.raises(UserError, match="have other ids here"):
        strangers("m/1", then, shop(histories[:2], [7, 8]))
    items = then.items.with_columns(item_id="sku" + then.items["item_id"])
    with pytest.raises(UserError, match=r"m/1 was trained on none of the 6 items: .* 'skui0' here and as 'i0' there"):
        strangers("m/1", then, replace(then, items=items))
    others = [[5, *range(5)[::-1]] for _ in histories]
    told = "of the 6 users of m/1 are in these data, and of no others it can be told"
    assert strangers("m/1", then, shop(others[:3], [7, 8, 9])).startswith(f"0 {told}"), "as visits of another day"
    assert strangers("m/1", then, shop(histories, [0, 1, 7, 8, 9, 10])).startswith(f"2 {told}")
    assert strangers("m/1", then, shop(histories, [0, 1, 2, 8, 9, 10])) == ""
    half = items["item_id"].to_list()[:4] + then.items["item_id"].to_list()[4:]
    known = replace(then, items=then.items.with_columns(item_id=np.array(half)))
    assert strangers("m/1", then, known) == "m/1 was trained on 2 of the 6 items"
