"""Splits by time and by position: against plain Python, at their edges, and with a future that must not be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.alignment.graph import ItemGraph
from prorec_core.config_data import DataConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Borders, Sequences, Split, from_lists
from prorec_core.data.split import borders_by_position
from prorec_core.data.stage import preprocess
from prorec_core.data.times import shown_time
from prorec_core.errors import UserError
from prorec_core.generation.relations import Relations

KNOWN, ITEMS = 5, 7
"""Items from KNOWN on are such as training never saw."""
DAY = 86_400
START = 1_700_000_000 - 1_700_000_000 % DAY


@st.composite
def split(draw: st.DrawFn, *, known_alone: bool = False) -> Sequences:
    lists = draw(st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=6))
    borders = [sorted(draw(st.tuples(*[st.integers(0, len(items))] * 2))) for items in lists]
    first, second = (np.array([border[side] for border in borders], np.int64) for side in (0, 1))
    found = from_lists([np.array(items, np.int32) for items in lists], KNOWN)
    held = draw(st.sampled_from([1, 2]))
    return Sequences(
        found.items,
        found.offsets,
        KNOWN,
        held,
        Borders(first, second, draw(st.integers(1, 3)), draw(st.booleans())),
    )


def asked(found: Sequences, part: Split) -> list[tuple[int, list[int], int]]:
    """User, whole history and target of each target, one by one."""
    assert found.borders is not None
    rows = []
    for user in range(found.n_users):
        items = found.of_user(user).tolist()
        cuts = [int(found.borders.validation_from[user]), int(found.borders.test_from[user]), len(items)]
        start, stop = cuts[:2] if part is Split.VALIDATION else cuts[1:]
        places = list(range(start, stop))
        rows += [(user, items[:place], items[place]) for place in (places[:1] if found.borders.first_only else places)]
    return rows


@given(split(), st.sampled_from([Split.VALIDATION, Split.TEST]))
def test_each_target_comes_after_all_that_was_before_it(found: Sequences, part: Split) -> None:
    rows = asked(found, part)
    assert found.owners_of(part).tolist() == [user for user, _, _ in rows]
    assert found.targets(part).tolist() == [target for _, _, target in rows]
    assert found.taken_before(part).tolist() == [target in history for _, history, target in rows]
    for size in (KNOWN, ITEMS):
        histories = found.histories(part, size)
        assert (histories.n_items, histories.owners.tolist()) == (size, [user for user, _, _ in rows])
        known = [[item for item in history if item < size] for _, history, _ in rows]
        assert [histories.of_user(row).tolist() for row in range(histories.n_users)] == known
    can = [
        row for row, (_, history, target) in enumerate(rows) if target < KNOWN and min(history, default=ITEMS) < KNOWN
    ]
    assert found.answerable(part).tolist() == can
    assert found.with_history(part).tolist() == (np.diff(found.histories(part).offsets) > 0).tolist()


@given(split(), st.sampled_from([Split.VALIDATION, Split.TEST]), st.data())
def test_targets_that_are_left_out_are_asked_of_nobody(found: Sequences, part: Split, data: st.DataObject) -> None:
    rows = asked(found, part)
    out = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    left = found.leaving_out(part, np.array(out, np.bool_))
    kept = [row for row, is_out in zip(rows, out, strict=True) if not is_out]
    histories = left.histories(part, ITEMS)
    told = [histories.of_user(row).tolist() for row in range(histories.n_users)]
    assert list(zip(left.owners_of(part).tolist(), told, left.targets(part).tolist(), strict=True)) == kept
    assert left.taken_before(part).tolist() == [target in history for _, history, target in kept]
    assert left.training().items.tolist() == found.training().items.tolist()


@given(split())
def test_training_ends_where_what_is_held_back_begins(found: Sequences) -> None:
    assert found.borders is not None
    ends = found.borders.validation_from if found.held_back == 2 else found.borders.test_from
    training, expected = found.training(), []
    for user, end in enumerate(ends.tolist()):
        known = [item for item in found.of_user(user)[:end].tolist() if item < KNOWN]
        expected.append(known if len(known) >= found.borders.least else [])
    assert [training.of_user(user).tolist() for user in range(found.n_users)] == expected
    flat = [item for items in expected for item in items]
    assert found.train_counts().tolist() == [flat.count(item) for item in range(KNOWN)]


@given(split(), st.data())
def test_some_users_are_split_as_all_are(found: Sequences, data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, found.n_users - 1), unique=True))
    some = found.select(np.array(users, np.int64))
    wanted = [row for user in users for row in asked(found, Split.TEST) if row[0] == user]
    assert some.targets(Split.TEST).tolist() == [target for _, _, target in wanted]


@given(
    st.lists(st.integers(3, 40), min_size=1, max_size=9),
    st.floats(0, 0.6, exclude_max=True),
    st.floats(0, 0.39),
)
def test_by_position_everyone_trains_validates_and_tests(lengths: list[int], validation: float, test: float) -> None:
    config = DataConfig(split="by_position", validation_share=validation, test_share=test)
    found = borders_by_position(np.concatenate([[0], np.cumsum(lengths)]), config)
    assert (found.validation_from >= 1).all()
    assert (found.test_from > found.validation_from).all()
    assert (found.test_from < lengths).all()
    tested = np.array(lengths) - found.test_from
    assert ((np.abs(tested - test * np.array(lengths)) <= 0.5) | (tested == 1) | (found.test_from == 2)).all()


def test_by_position_with_small_shares_is_leave_one_out(tmp_path: Path) -> None:
    folder = shop(tmp_path, log(0))
    one, other = (
        preprocess(config(folder, **each)).sequences
        for each in ({}, {"split": "by_position", "validation_share": 0.0, "test_share": 0.0})
    )
    for part in (Split.VALIDATION, Split.TEST):
        assert one.targets(part).tolist() == other.targets(part).tolist()
        assert one.histories(part).items.tolist() == other.histories(part).items.tolist()
    assert one.training().items.tolist() == other.training().items.tolist()


def log(seed: int, users: int = 30, items: int = 12, days: int = 40) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    rows = users * 12
    return pl.DataFrame(
        {
            "user_id": [f"u{user:02d}" for user in random.integers(users, size=rows)],
            "item_id": [f"i{item:02d}" for item in random.integers(items, size=rows)],
            "timestamp": START + random.integers(days, size=rows) * DAY,
        }
    )


def shop(folder: Path, rows: pl.DataFrame) -> Path:
    folder.mkdir(exist_ok=True)
    rows.write_parquet(folder / "interactions.parquet")
    ids = [f"i{item:02d}" for item in range(40)]
    pl.DataFrame(
        {"item_id": ids, "title": [f"Title {item}" for item in ids], "categories": [["c"]] * 40}
    ).write_parquet(folder / "items.parquet")
    return folder


def config(folder: Path, **changes: Any) -> DataConfig:
    small = {"source": "tables", "path": str(folder), "timestamp_format": "seconds", "min_user_interactions": 3}
    return DataConfig(**{**small, "min_item_interactions": 3, **changes})


def trained_on(dataset: Dataset) -> dict[str, list[str]]:
    training, ids = dataset.sequences.training(), dataset.items["item_id"]
    found = {
        user_id: ids.gather(training.of_user(user)).to_list() for user, user_id in enumerate(dataset.users["user_id"])
    }
    return {user: items for user, items in found.items() if items}


def day(number: int) -> str:
    return shown_time(START + number * DAY, "seconds")


@pytest.mark.parametrize("seed", range(3))
def test_the_future_changes_nothing_of_what_is_trained_on(tmp_path: Path, seed: int) -> None:
    """After the moment an item becomes everybody's, others vanish, and new ones and new users come."""
    past = log(seed)
    border = START + 30 * DAY
    later = pl.DataFrame(
        {
            "user_id": [f"u{user:02d}" for user in range(30)] * 2 + ["new"] * 5,
            "item_id": ["i03"] * 30 + ["i30"] * 30 + ["i03", "i31", "i04", "i30", "i05"],
            "timestamp": [START + 39 * DAY] * 30 + [START + 35 * DAY] * 30 + [START + (31 + n) * DAY for n in range(5)],
        }
    )
    other = pl.concat([past.filter(pl.col("timestamp") < border), later])
    split = {"split": "by_time", "validation_from": day(30), "test_from": day(36)}
    one, two = (
        preprocess(config(shop(tmp_path / name, rows), **split)) for name, rows in (("one", past), ("two", other))
    )
    assert trained_on(one) == trained_on(two)
    assert trained_on(one), "something is trained on"
    assert one.items.equals(two.items), "ids, texts, numbers and counts in training"
    counts = np.bincount(one.sequences.training().items, minlength=one.items.height)
    assert one.items["train_count"].to_list() == counts.tolist()
    relations = [
        Relations.of(each.sequences.training(), np.ones((each.items.height, 1), np.float32)) for each in (one, two)
    ]
    assert (relations[0].successors != relations[1].successors).nnz == 0
    graphs = [ItemGraph(each.sequences.training(), 1.0) for each in (one, two)]
    assert graphs[0].strengths_T.tolist() == graphs[1].strengths_T.tolist()
    assert two.new_items is not None
    assert {"i30", "i31"} <= set(two.new_items.items["item_id"]), "and what it never saw is new"


