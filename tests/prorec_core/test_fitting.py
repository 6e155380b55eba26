"""The rule of settings: in range for any data, plain, and nobody's numbers but those that were left open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prorec_core.by_data import AUTO
from prorec_core.config import BY_DATA, Experiment, left_open
from prorec_core.config_data import DataConfig
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError
from prorec_core.fitting import (
    RULE,
    Size,
    as_in,
    beside_the_rule,
    by_rule,
    fitted,
    known_values,
    open_fields,
    told,
)

FIELDS = [f"{section}.{field}" for section, fields in BY_DATA.items() for field in fields]
OWN = Experiment.model_validate({"data": {"source": "tables", "path": "somewhere"}})
BEAUTY = Size(22_363, 12_101, 198_502, 14)


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    users, items = draw(st.integers(10, 10**7)), draw(st.integers(5, 10**6))
    interactions = draw(st.integers(3 * users, max(3 * users, min(users * items, 10**10))))
    return Size(users, items, interactions, draw(st.floats(3, 5000)))


def values(experiment: Experiment) -> dict[str, Any]:
    return {field: getattr(getattr(experiment, field.split(".")[0]), field.split(".")[1]) for field in FIELDS}


@given(sizes(), st.sampled_from([1, 2, 3, 4, 8, 64]), st.sampled_from([1, 2, 3, 5, 16]))
def test_every_field_is_found_in_its_range_for_any_data(size: Size, heads: int, of_generator: int) -> None:
    asked = {"collaborative": {"heads": heads}, "generator": {"heads": of_generator}}
    found = fitted(Experiment.model_validate({**asked, "data": {"source": "tables"}}), size)
    assert not open_fields(found) and AUTO not in values(found).values()
    # Whatever is found is as good as written: in range, of its kind, and the same experiment.
    assert Experiment.model_validate(found.model_dump(mode="json")) == found
    assert values(found) == by_rule(size, heads=heads, generator_heads=of_generator)
    for section in ("collaborative", "align", "generator"):
        training = getattr(found, section)
        assert training.tokens_per_batch >= 8 * training.max_history, "a batch has some histories, however long"


@given(sizes(), st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_more_data_never_ask_for_less(size: Size, users: int, items: int, interactions: int) -> None:
    more_items = Size(size.users, size.items * items, size.interactions, size.long_history)
    more = Size(size.users * users, size.items, size.interactions * interactions, size.long_history)
    longer = Size(size.users, size.items, size.interactions, size.long_history * interactions)
    here = by_rule(size)
    for field in ("collaborative.dim", "generator.dim", "quantize.codes", "align.graph"):
        assert by_rule(more_items)[field] >= here[field]
    for section in ("collaborative", "align", "generator"):
        tokens, epochs, length = (f"{section}.{name}" for name in ("tokens_per_batch", "epochs", "max_history"))
        assert by_rule(more)[tokens] >= here[tokens]
        assert by_rule(longer)[length] >= here[length] and by_rule(longer)[tokens] >= here[tokens]
        fixed = {tokens: here[tokens]}
        assert by_rule(more, fixed)[epochs] <= here[epochs]
        assert by_rule(more)[f"{section}.dropout"] <= here[f"{section}.dropout"]


@given(sizes(), st.data())
def test_what_is_said_stays_and_the_rest_does_not_depend_on_who_said_it(size: Size, data: st.DataObject) -> None:
    whole = fitted(OWN, size)
    said = data.draw(st.sets(st.sampled_from(FIELDS)))
    sections: dict[str, dict[str, Any]] = {}
    for field in said:
        section, name = field.split(".")
        sections.setdefault(section, {})[name] = values(whole)[field]
    some = Experiment.model_validate({"data": OWN.data.model_dump(), **sections})
    assert set(open_fields(some)) == set(FIELDS) - said
    assert fitted(some, size) == whole, "numbers that the rule gives may be written out one by one"


def test_a_width_that_is_given_decides_the_rate_and_a_batch_the_epochs() -> None:
    wide = by_rule(BEAUTY, {"collaborative.dim": 256, "align.tokens_per_batch": 4096})
    assert wide["collaborative.learning_rate"] == wide["align.learning_rate"] == 0.001
    assert wide["align.epochs"] > by_rule(BEAUTY)["align.epochs"]


@pytest.mark.parametrize("field", ["align.max_history", "generator.max_history", "collaborative.max_history"])
def test_a_generator_reads_as_much_as_stage_one_where_one_of_them_says_how_much(field: str) -> None:
    section = field.partition(".")[0]
    found = fitted(Experiment.model_validate({"data": {"source": "tables"}, section: {"max_history": 30}}), BEAUTY)
    assert {each.max_history for each in (found.collaborative, found.align, found.generator)} == {30}


def test_a_generator_is_as_wide_as_stage_one_where_that_says_how_wide() -> None:
    assert by_rule(BEAUTY, {"collaborative.dim": 96})["generator.dim"] == 96
    assert by_rule(BEAUTY, {"collaborative.dim": 96}, generator_heads=5)["generator.dim"] == 100
    assert by_rule(BEAUTY, {"generator.dim": 96})["collaborative.dim"] == 128


def test_the_built_in_shop_has_its_own_numbers_whatever_its_size() -> None:
    shop = Experiment.model_validate({"data": {"demo": {"users": 120, "items": 50}}})
    size = Size.of(preprocess(shop.data).profile)
    assert (size.items, open_fields(shop), fitted(shop, size)) == (50, [], shop)
    assert set(open_fields(left_open())) == set(FIELDS)
    assert fitted(left_open(), size) == Experiment() and fitted(left_open(), BEAUTY) == Experiment()


@pytest.mark.parametrize("split", ["by_time", "by_position"])
def test_what_is_held_back_has_no_say(tmp_path: Path, split: str) -> None:
    """Two logs of which the same is trained on get the same numbers."""
    earlier = [(f"u{n % 30}", f"i{n % 20}", n) for n in range(600)]
    settings: dict[str, Any] = {"source": "tables", "path": str(tmp_path), "text_columns": ["title"], "split": split}
    held_back = {}
    if split == "by_time":
        settings |= {"validation_from": "1000", "test_from": "1010"}
        for count in (60, 3000):
            held_back[count] = [(f"u{n % 60}", f"i{n % 40}", 1000 + n) for n in range(count)]
    else:
        settings |= {"min_item_interactions": 1, "min_user_interactions": 3}
        for items in (20, 40):
            held_back[items] = [(f"u{n % 30}", f"i{n % items}", 1000 + n) for n in range(90)]
    sizes = []
    for rows in held_back.values():
        log = pl.DataFrame(earlier + rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        log.write_csv(tmp_path / "interactions.csv")
        pl.DataFrame({"item_id": [f"i{n}" for n in range(40)], "title": ["x"] * 40}).write_csv(tmp_path / "items.csv")
        sizes.append(Size.of(preprocess(DataConfig.model_validate(settings)).profile))
    assert sizes[0] == sizes[1] and sizes[0].items == 20


def test_what_is_known_of_a_model_goes_before_the_rule_and_after_what_is_said() -> None:
    said = Experiment.model_validate({"data": {"source": "tables"}, "generator": {"dim": 32}})
    known = {"collaborative.dim": 96, "generator.dim": 96, "quantize.codes": 32}
    found = fitted(said, BEAUTY, known)
    assert (found.collaborative.dim, found.generator.dim, found.quantize.codes) == (96, 32, 32)
    assert found.align.learning_rate == 0.00267, "the rate is that of the width that there is"


def test_numbers_that_do_not_go_together_are_one_line() -> None:
    asked = {"generator": {"distill": {"soft_targets": 0.5}, "max_history": 200}}
    odd = Experiment.model_validate({"name": "shop", "data": {"source": "tables"}, **asked})
    with pytest.raises(UserError, match=r"shop: what the experiment says .*soft_targets .* Give these fields"):
        fitted(odd, BEAUTY, {"align.max_history": 50})


def test_what_is_still_open_is_not_told_as_known() -> None:
    some = Experiment.model_validate({"data": {"source": "tables"}, "align": {"graph": 0.25}})
    known = known_values(some)
    assert known["align"]["graph"] == 0.25 and "epochs" not in known["align"] and "codes" not in known["quantize"]
    assert known_values(fitted(some, BEAUTY)) == fitted(some, BEAUTY).model_dump(mode="json")
    then = fitted(OWN, Size(10, 5, 30, 3.0))
    assert as_in(some, then).collaborative == then.collaborative and as_in(some, then).align.graph == 0.25
    assert as_in(some, OWN) == some


def test_one_line_tells_what_was_left_open() -> None:
    line = told(OWN, fitted(OWN, BEAUTY), BEAUTY)
    assert line.startswith(f"by rule {RULE} from 22,363 users, 12,101 items and 198,502 interactions: ")
    assert "dim 128" in line and "codes 256" in line and "align.epochs 10" in line and "\n" not in line
    some = Experiment.model_validate({"data": {"source": "tables"}, "generator": {"dim": 32}})
    assert "collaborative.dim 128" in told(some, fitted(some, BEAUTY), BEAUTY)


def test_a_report_tells_which_numbers_are_not_the_rules() -> None:
    found = fitted(OWN, BEAUTY).model_dump()
    assert all(used == rule for _, used, rule in beside_the_rule(found, BEAUTY))
    found["collaborative"]["dim"] = 64
    odd = {field: (used, rule) for field, used, rule in beside_the_rule(found, BEAUTY) if used != rule}
    assert odd.pop("collaborative.dim") == (64, 128)
    # Where the width is 64, the generator's and the rate of 64 are what the rule would give.
    assert odd.pop("generator.dim") == (128, 64)
    assert odd == {f"{section}.learning_rate": (0.002, 0.004) for section in ("collaborative", "align")}


@given(sizes())
def test_the_sparser_the_data_the_more_neighbours_count(size: Size) -> None:
    assume(size.interactions >= 2)
    thinner = Size(size.users, size.items, size.interactions // 2, size.long_history)
    assert by_rule(thinner)["align.graph"] >= by_rule(size)["align.graph"]
