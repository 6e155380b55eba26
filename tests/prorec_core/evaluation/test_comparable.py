from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import from_lists
from prorec_core.evaluation.comparable import data_differences, protocol_differences

NAMES = ("the one", "the other")
LISTS = [[0, 1, 2], [2, 1, 0], [1, 2, 0]]


def dataset(lists: list[list[int]], users: str = "uvw", items: str = "abc") -> Dataset:
    return Dataset(
        items=pl.DataFrame({"item_id": list(items), "title": [f"Title {item}" for item in items]}),
        users=pl.DataFrame({"user_id": list(users)}),
        sequences=from_lists([np.array(items, np.int32) for items in lists], len(items)),
        timestamps=np.zeros(sum(map(len, lists)), np.int64),
        profile={},
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dataset(LISTS), []),
        (
            dataset(LISTS, users="uvx"),
            ["1 users only the one has (such as w)", "1 users only the other has (such as x)"],
        ),
        (dataset(LISTS[:2], users="uv"), ["1 users only the one has (such as w)"]),
        (dataset(LISTS, items="abcd"), ["1 items only the other has (such as d)"]),
        (dataset([*LISTS[:2], [1, 0, 2]]), ["1 of 3 users have another test item (such as w)"]),
        (dataset([[1, 0, 2], [0, 2, 1, 0], LISTS[2]]), ["2 of 3 users have another history (such as u, v)"]),
    ],
)
def test_what_differs_between_data_sets(other: Dataset, message: list[str]) -> None:
    assert data_differences(dataset(LISTS), other, NAMES) == message


def test_what_differs_between_protocols() -> None:
    one = {"split": "leave-one-out", "level": "item", "catalogue": "whole", "history_masked": True, "beams": 50}
    assert protocol_differences(one, {**one, "beams": 10}, NAMES) == []
    assert protocol_differences(one, {**one, "history_masked": False}, NAMES) == [
        "history_masked is True for the one, False for the other"
    ]


def test_training_on_the_validation_items_makes_another_test_and_its_absence_is_no_difference() -> None:
    old = {"split": "leave-one-out", "level": "item", "catalogue": "whole", "history_masked": True}
    assert protocol_differences(old, {**old, "trained_on_validation": False}, NAMES) == []
    assert protocol_differences(old, {**old, "trained_on_validation": True}, NAMES) == [
        "trained_on_validation is False for the one, True for the other"
    ]
