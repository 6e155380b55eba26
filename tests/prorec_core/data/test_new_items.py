from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.config_data import DataConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.new_items import LEAST_LEFT, hold_out
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError

SHOP = {"users": 150, "items": 60}
LOGS = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=9), min_size=1, max_size=12)


def shop(**changes: Any) -> DataConfig:
    return DataConfig.model_validate({"demo": SHOP, **changes})


@pytest.fixture(scope="module")
def whole() -> Dataset:
    return preprocess(shop())


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return preprocess(shop(new_items=0.2, new_items_seed=3))


@given(LOGS, st.floats(0.01, 0.99), st.integers(0, 5))
def test_what_stays_has_no_new_item_and_can_be_split(lists: list[list[int]], share: float, seed: int) -> None:
    users = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    items = np.concatenate(lists)
    found = hold_out(users, items, share, seed)
    assert len(found.items) == max(1, round(share * len(set(items.tolist()))))
    assert not set(items[found.keep]) & set(found.items.tolist())
    left = np.bincount(users[found.keep], minlength=len(lists))
    assert all(count == 0 or count >= LEAST_LEFT for count in left)
    expected = [
        (user, own[-1]) for user, own in enumerate(lists) if left[user] and own[-1] in set(found.items.tolist())
    ]
    assert list(zip(found.users.tolist(), found.targets.tolist(), strict=True)) == expected
    kept_users = [user for user in range(len(lists)) if left[user]]
    for user in kept_users:
        assert items[found.keep & (users == user)].tolist() == [i for i in lists[user] if i not in found.items]


def test_a_larger_share_holds_out_the_same_and_more() -> None:
    users, items = np.repeat(np.arange(20), 5), np.arange(100) % 50
    small, large = (set(hold_out(users, items, share, 1).items.tolist()) for share in (0.1, 0.4))
    assert len(small) == 5
    assert len(large) == 20
    assert small < large
    assert hold_out(users, items, 0.1, 2).items.tolist() != sorted(small)


def test_no_new_item_is_in_what_models_see(held_out: Dataset, whole: Dataset) -> None:
    new = held_out.new_items
    assert new is not None
    new_ids, known_ids = set(new.items["item_id"]), set(held_out.items["item_id"])
    assert len(new_ids) == round(0.2 * whole.items.height)
    assert not new_ids & known_ids
    assert new_ids | known_ids == set(whole.items["item_id"])
    # Sequences, targets, counts and the catalogue's size all speak of the known items alone.
    assert held_out.sequences.n_items == len(known_ids)
    assert held_out.sequences.items.max() < len(known_ids)
    assert held_out.items["train_count"].sum() == len(held_out.sequences.training().items)
    assert held_out.profile["filters"][-1]["filter"] == "new_items"
    assert held_out.profile["new_items"] == {"items": len(new), "test_interactions": len(new.users), "seed": 3}


def test_histories_are_the_plain_ones_without_new_items(held_out: Dataset, whole: Dataset) -> None:
    new = held_out.new_items
    assert new is not None
    new_ids = set(new.items["item_id"])
    plain = {
        user_id: [whole.items["item_id"][int(item)] for item in whole.sequences.of_user(user)]
        for user, user_id in enumerate(whole.users["user_id"])
    }
    measured = dict(zip(new.users.tolist(), new.targets.tolist(), strict=True))
    for user, user_id in enumerate(held_out.users["user_id"]):
        own = [held_out.items["item_id"][int(item)] for item in held_out.sequences.of_user(user)]
        assert own == [item for item in plain[user_id] if item not in new_ids]
        assert (user in measured) is (plain[user_id][-1] in new_ids)
        if user in measured:
            assert new.items["item_id"][measured[user]] == plain[user_id][-1]
    assert len(measured) > 10


def test_new_items_keep_their_texts_and_stand_last(held_out: Dataset, whole: Dataset) -> None:
    assert held_out.new_items is not None
    everything = held_out.all_items()
    assert everything.columns == held_out.items.columns
    assert everything["item"].to_list() == list(range(held_out.n_items_with_new))
    assert everything["train_count"][held_out.items.height :].to_list() == [0] * len(held_out.new_items)
    texts = dict(zip(whole.items["item_id"], whole.items["text"], strict=True))
    assert [texts[item] for item in everything["item_id"]] == everything["text"].to_list()


def test_saved_and_loaded(held_out: Dataset, tmp_path: Path) -> None:
    held_out.save(tmp_path)
    again = Dataset.load(tmp_path).new_items
    assert held_out.new_items is not None
    assert again is not None
    assert again.items.equals(held_out.new_items.items)
    assert np.array_equal(again.users, held_out.new_items.users)
    assert np.array_equal(again.targets, held_out.new_items.targets)


def test_by_default_nothing_is_held_out(whole: Dataset, tmp_path: Path) -> None:
    assert whole.new_items is None
    assert whole.all_items() is whole.items
    assert "new_items" not in whole.profile
    assert all(step["filter"] != "new_items" for step in whole.profile["filters"])
    whole.save(tmp_path)
    names = ["items.parquet", "profile.json", "sequences.parquet", "users.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert Dataset.load(tmp_path).new_items is None


def test_too_large_a_share_says_so() -> None:
    with pytest.raises(UserError, match=r"new_items took .*"):
        preprocess(shop(new_items=0.99))


def test_new_items_that_nobody_took_last_say_so() -> None:
    share, told = 0.001, "data.new_items: nobody took one of the 1 new items last"
    for seed in range(50):
        try:
            preprocess(shop(new_items=share, new_items_seed=seed))
        except UserError as error:
            assert told in str(error) and "new_items_seed" in str(error)
            return
    pytest.fail("some item of a small shop is last in no history")