def test_what_is_outside_the_core_of_the_training_is_counted_and_stays_a_target(tmp_path: Path) -> None:
    rows = pl.concat(
        [
            log(4),
            pl.DataFrame(
                {
                    "user_id": ["rare", "rare", "late", "late"],
                    "item_id": ["i01", "i02", "i39", "i01"],
                    "timestamp": [START, START + 38 * DAY, START + 38 * DAY, START + 39 * DAY],
                }
            ),
        ]
    )
    folder = shop(tmp_path, rows)
    dataset = preprocess(config(folder, split="by_time", validation_from=day(30), test_from=day(36)))
    dataset.save(tmp_path)
    again = Dataset.load(tmp_path)
    for found in (dataset, again):
        users = found.users["user_id"].to_list()
        assert {"rare", "late"} <= set(users)
        assert {"rare", "late"}.isdisjoint(trained_on(found))
        owners = [users[owner] for owner in found.sequences.owners_of(Split.TEST)]
        ids = found.all_items()["item_id"].to_list()
        taken = dict.fromkeys(owners, "")
        for owner, target in zip(owners, found.sequences.targets(Split.TEST), strict=True):
            taken[owner] += f" {ids[target]}"
        assert (taken["rare"], taken["late"]) == (" i02", " i39 i01")
        histories = found.sequences.histories(Split.TEST)
        assert histories.of_user(owners.index("rare")).tolist() == [ids.index("i01")], "what it did before is known"
        assert len(histories.of_user(owners.index("late") + 1)) == 0, "what is unknown is passed over"
        about = found.split
        assert (about["kind"], about["test_from"]) == ("by_time", START + 36 * DAY)
        assert about["last_training_time"] < START + 30 * DAY <= about["first_validation_time"] < START + 36 * DAY
        assert about["test"]["targets"] == len(owners)
        assert about["test"]["new_users"] == 2
        assert about["test"]["targets_of_new_users"] == 3
        assert about["test"]["targets_of_new_items"] == 1
        assert about["test"]["without_history"] == 2
        assert found.new_items is not None
        assert found.new_items.in_sequences
        assert found.new_items.items["item_id"].to_list() == ["i39"]
        assert [users[user] for user in found.new_items.users] == ["late"]


