"""Lists of another program whose right figures are known: those that this project makes itself, written as a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prorec_core.config_data import DataConfig
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data import split_table
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.data.stage import preprocess
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from prorec_core.evaluation.baselines import item_to_item_lists
from prorec_core.evaluation.given import OF_OTHERS, SPLITS, given_inputs, given_lists, read_given
from prorec_core.evaluation.given_table import digest
from prorec_core.evaluation.stage import EvaluationInputs, evaluate

LENGTH = 20
KINDS: dict[str, dict[str, Any]] = {
    "leave one out": {},
    "by time": {"split": "by_time", "min_item_interactions": 8},
    "by time, first": {"split": "by_time", "targets": "first"},
    "by position": {"split": "by_position", "validation_share": 0.2, "test_share": 0.2},
    "new items": {"new_items": 0.1},
}


@pytest.fixture(scope="module", params=KINDS)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return preprocess(DataConfig.model_validate({**KINDS[request.param], "demo": {"users": 120, "items": 80}}))


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return preprocess(DataConfig(demo={"users": 60, "items": 50}))


def config(**values: Any) -> EvaluateConfig:
    return EvaluateConfig(list_length=LENGTH, bootstrap_samples=100, **values)


def table(dataset: Dataset, *, masked: bool = True, order: str = "rank", length: int = LENGTH) -> pl.DataFrame:
    """Lists that this project makes, by the ids and positions that other programs are given."""
    asked = split_table.interactions(dataset).filter("target")
    item_ids, parts = dataset.items["item_id"], []
    for name, split in SPLITS.items():
        histories = dataset.sequences.histories(split)
        found = item_to_item_lists(dataset.sequences.training(), histories, length, masked=masked).items_UK
        before = asked.filter(split=name)
        row, place = np.nonzero(found >= 0)
        order_of = place + 1 if order == "rank" else -2.5 * place
        parts.append(
            before.select("split", "user_id", "position")[row].with_columns(
                item_id=item_ids.gather(found[row, place]), **{order: order_of}
            )
        )
    return pl.concat(parts)


def measured(rows: pl.DataFrame, dataset: Dataset, settings: EvaluateConfig) -> dict[str, Any]:
    found = given_lists(RawTable.of_frame(rows, "theirs"), dataset, settings)
    return evaluate(given_inputs(found, dataset, settings)).metrics


def short(remarks: list[str]) -> list[str]:
    """The remarks on lists that end early."""
    return [text for text in remarks if "there end" in text]


@pytest.mark.parametrize("order", ["rank", "score"])
@pytest.mark.parametrize("masked", [True, False])
def test_lists_written_out_and_read_again_have_the_same_figures(dataset: Dataset, order: str, masked: bool) -> None:
    settings = config(mask_history=masked)
    rows = table(dataset, masked=masked, order=order)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=3)
    found = measured(shuffled, dataset, settings)
    own = evaluate(EvaluationInputs(settings, dataset, {}, all_counts=True)).metrics
    for name in SPLITS:
        assert found[name]["given"] == own[name]["item_to_item"] and found[name]["given"]["recall_at_10"] > 0
        assert found[name]["popularity"] == own[name]["popularity"]
    assert found["recommended"] == "given" and found["warnings"][-len(found["remarks"]) :] == found["remarks"]
    assert [text for text in found["remarks"] if text not in short(found["remarks"])] == [OF_OTHERS]


def test_what_a_user_has_is_passed_over_and_told(dataset: Dataset) -> None:
    whole = dataset.items.height
    unmasked = table(dataset, masked=False, length=whole)
    found = measured(unmasked, dataset, config())
    assert found["test"]["given"] == measured(table(dataset), dataset, config())["test"]["given"]
    own = unmasked.height - table(dataset, length=whole).height
    told = f"{own:,} of {unmasked.height:,} items in the given lists stand in the user's own history"
    assert found["remarks"][-1].startswith(told)
    assert measured(unmasked, dataset, config(mask_history=False))["remarks"] == [OF_OTHERS]


def test_who_has_no_list_counts_as_missed_and_is_told(dataset: Dataset) -> None:
    rows, lost = table(dataset), dataset.users["user_id"][int(dataset.sequences.owners_of(Split.TEST)[0])]
    kept = rows.filter((pl.col("user_id") != lost) | (pl.col("split") != "test"))
    found = given_lists(RawTable.of_frame(kept, "theirs"), dataset, config())
    owners = dataset.sequences.owners_of(Split.TEST)
    gone, n = owners == dataset.users["user_id"].to_list().index(lost), len(owners)
    assert (found.lists[Split.TEST].items_UK[gone] == -1).all() and (
        found.lists[Split.TEST].items_UK[~gone, 0] >= 0
    ).all()
    told = f"{gone.sum()} of {n:,} test targets have no list in the given file, and count as missed"
    assert [text for text in found.remarks if text not in short(found.remarks)] == [OF_OTHERS, told]


def test_nothing_of_a_cold_users_list_is_replaced() -> None:
    """Whose history training does not know gets popular items of our scorers, and of others what they say."""
    dataset = preprocess(DataConfig(split="by_time", demo={"users": 120, "items": 80}, min_item_interactions=8))
    histories = dataset.sequences.histories(Split.TEST)
    cold = np.diff(histories.offsets) == 0
    assert cold.any()
    rows = table(dataset).with_columns(rank=LENGTH + 1 - pl.col("rank"))
    settings = config()
    lists = given_lists(RawTable.of_frame(rows, "theirs"), dataset, settings)
    found = evaluate(given_inputs(lists, dataset, settings)).lists["given"].items_UK[cold]
    assert (found == lists.lists[Split.TEST].items_UK[cold]).all()


def test_lists_that_end_early_say_nothing_of_what_lies_behind(shop: Dataset) -> None:
    ended = measured(table(shop, length=12), shop, config())["test"]
    assert "recall_at_10" in ended["given"] and not {"recall_at_20", "ndcg_at_20", "mrr"} & ended["given"].keys()
    assert {"recall_at_20", "mrr"} <= ended["popularity"].keys()
    assert measured(table(shop, length=40), shop, config())["test"]["given"].keys() == ended["popularity"].keys()
    # Each split by its own lists.
    rows = table(shop).filter((pl.col("rank") < 13) | (pl.col("split") == "validation"))
    found = measured(rows, shop, config())
    assert "recall_at_20" in found["validation"]["given"] and "recall_at_20" not in found["test"]["given"]


def test_how_many_lists_end_early_is_told(shop: Dataset) -> None:
    first, n = shop.users["user_id"][0], shop.users.height
    rows = table(shop).filter((pl.col("rank") < 13) | (pl.col("user_id") == first) | (pl.col("split") != "test"))
    found = measured(
        rows.filter((pl.col("rank") < 9) | (pl.col("user_id") != shop.users["user_id"][1])), shop, config()
    )
    told = f"of {n} test lists there end 1 before the 10th item, {n - 1} before the 20th item: what would stand there"
    assert short(found["remarks"])[-1].startswith(told)


def test_lists_of_all_that_is_left_do_not_end_early(shop: Dataset) -> None:
    whole = shop.items.height
    rows = table(shop, length=whole)
    settings = EvaluateConfig(list_length=whole, bootstrap_samples=100)
    left = rows.group_by("split", "user_id").len()["len"]
    assert left.min() < whole
    assert short(measured(rows, shop, settings)["remarks"]) == []
    assert short(measured(rows.filter(pl.col("rank") < left.max()), shop, settings)["remarks"]) == []


def test_lists_that_masking_makes_too_short_are_told_so(shop: Dataset) -> None:
    """The first items of a list of another program are often those that the user has."""
    rows = table(shop, masked=False, length=10)
    with pytest.raises(UserError, match=r"list has [0-9] items, and had 10 before what users have already was passed"):
        measured(_own_first(rows, shop), shop, config())


def _own_first(rows: pl.DataFrame, shop: Dataset) -> pl.DataFrame:
    """Lists of ten items each, of which the first is the user's own."""
    own = split_table.interactions(shop).filter(position=0).select("user_id", first="item_id")
    rest = rows.join(own, on="user_id").filter(pl.col("item_id") != pl.col("first")).drop("first")
    rest = rest.with_columns(rank=pl.col("rank") + 1).filter(pl.col("rank") < 11)
    keys = ["split", "user_id", "position"]
    first = rest.select(keys).unique().join(own.rename({"first": "item_id"}), on="user_id").with_columns(rank=pl.lit(1))
    return pl.concat([rest, first.cast({"rank": rest["rank"].dtype}).select(rest.columns)])


