"""The tables for other programs, held against what models here train on and are asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prorec_core.config_data import DataConfig
from prorec_core.data.sequences import Split
from prorec_core.data.split_table import interactions, items
from prorec_core.data.stage import preprocess

KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"split": "by_time", "min_item_interactions": 8},
    {"split": "by_time", "targets": "first", "min_item_interactions": 8},
    {"split": "by_position", "targets": "first", "validation_share": 0.2, "test_share": 0.2},
    {"new_items": 0.1},
)


@pytest.mark.parametrize("values", KINDS)
def test_the_tables_tell_what_is_trained_on_and_asked(values: dict[str, Any]) -> None:
    dataset = preprocess(DataConfig.model_validate({**values, "demo": {"users": 150, "items": 90}}))
    rows, sequences = interactions(dataset), dataset.sequences
    item_ids, user_ids = dataset.all_items()["item_id"], dataset.users["user_id"]
    assert rows.height == len(sequences.items)
    assert rows["item_id"].equals(item_ids.gather(sequences.items).alias("item_id"))
    training = sequences.training()
    trained = rows.filter(split="train")
    assert trained["item_id"].to_list() == item_ids.gather(training.items).to_list()
    owners = np.repeat(np.arange(training.n_users), np.diff(training.offsets))
    assert trained["user_id"].to_list() == user_ids.gather(owners).to_list()
    for split in (Split.VALIDATION, Split.TEST):
        asked = rows.filter("target", split=split.name.lower())
        assert asked["item_id"].to_list() == item_ids.gather(sequences.targets(split)).to_list()
        assert asked["user_id"].to_list() == user_ids.gather(sequences.owners_of(split)).to_list()
        histories = sequences.histories(split, dataset.n_items_with_new)
        for row in range(0, asked.height, 17):
            user, position = asked.row(row, named=True)["user_id"], asked["position"][row]
            before = rows.filter((rows["user_id"] == user) & (rows["position"] < position))
            assert before["item_id"].to_list() == item_ids.gather(histories.of_user(row)).to_list()
    assert set(rows["split"].unique()) <= {"train", "history", "validation", "test"}
    catalogue = items(dataset)
    assert catalogue.filter(~catalogue["new"])["item_id"].to_list() == dataset.items["item_id"].to_list()
    assert catalogue["new"].sum() == dataset.n_items_with_new - dataset.items.height