def test_interactions_at_the_moment_belong_to_what_it_begins(tmp_path: Path) -> None:
    folder = shop(tmp_path, log(1))
    given = preprocess(config(folder, split="by_time", validation_from=day(30), test_from=f"{day(36)} 00:00:00"))
    for part, start, stop in ((Split.VALIDATION, 30, 36), (Split.TEST, 36, 40)):
        rows = log(1).filter(pl.col("timestamp").is_between(START + start * DAY, START + stop * DAY, closed="left"))
        assert len(given.sequences.targets(part)) == rows.unique().height
    shares = preprocess(config(folder, split="by_time", validation_share=0.2, test_share=0.1))
    moments = [shares.split[f"{name}_from"] for name in ("validation", "test")]
    assert all(moment % DAY == 0 for moment in moments), "times of interactions"
    assert len(shares.sequences.targets(Split.TEST)) >= round(0.1 * log(1).unique().height), "ties go with the first"
    numbers = preprocess(config(folder, split="by_time", validation_from=moments[0], test_from=str(moments[1])))
    assert numbers.split == shares.split


def test_the_first_target_alone_can_be_asked_for(tmp_path: Path) -> None:
    folder = shop(tmp_path, log(1))
    every, first = (
        preprocess(config(folder, split="by_time", targets=targets)).sequences for targets in ("all", "first")
    )
    owners = every.owners_of(Split.TEST)
    starts = np.flatnonzero(np.append(True, owners[1:] != owners[:-1]))
    assert first.owners_of(Split.TEST).tolist() == owners[starts].tolist()
    assert first.targets(Split.TEST).tolist() == every.targets(Split.TEST)[starts].tolist()
    assert first.training().items.tolist() == every.training().items.tolist()