def _changed(rows: pl.DataFrame, **values: Any) -> pl.DataFrame:
    """The rows with other values in the fifth."""
    fifth = pl.int_range(pl.len()) == 4
    return rows.with_columns(
        pl.when(fifth).then(pl.lit(value)).otherwise(pl.col(name)).alias(name) for name, value in values.items()
    )


MISTAKES = {
    "no column": (lambda rows: rows.drop("item_id"), r"there is no column 'item_id' but 'split'"),
    "no order": (lambda rows: rows.drop("rank"), r"there is no column 'rank' or 'score'"),
    "no rows": (lambda rows: rows.clear(), r"the table has no rows"),
    "another split": (lambda rows: _changed(rows, split="tests"), r"column 'split' is neither .* in row 5: 'tests'"),
    "no split": (lambda rows: _changed(rows, split=None), r"column 'split' is neither .* in row 5"),
    "unknown user": (
        lambda rows: _changed(rows, user_id="x"),
        r"'user_id' has an id that the data set lacks.* row 5: 'x'",
    ),
    "unknown item": (
        lambda rows: _changed(rows, item_id="x"),
        r"'item_id' has an id that the data set lacks.* row 5: 'x'",
    ),
    "no item": (lambda rows: _changed(rows, item_id=None), r"'item_id' has no id in row 5"),
    "no rank": (lambda rows: _changed(rows, rank=None), r"'rank' holds what is no whole number from 0 on in row 5"),
    "half a rank": (
        lambda rows: _changed(rows.cast({"rank": pl.Float64}), rank=1.5),
        r"'rank' holds what is no whole number from 0 on in row 5: '1.5'",
    ),
    "a rank twice": (lambda rows: _changed(rows, rank=4), r"the rank 4 stands twice in a validation list of .* row 5"),
    "an item twice": (
        lambda rows: _changed(rows, item_id=rows["item_id"][3]),
        r"the item '.*' stands twice in a validation list of .*, again in row 5",
    ),
    "another position": (
        lambda rows: _changed(rows, position=0),
        r"'position' names no validation target of the user '.*' in row 5: 0",
    ),
    "one split": (lambda rows: rows.filter(split="test"), r"there are no lists for the validation split"),
    "short lists": (lambda rows: rows.filter(pl.col("rank") < 10), r"the longest validation list has 9 items\. Give"),
    "dates": (
        lambda rows: rows.with_columns(rank=pl.lit(date(2020, 1, 1))),
        r"'rank' has the type Date. It holds numbers",
    ),
    "truths": (
        lambda rows: rows.with_columns(rank=pl.lit(value=True)),
        r"'rank' has the type Boolean. It holds numbers",
    ),
    "lists": (lambda rows: rows.with_columns(rank=pl.concat_list("rank")), r"'rank' has the type List"),
    "splits of bytes": (
        lambda rows: rows.with_columns(split=pl.col("split").cast(pl.Binary)),
        r"'split' has the type Bin",
    ),
    "a huge rank": (
        lambda rows: _changed(rows.cast({"rank": pl.Float64}), rank=1e300),
        r"'rank' holds what is no whole number from 0 on in row 5",
    ),
    "a huge position": (
        lambda rows: _changed(rows.cast({"position": pl.UInt64}), position=2**63),
        r"'position' holds what is no whole number from 0 on in row 5",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_row(shop: Dataset, name: str) -> None:
    spoil, told = MISTAKES[name]
    with pytest.raises(UserError, match=told) as error:
        given_lists(RawTable.of_frame(spoil(table(shop)), "theirs"), shop, config())
    assert str(error.value).startswith("theirs: ") and "\n" not in str(error.value)


def test_a_score_that_is_no_number_is_told(shop: Dataset) -> None:
    for value in (float("nan"), float("inf"), None):
        rows = _changed(table(shop, order="score"), score=value)
        with pytest.raises(UserError, match=r"'score' holds what is no finite number in row 5"):
            given_lists(RawTable.of_frame(rows, "theirs"), shop, config())


def test_users_of_whom_nothing_is_asked_are_told(shop: Dataset) -> None:
    asked = DataConfig(split="by_time", demo={"users": 120, "items": 80}, targets="first")
    dataset = preprocess(asked)
    idle = np.setdiff1d(np.arange(dataset.users.height), dataset.sequences.owners_of(Split.TEST))
    assert len(idle)
    more = pl.DataFrame(
        {
            "split": ["test"],
            "user_id": [dataset.users["user_id"][int(idle[0])]],
            "item_id": [dataset.items["item_id"][0]],
        }
    ).with_columns(rank=pl.lit(1, pl.Int64))
    rows = pl.concat([table(dataset).drop("position"), more], how="diagonal")
    found = given_lists(RawTable.of_frame(rows, "theirs"), dataset, config())
    assert [text for text in found.remarks if text not in short(found.remarks)][1:] == [
        "1 rows of the given file are for users of whom nothing is asked in that split"
    ]


def test_several_targets_need_their_positions() -> None:
    dataset = preprocess(DataConfig(split="by_time", demo={"users": 120, "items": 80}))
    with pytest.raises(UserError, match=r"users have several targets of a split.*Add the column position"):
        given_lists(RawTable.of_frame(table(dataset).drop("position"), "theirs"), dataset, config())


def test_a_file_a_seed(tmp_path: Path, shop: Dataset) -> None:
    rows = table(shop)
    rows.write_parquet(tmp_path / "theirs-0.parquet")
    rows.filter(pl.col("rank") < 15).write_csv(tmp_path / "theirs-1.parquet.csv")
    settings = config(lists_file=str(tmp_path / "theirs-{seed}.parquet"))
    assert read_given(settings, 0, shop).ends[Split.TEST] == LENGTH
    with pytest.raises(UserError, match=r"evaluate\.lists_file=.*theirs-1\.parquet: there is no such file"):
        read_given(settings, 1, shop)
    of_text = config(lists_file=str(tmp_path / "theirs-1.parquet.csv"))
    assert read_given(of_text, 7, shop).ends[Split.TEST] == 14
    before = digest(of_text, 0)
    rows.write_csv(tmp_path / "theirs-1.parquet.csv")
    assert digest(of_text, 0) != before
    with pytest.raises(UserError, match=r"evaluate\.lists_file: .*none is named"):
        read_given(config(), 0, shop)


def test_equal_scores_keep_the_order_of_the_rows_and_great_ones_their_own(shop: Dataset) -> None:
    rows = table(shop)
    lists = given_lists(RawTable.of_frame(rows, "theirs"), shop, config()).lists[Split.TEST]
    equal = rows.drop("rank").with_columns(score=1.0)
    # Neighbours that a float64 cannot tell apart.
    great = rows.with_columns(score=2**60 - pl.col("rank")).drop("rank").sample(fraction=1.0, shuffle=True, seed=1)
    for each in (equal, great, great.cast({"score": pl.String})):
        found = given_lists(RawTable.of_frame(each, "theirs"), shop, config()).lists[Split.TEST]
        assert (found.items_UK == lists.items_UK).all() and (found.scores_UK[:, 1:] <= found.scores_UK[:, :-1]).all()


def test_a_rank_stands_before_a_score_and_shows_itself(shop: Dataset) -> None:
    rows = table(shop).with_columns(score=pl.col("rank").cast(pl.Float64))
    lists = given_lists(RawTable.of_frame(rows, "theirs"), shop, config()).lists[Split.TEST]
    assert lists.scores_UK[0, :3].tolist() == [-1, -2, -3]
    of_scores = given_lists(RawTable.of_frame(rows.drop("rank"), "theirs"), shop, config()).lists[Split.TEST]
    assert of_scores.scores_UK[0, 0] == LENGTH and of_scores.items_UK[0, 0] != lists.items_UK[0, 0]


def test_what_is_new_is_named_so() -> None:
    dataset = preprocess(DataConfig(new_items=0.1, demo={"users": 120, "items": 80}))
    assert dataset.new_items is not None
    rows = _changed(table(dataset), item_id=dataset.new_items.items["item_id"][0])
    with pytest.raises(UserError, match=r"column 'item_id' has an item that is new, and in no list, in row 5"):
        given_lists(RawTable.of_frame(rows, "theirs"), dataset, config())


def test_trained_on_everything_the_test_alone_is_asked() -> None:
    dataset = preprocess(DataConfig(demo={"users": 120, "items": 80}))
    whole = replace(dataset, sequences=dataset.sequences.with_validation_in_training())
    rows = split_table.interactions(whole)
    assert set(rows["split"].unique()) == {"train", "test"} and rows.filter("target")["split"].unique().to_list() == [
        "test"
    ]
    assert rows.filter(split="train").height == len(whole.sequences.training().items)
    only = table(dataset).filter(split="test")
    found = measured(only, whole, config())
    both = measured(table(dataset), dataset, config())
    assert found["test"]["given"]["ndcg_at_10"] == both["test"]["given"]["ndcg_at_10"] > 0
    assert found["protocol"]["trained_on_validation"] and short(found["remarks"]) == []
