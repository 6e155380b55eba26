"""Rules in the search: what is found is what exact scoring finds among the items that a rule leaves."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from prorec_core.data.conditions import Attributes
from prorec_core.data.sequences import from_lists
from prorec_core.errors import UserError
from prorec_core.generation.allowed import AllowedItems
from prorec_core.generation.beam import beam_search
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.features import FEATURES
from prorec_core.generation.ranker import Ranker
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.relations import Relations
from prorec_core.generation.rule_book import RuleBook
from prorec_core.generation.rules import Choice, Chosen, ItemList, Rule
from prorec_core.generation.scoring import Dense, Fused, Generative, Ranked, Scoring
from prorec_core.generation.trie import CodeTrie

from .conftest import N_ITEMS, code_table
from .test_beam import Codes, FixedGenerator, code_tables

SHARES = (0.5, 0.05, 0.001)


def drawn(n_items: int, share: float, seed: int) -> torch.Tensor:
    """A mask of a share of the items, of one at least."""
    mask = torch.from_numpy(np.random.default_rng(seed).random(n_items) < share)
    mask[seed % n_items] = True
    return mask


@given(code_tables(), st.integers(0, 2**31), st.integers(0, 2**31))
@settings(max_examples=60)
def test_what_is_allowed_below_a_node_is_counted(codes: Codes, seed: int, other: int) -> None:
    trie = CodeTrie.from_codes(codes)
    mask = drawn(len(codes), (seed % 11) / 10, other)
    rule = AllowedItems.of(trie, mask)
    assert rule.count == int(mask.sum())
    for level, nodes in enumerate(trie.n_nodes):
        counted = rule.below(trie, level, torch.arange(nodes))
        expected = torch.zeros(nodes, dtype=torch.int64).index_add(0, trie.item_nodes(level), mask.long())
        assert torch.equal(counted, expected)


@given(st.sampled_from(SHARES), st.integers(0, 2**31), st.integers(1, 12))
@settings(max_examples=30)
def test_with_the_whole_catalogue_as_beam_it_is_the_exact_order_of_what_is_allowed(
    share: float, seed: int, keep: int
) -> None:
    random = np.random.default_rng(seed)
    codes = np.unique(random.integers(0, 9, (400, 3)), axis=0).astype(np.uint16)
    n_items = len(codes)
    trie = CodeTrie.from_codes(codes)
    generator = FixedGenerator.random(trie, 4, seed)
    first, second = (AllowedItems.of(trie, drawn(n_items, share, seed + each)) for each in (1, 2))
    rules = [first, None, second, first]
    forbidden = torch.from_numpy(random.integers(-1, n_items, (4, 5)))
    scores = generator.item_scores(4)
    for user, rule in enumerate(rules):
        scores[user, forbidden[user][forbidden[user] >= 0]] = -torch.inf
        if rule is not None:
            scores[user, ~rule.mask_N] = -torch.inf
    best, order = scores.sort(descending=True, stable=True)
    whole = beam_search(generator, trie, 4, n_items, keep, forbidden, rules)
    torch.testing.assert_close(whole.log_probabilities_UK, best[:, :keep])
    assert torch.equal(whole.items_UK, order[:, :keep].masked_fill(best[:, :keep] == -torch.inf, -1))

    narrow = beam_search(generator, trie, 4, keep, keep, forbidden, rules)
    for user in range(4):
        found = narrow.items_UK[user][narrow.items_UK[user] >= 0]
        left = int((scores[user] > -torch.inf).sum())
        assert len(found) == min(keep, left), "as many as are wanted, wherever there are as many"
        assert (scores[user, found] > -torch.inf).all() and len(set(found.tolist())) == len(found)


def test_a_rule_of_everything_changes_nothing() -> None:
    trie = CodeTrie.from_codes(code_table(200))
    generator = FixedGenerator.random(trie, 3, seed=1)
    every = AllowedItems.of(trie, torch.ones(200, dtype=torch.bool))
    forbidden = torch.tensor([[3, -1], [7, 9], [-1, -1]])
    free, ruled = (beam_search(generator, trie, 3, 4, 6, forbidden, rules) for rules in (None, [every, None, every]))
    assert torch.equal(free.items_UK, ruled.items_UK)
    assert torch.equal(free.log_probabilities_UK, ruled.log_probabilities_UK)


def recommender_of(generator: Any, scorer: str = "fused", attributes: pl.DataFrame | None = None) -> Recommender:
    n_items = generator.trie.n_items
    items = pl.DataFrame(
        {
            "item_id": [f"id-{item:02d}" for item in range(n_items)],
            "title": [f"Title {item}" for item in range(n_items)],
            "train_count": [(7 * item) % 13 for item in range(n_items)],
        }
    )

    texts = np.random.default_rng(0).normal(size=(n_items, 8)).astype(np.float32)
    walks = from_lists([np.arange(5, dtype=np.int32) + each for each in range(n_items - 5)], n_items)
    weights = np.linspace(0.5, 1.5, len(FEATURES))
    ranker = Ranker(Relations.of(walks, texts), weights, weights[None])
    scorings = {"ranked": Ranked(ranker), "fused": Fused(1.5), "dense": Dense(), "generative": Generative()}
    scoring: Scoring = scorings.pop(scorer)  # type: ignore[assignment]
    return Recommender(generator, items, scoring, n_items, attributes, list(scorings.values()))  # type: ignore[arg-type]


@pytest.mark.parametrize("scorer", ["ranked", "fused", "generative"])
@pytest.mark.parametrize("share", SHARES)
def test_a_ruled_list_is_the_whole_one_without_what_is_not_allowed(
    make_generator: Any, make_config: Any, scorer: str, share: float
) -> None:
    recommender = recommender_of(make_generator(make_config()), scorer)
    histories = [["id-02", "id-04"], [], ["id-07"], ["nobody"], ["id-11", "id-03", "id-05"]]
    trie = recommender.generator.trie
    rules = [AllowedItems.of(trie, drawn(N_ITEMS, share, seed)) for seed in (5, 6, 7, 8)]
    own = [rules[0], rules[1], None, rules[2], rules[3]]
    whole = recommender.recommend(histories, N_ITEMS)
    for free, ruled, rule in zip(whole, recommender.recommend(histories, N_ITEMS, rules=own), own, strict=True):
        kept = [each for each in free if rule is None or rule.mask_N[int(each.item_id[3:])]]
        assert [each.item_id for each in ruled] == [each.item_id for each in kept]
        np.testing.assert_allclose([e.score for e in ruled], [e.score for e in kept], rtol=1e-5, atol=1e-6)
    seen = recommender.recommend(histories, 4, mask_history=False, rules=own)
    for found, rule in zip(seen, own, strict=True):
        assert len(found) == min(4, N_ITEMS if rule is None else rule.count)
    alone = [recommender.recommend([history], 6, rules=[rule])[0] for history, rule in zip(histories, own, strict=True)]
    together = recommender.recommend(histories, 6, rules=own)
    assert [[e.item_id for e in found] for found in alone] == [[e.item_id for e in found] for found in together]


def test_dense_candidates_obey(make_generator: Any, make_config: Any) -> None:
    generator = make_generator(make_config())
    rule = AllowedItems.of(generator.trie, torch.arange(N_ITEMS) % 5 == 0)
    histories = from_lists([np.array([2, 4], np.int32), np.array([5], np.int32)], N_ITEMS)
    found = find_candidates(generator, histories, 2, 10, rules=[rule, None])
    assert set(found.items_UC[0]) == {-1, 0, 5, 10, 15, 20}
    free = find_candidates(generator, histories, 2, 10)
    assert set(found.items_UC[1]) == set(free.items_UC[1])


def test_what_a_user_has_obeys_too_where_it_may_come_back(make_generator: Any, make_config: Any) -> None:
    generator = make_generator(make_config())
    rule = AllowedItems.of(generator.trie, torch.arange(N_ITEMS) % 2 == 0)
    histories = from_lists([np.array([2, 3, 5, 8], np.int32), np.array([3, 7], np.int32)], N_ITEMS)
    found = find_candidates(generator, histories, 1, 1, masked=False, rules=[rule, None])
    assert {2, 8} <= set(found.items_UC[0]) and not {3, 5} & set(found.items_UC[0])
    assert {3, 7} <= set(found.items_UC[1])
    generator.offset_items(torch.zeros(N_ITEMS).index_fill(0, torch.tensor([2, 3]), -torch.inf))
    found = find_candidates(generator, histories, 1, 1, masked=False)
    assert {5, 8} <= set(found.items_UC[0]) and not {2, 3} & set(found.items_UC.flatten()), "what was withdrawn is none"


def book(**columns: Any) -> RuleBook:
    attributes = Attributes(pl.DataFrame(columns).get_columns(), N_ITEMS)
    index = {f"id-{item:02d}": item for item in range(N_ITEMS)}
    return RuleBook(CodeTrie.from_codes(code_table()), index, attributes)


def rule_of(only: Any = None, exclude: Any = None, **lists: list[str]) -> Rule:
    def find(name: str) -> ItemList:
        if name not in lists:
            raise UserError(f"there is no list '{name}'")
        return ItemList.of(name, lists[name])

    form = TypeAdapter(Chosen | None)
    rule = Rule.of(form.validate_python(only), form.validate_python(exclude), find)
    assert rule is not None
    return rule


def left(rules: RuleBook, rule: Rule) -> list[int]:
    return torch.nonzero(rules.left(rule).allowed.mask_N)[:, 0].tolist()


def test_all_of_only_and_nothing_of_exclude() -> None:
    rules = book(price=[float(item) for item in range(N_ITEMS)])
    named = [f"id-{item:02d}" for item in range(10)]
    assert left(rules, rule_of(only=named)) == list(range(10))
    assert left(rules, rule_of(exclude=[*named, "nobody"])) == list(range(10, N_ITEMS))
    both = {"items": named, "list": "few", "where": {"price": {"gte": 3}}}
    assert left(rules, rule_of(only=both, few=["id-02", "id-03", "id-05", "id-20"])) == [3, 5]
    either = {"items": ["id-00"], "list": "few", "where": {"price": {"gt": 3}}}
    assert left(rules, rule_of(exclude=either, few=["id-02"])) == [1, 3]
    assert left(rules, rule_of(only=named, exclude=["id-01"])) == [0, *range(2, 10)]
    unknown = rules.left(rule_of(only=["no", "id-01", "no"], exclude=["none"]))
    assert (unknown.unknown, list(unknown.unknown_items)) == (2, ["no", "none"])
    assert list(rules.listed(ItemList.of("stock", ["id-01", "gone", "id-01"]))[1]) == ["gone"]


def test_a_rule_leaves_nothing_that_was_withdrawn() -> None:
    prices, gone = [float(item) for item in range(N_ITEMS)], np.arange(N_ITEMS) == 8
    attributes = Attributes(pl.DataFrame({"price": prices}).get_columns(), N_ITEMS)
    rules = RuleBook(CodeTrie.from_codes(code_table()), {}, attributes, gone)
    assert left(rules, rule_of(only={"where": {"price": {"gte": 7}}})) == [7, *range(9, N_ITEMS)]
    with pytest.raises(UserError, match="no item of the catalogue is left"):
        rules.left(rule_of(only={"where": {"price": 8}}))


def test_a_copy_of_rules_that_were_asked_gives_the_same() -> None:
    rules, rule = book(price=[float(item) for item in range(N_ITEMS)]), rule_of(only={"where": {"price": {"gte": 20}}})
    assert left(rules, rule) == left(copy.deepcopy(rules), rule)


def test_a_rule_is_worked_out_once_and_a_list_by_its_content() -> None:
    rules = book()
    first = rules.left(rule_of(only={"list": "few"}, few=["id-01"]))
    assert rules.left(rule_of(only={"list": "few"}, few=["id-01"])) is first
    assert left(rules, rule_of(only={"list": "few"}, few=["id-02"])) == [2]
    rules._room = 2 * (9 * N_ITEMS + 8)
    for item in range(5):
        rules.left(rule_of(only=[f"id-0{item}"]))
    assert len(rules._kept) == len(rules._sizes) == 2, "a mask and counts take so much"
    rules.left(rule_of(only={"list": "long"}, long=["id-01", *map(str, range(1000))]))
    assert len(rules._kept) == 1, "ids that the model lacks are held as well"


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (["nobody"], "only: no item of the catalogue is left"),
        ({"where": {"price": {"gt": 1000}}}, "only: no item of the catalogue is left"),
        ({"where": {"prise": 3}}, "only.where: no column 'prise' is kept with the model. Did you mean 'price'"),
        ({"where": {"price": "cheap"}}, "only.where.price: 'cheap' is not what the column holds. Give a number"),
        ({"where": {"name": {"lt": "m"}}}, "only.where.name: a range asks for numbers or dates"),
        ({"list": "none"}, "only.list: there is no list 'none'"),
    ],
)
def test_what_cannot_be_asked_is_one_line(only: Any, message: str) -> None:
    rules = book(price=[float(item) for item in range(N_ITEMS)], name=["a"] * N_ITEMS)
    with pytest.raises(UserError) as told:
        rules.left(rule_of(only=only))
    assert str(told.value).startswith(message) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "value",
    [{}, {"where": {}}, {"where": {"a": None}}, {"where": {"a": {"above": 3}}}, {"where": {"a": {}}},
     {"where": {"a": []}}, {"where": {"a": [[1]]}}, {"list": "UPPER"}, {"items": [""]}, {"items": [7]}, {"more": 1}, 7],
)  # fmt: skip
def test_what_is_no_choice_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Chosen).validate_python(value)
    assert TypeAdapter(Chosen).validate_python(["a"]) == Choice(items=["a"])


def test_rules_of_other_bounds_are_others() -> None:
    bounds = [1, 1.5, float("inf"), float("-inf")]
    assert len({Rule(only=Choice(where={"price": {"lt": bound}})).key for bound in bounds}) == len(bounds)


@pytest.mark.parametrize("said", [["a"], {"items": ["a"]}, "a"])
def test_what_is_no_choice_is_told(said: Any) -> None:
    for place in ("only", "exclude"):
        with pytest.raises(UserError, match=rf"{place}: is no Choice\. Write it as Choice\(items="):
            Rule(**{place: said})