def positions(rows: pl.DataFrame) -> pl.DataFrame:
    ordered = rows.sort("user_id", "timestamp")
    return ordered.with_columns(timestamp=pl.int_range(pl.len()).over("user_id"))


@pytest.mark.parametrize(
    ("change", "settings", "told"),
    [
        (
            lambda rows: rows,
            {"timestamp_column": None, "timestamp_format": None},
            "no clock .*timestamp_column is null",
        ),
        (lambda rows: rows.with_columns(timestamp=pl.lit(START)), {}, "no clock .* the same time"),
        (positions, {"timestamp_format": None}, "no clock .* positions in each user's history"),
        (lambda rows: rows, {"test_from": "soon"}, "'soon' is no time"),
        (lambda rows: rows, {"test_from": day(50)}, "nothing is left to test on from 2024-01-03 on: the data reach"),
        (
            lambda rows: rows,
            {"validation_from": day(38), "test_from": day(20)},
            "validation would begin after the test",
        ),
        (lambda rows: rows, {"validation_from": day(0), "test_from": day(20)}, "nothing is left to train on"),
        (lambda rows: rows, {"validation_from": day(20), "test_from": day(20)}, "nothing is left to validate on"),
        (lambda rows: rows, {"validation_from": day(20), "timestamp_format": None}, "a unit that is not declared"),
        (
            lambda rows: rows,
            {"validation_from": day(1), "min_user_interactions": 9},
            "nothing is left to train on: before",
        ),
        (
            lambda rows: rows.with_columns(
                item_id=pl.when(pl.col("timestamp") < START + 30 * DAY).then("item_id").otherwise(pl.lit("i39"))
            ),
            {"validation_from": day(30), "test_from": day(36)},
            "no validation target of an item that training knows",
        ),
    ],
)
def test_what_cannot_be_split_is_one_line_with_a_cure(
    tmp_path: Path, change: Any, settings: dict[str, Any], told: str
) -> None:
    folder = shop(tmp_path, change(log(0)))
    with pytest.raises(UserError, match=told) as raised:
        preprocess(config(folder, split="by_time", **settings))
    assert raised.value.cure
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"test_from": "2024-01-01"}, "test_from is for split: by_time"),
        ({"targets": "first"}, "targets is for"),
        ({"split": "by_time", "new_items": 0.1}, "new_items is not for"),
        ({"split": "by_time", "test_share": 0.6, "validation_share": 0.5}, "leave nothing to train on"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DataConfig(**settings)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (START, "seconds", "2023-11-14"),
        (START * 1000 + 61_000, "milliseconds", "2023-11-14 00:01:01"),
        (START, "as given", f"{START} (2023-11-14, if these are seconds)"),
        (1234, "as given", "1,234"),
    ],
)
def test_times_are_shown_as_dates_where_they_are_known_to_be(value: int, unit: str, text: str) -> None:
    assert shown_time(value, unit) == text


def test_leave_one_out_says_when_its_training_ends_and_leaves_no_other_file(tmp_path: Path) -> None:
    dataset = preprocess(config(shop(tmp_path, log(0))))
    last = max(int(dataset.timestamps[end - 3]) for end in dataset.sequences.offsets[1:].tolist())
    assert dataset.split == {"kind": "leave_one_out", "last_training_time": last}
    dataset.save(tmp_path)
    assert not (tmp_path / "borders.parquet").exists()
    assert "split" not in dataset.profile


def test_moments_and_times_beyond_all_dates_are_told_as_numbers() -> None:
    assert shown_time(1_700_000_000_000, "seconds") == "1,700,000,000,000"
    assert shown_time(1_700_000_000, "seconds") == "2023-11-14 22:13:20"
