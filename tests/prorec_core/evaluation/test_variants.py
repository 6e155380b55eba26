"""A comparison of planted ranks, whose every figure is known."""

from dataclasses import replace

import numpy as np
import pytest

from prorec_core.data.sequences import Split, from_lists
from prorec_core.evaluation.marks import MIXED, NOTHING_LEFT, marked, marks_of
from prorec_core.evaluation.variants import Measured, compare_variants, own_seconds, quantized_domination
from prorec_core.metrics.intervals import compare
from prorec_core.metrics.measuring import rank_metrics, values_by_user
from prorec_core.metrics.scorers import GENERATOR

USERS, ITEMS = 40, 12
PROTOCOL = {
    "items": ITEMS,
    "test_users": USERS,
    "validation_users": USERS,
    "history_masked": True,
    "list_length": 12,
    "beams": 10,
    "ties": "input",
    "ties_seed": 0,
}


def sequences():
    random = np.random.default_rng(0)
    return from_lists([random.permutation(ITEMS)[: 4 + user % 5].astype(np.int32) for user in range(USERS)], ITEMS)


def part(variant, seed, ranks, scorer=GENERATOR, **more):
    """One variant and seed; `ranks` by scorer."""
    ranks = {name: np.asarray(values, np.int32) for name, values in ranks.items()}
    measured = {name: rank_metrics(values, 10) for name, values in ranks.items()}
    metrics = {"protocol": {**PROTOCOL, "seed": seed}, "test": measured, "validation": measured}
    metrics["recommended"] = "fused" if "fused" in ranks else "generative"
    fields = {"seconds": {f"{variant}{seed}": 2.0}, "parameters": 5, "run": {"run_id": f"r{seed}", "page": None}}
    return Measured(variant, seed, scorer, metrics, ranks, **{**fields, **more})


def everyone(rank):
    return np.full(USERS, rank)


def test_means_spread_and_the_scorer_that_stands_for_a_variant():
    found = compare_variants(
        [
            part("prorec", 0, {"fused": everyone(1), "generative": everyone(0)}),
            part("bare", 0, {"generative": everyone(2)}),
            part("counts", 0, {"popularity": everyone(0), "item_to_item": everyone(5)}, "item_to_item"),
            part("dense", 0, {"aligned": everyone(3), "ranked": everyone(1)}, "aligned"),
            part("dense-ranked", 0, {"aligned": everyone(3), "ranked": everyone(1)}, "aligned_ranked"),
            part("prorec", 1, {"fused": everyone(2), "generative": everyone(0)}),
            part("bare", 1, {"generative": everyone(2)}),
        ],
        "prorec",
        sequences(),
        200,
    )
    variants = found["variants"]
    assert {name: about["scorer"] for name, about in variants.items()} == {
        "prorec": "fused",
        "bare": "generative",
        "counts": "item_to_item",
        "dense": "aligned",
        "dense-ranked": "ranked",
    }
    assert list(variants) == ["prorec", "bare", "counts", "dense", "dense-ranked"]
    assert [variants[name]["test"]["recall_at_1"]["mean"] for name in ("dense", "dense-ranked")] == [0, 1]
    assert list(variants["dense"]["scorers"]) == ["aligned"] and list(variants["dense-ranked"]["scorers"]) == ["ranked"]
    assert variants["prorec"]["test"]["mrr"] == {"mean": 0.75, "deviation": round(np.std([1, 0.5], ddof=1), 6)}
    assert variants["bare"]["test"]["mrr"] == {"mean": 0.5, "deviation": 0.0}
    assert variants["counts"]["test"]["recall_at_5"] == {"mean": 1.0, "deviation": None}
    assert variants["prorec"]["by_seed"]["recall_at_1"] == [1.0, 0.0]
    assert found["seeds"] == [0, 1]
    assert set(variants["prorec"]["scorers"]) == {"fused", "generative"}
    assert set(variants["counts"]["scorers"]) == {"item_to_item"}


def test_the_difference_is_over_the_seeds_that_both_have():
    found = compare_variants(
        [
            part("prorec", 0, {"fused": everyone(1)}),
            part("prorec", 1, {"fused": everyone(0)}),
            part("other", 0, {"fused": everyone(2)}),
        ],
        "prorec",
        sequences(),
        200,
    )
    against = found["variants"]["other"]["against"]["ndcg_at_10"]
    lost = round(1 / np.log2(3) - 1, 6)
    assert against == {"difference": lost, "low": lost, "high": lost, "seeds": 1, "seeds_above": 0}
    assert found["variants"]["prorec"]["against"] == {}
    for groups in found["slices"].values():
        assert all(group["against"] == {} for group in groups), (
            "over other seeds a group tells seeds apart, not variants"
        )


def test_with_one_seed_the_interval_is_that_of_two_rankings():
    random = np.random.default_rng(1)
    first, second = random.integers(0, 13, USERS), random.integers(0, 13, USERS)
    found = compare_variants(
        [part("prorec", 0, {"fused": first}), part("other", 0, {"fused": second})], "prorec", sequences(), 300, 7
    )
    expected = compare(second.astype(np.int32), first.astype(np.int32), 300, 7)
    for metric, numbers in expected.items():
        assert numbers.items() <= found["variants"]["other"]["against"][metric].items()


def test_the_unit_is_the_user_averaged_over_seeds():
    """Seeds that contradict each other user by user leave no difference, and so none to resample."""
    ranks = np.where(np.arange(USERS) % 2, 1, 0)
    parts = [part("prorec", seed, {"fused": everyone(0)}) for seed in (0, 1)]
    opposite = [part("other", 0, {"fused": ranks}), part("other", 1, {"fused": 1 - ranks})]
    against = compare_variants([*parts, *opposite], "prorec", sequences())["variants"]["other"]["against"]
    assert against["recall_at_10"] == {"difference": 0.5, "low": 0.5, "high": 0.5, "seeds": 2, "seeds_above": 2}


def test_each_scorer_is_held_against_the_same_scorer():
    found = compare_variants(
        [
            part("prorec", 0, {"fused": everyone(1), "generative": everyone(3), "popularity": everyone(9)}),
            part("other", 0, {"generative": everyone(1), "popularity": everyone(9)}),
        ],
        "prorec",
        sequences(),
    )
    scorers = found["variants"]["other"]["scorers"]
    assert set(scorers) == {"generative"}, "popularity is a variant of its own"
    assert scorers["generative"]["against"]["ndcg_at_10"]["difference"] == 0.5
    assert found["variants"]["other"]["against"]["ndcg_at_10"]["difference"] == 0.0


def test_groups_of_users_add_up_over_seeds():
    data, random = sequences(), np.random.default_rng(3)
    parts = [part("prorec", seed, {"fused": random.integers(0, 13, USERS)}) for seed in range(3)]
    found = compare_variants(parts, "prorec", data)
    whole = np.mean([values_by_user("recall_at_10", each.ranks["fused"]).mean() for each in parts])
    for kind in ("target_popularity", "history_length"):
        groups = found["slices"][kind]
        assert sum(group["users"] for group in groups) == USERS
        assert sum(group["users"] * group["recall"]["prorec"] for group in groups) / USERS == pytest.approx(whole)
    without = [group for group in found["slices"]["target_popularity"] if group["group"] == "not in training"]
    never = (data.train_counts() == 0)[data.targets(Split.TEST)].sum()
    assert sum(group["users"] for group in without) == never


def test_groups_say_for_whom_a_variant_is_better():
    data = sequences()
    rare = data.train_counts()[data.targets(Split.TEST)] <= np.median(data.train_counts()[data.targets(Split.TEST)])
    parts = [
        part(name, seed, {"fused": np.where(rare & (name == "other"), 1, 0).astype(np.int32)})
        for name in ("prorec", "other")
        for seed in range(2)
    ]
    found = compare_variants(parts, "prorec", data)
    for group in found["slices"]["target_popularity"]:
        assert set(group["against"]) == {"other"}
        assert group["against"]["other"]["difference"] == pytest.approx(group["recall"]["other"], abs=1e-6)
    tail, head = found["slices"]["target_popularity"][-1], found["slices"]["target_popularity"][0]
    assert tail["against"]["other"]["low"] > 0 == head["against"]["other"]["high"]
    assert not compare_variants(parts[:2], "prorec", data)["slices"]["target_popularity"][0]["against"]


def test_own_seconds_are_those_that_nothing_before_needed_with_that_seed():
    def timed(variant, seed, seconds):
        return part(variant, seed, {"fused": everyone(1)}, seconds=seconds)

    measured = [
        timed("a", 0, {"data": 1.0, "a0": 10.0}),
        timed("b", 0, {"data": 1.0, "b0": 5.0}),
        timed("a", 1, {"data": 1.0, "a1": 20.0}),
    ]
    assert own_seconds(measured) == {("a", 0): 11.0, ("b", 0): 5.0, ("a", 1): 21.0}
    cost = compare_variants(measured, "a", sequences())["variants"]
    assert cost["a"]["cost"] == {"seconds": 16.0, "own_seconds": 16.0, "parameters": 5.0}
    assert cost["b"]["cost"]["seconds"] == 6.0 and cost["b"]["cost"]["own_seconds"] == 5.0
    apart = replace(
        measured[0],
        metrics={**measured[0].metrics, "protocol": {**measured[0].metrics["protocol"], "trained_on_validation": True}},
    )
    shown = compare_variants([apart, measured[1]], "b", sequences())
    assert shown["order"] == ["b", "a"], "in the table's order"
    own = {name: about["cost"]["own_seconds"] for name, about in shown["variants"].items()}
    assert own == {"b": 6.0, "a": 10.0}


def test_domination_is_that_of_the_embedding_that_is_quantized():
    rows = {"integrated": {"text_share": 0.6}, "naive_concatenation": {"text_share": 0.9}}
    known = {**rows, "sources": {"overlap": 0.25, "cka": 0.4}}
    assert quantized_domination(known, "integrated") == {"text_share": 0.6}
    assert quantized_domination(known, "concatenation") == {"text_share": 0.9}
    text = quantized_domination(known, "semantic")
    assert text["overlap_semantic"] == 1.0 and text["overlap_collaborative"] == 0.25 and text["text_share"] == 0.8
    behaviour = quantized_domination(known, "collaborative")
    assert behaviour["cka_collaborative"] == 1.0 and behaviour["cka_semantic"] == 0.4
    assert behaviour["text_share"] == 0.2


def test_without_the_reference_nothing_is_held_against_it():
    found = compare_variants([part("other", 0, {"fused": everyone(1)})], "prorec", sequences())
    assert found["variants"]["other"]["against"] == {}
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_variants([], "prorec", sequences())
    with pytest.raises(ValueError, match="not those of 40 targets"):
        compare_variants([part("other", 0, {"fused": np.ones(3)})], "prorec", sequences())


def test_what_was_not_applied_is_told_once():
    parts = [part("prorec", seed, {"fused": everyone(1)}, not_applied=["a", "b"][: seed + 1]) for seed in (0, 1)]
    assert compare_variants(parts, "prorec", sequences(), 10)["variants"]["prorec"]["not_applied"] == ["a", "b"]


def test_what_trained_on_the_validation_items_stands_apart():
    def more(name, seed, ranks):
        each = part(name, seed, ranks)
        protocol = {**each.metrics["protocol"], "trained_on_validation": True}
        return replace(each, metrics={**each.metrics, "protocol": protocol})

    plain = [part("prorec", 0, {"fused": everyone(2)}), part("other", 0, {"fused": everyone(3)})]
    apart = [more("more", 0, {"fused": everyone(1)}), more("most", 0, {"fused": everyone(1)})]
    found = compare_variants([apart[0], *plain, apart[1]], "prorec", sequences(), 100)
    assert found["order"] == ["prorec", "other", "more", "most"]
    variants = found["variants"]
    assert [name for name, about in variants.items() if about["apart"]] == ["more", "most"]
    assert variants["more"]["against"] == variants["more"]["validation"] == {}
    assert variants["more"]["scorers"]["fused"]["against"] == {}
    assert variants["more"]["test"]["recall_at_1"]["mean"] == 1
    assert variants["other"]["against"]["ndcg_at_10"]["difference"] < 0
    assert "trained_on_validation" not in found["protocol"]
    among = compare_variants([*plain, *apart], "more", sequences(), 100)["variants"]
    assert among["most"]["against"]["ndcg_at_10"]["difference"] == 0 and among["prorec"]["against"] == {}


def with_new(variant, seed, fused, new, generative=None):
    """A variant that was measured on six users of new items, too; ranks of these by scorer."""
    new = {"fused": new, **({} if generative is None else {"generative": generative})}
    ranks = {name: np.asarray(values, np.int32) for name, values in new.items()}
    each = part(variant, seed, dict.fromkeys(new, fused), new_item_ranks=ranks)
    recall = {name: rank_metrics(values, 10) for name, values in ranks.items()}
    about = {"items": 3, "interactions": 6, "share_of_catalogue": 0.2, "bonus": 0.0, "new": recall}
    about |= {"known": {name: rank_metrics(fused, 10) for name in new}, "share_at_10": dict.fromkeys(new, 0.1)}
    return replace(each, metrics={**each.metrics, "new_items": about})


def test_new_items_are_compared_over_the_users_who_took_one():
    found = compare_variants(
        [
            with_new("prorec", 0, everyone(1), [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]),
            with_new("prorec", 1, everyone(1), [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]),
            with_new("blind", 0, everyone(2), [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
            with_new("blind", 1, everyone(2), [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
            part("counts", 0, {"item_to_item": everyone(5)}, "item_to_item"),
        ],
        "prorec",
        sequences(),
        500,
    )
    assert found["new_items"] == {"items": 3, "interactions": 6, "share_of_catalogue": 0.2, "bonus": 0.0}
    whole, blind = (found["variants"][name]["new_items"] for name in ("prorec", "blind"))
    assert whole["fused"]["new"]["recall_at_10"]["mean"] == pytest.approx(3.5 / 6, abs=1e-6)
    assert whole["fused"]["known"]["recall_at_10"] == {"mean": 1.0, "deviation": 0.0}
    assert whole["fused"]["against"] == {} and whole["fused"]["share_at_10"] == 0.1
    lost = blind["fused"]["against"]["recall_at_10"]
    assert lost["difference"] == pytest.approx(-3.5 / 6, abs=1e-6) and lost["low"] < lost["high"] < 0
    assert blind["generative"]["against"]["recall_at_10"]["difference"] == pytest.approx(-1 / 6, abs=1e-6)
    assert found["variants"]["counts"]["new_items"] == {}
    assert compare_variants([part("prorec", 0, {"fused": everyone(1)})], "prorec", sequences())["new_items"] == {}


def test_one_scorer_alone_is_held_against_what_stands_for_the_reference():
    stage_one = with_new("aligned", 0, everyone(1), [1, 1, 0, 0, 0, 0])
    renamed = {"scorer": "aligned", "ranks": {"aligned": stage_one.ranks["fused"]}}
    renamed["new_item_ranks"] = {"aligned": stage_one.new_item_ranks["fused"]}
    about = {
        part: {"aligned": found["fused"]}
        for part, found in stage_one.metrics["new_items"].items()
        if part in {"new", "known", "share_at_10"}
    }
    metrics = {**stage_one.metrics, "test": {"aligned": stage_one.metrics["test"]["fused"]}}
    metrics |= {"validation": metrics["test"], "new_items": {**stage_one.metrics["new_items"], **about}}
    found = compare_variants(
        [with_new("prorec", 0, everyone(1), [1, 1, 1, 0, 0, 0]), replace(stage_one, **renamed, metrics=metrics)],
        "prorec",
        sequences(),
    )
    against = found["variants"]["aligned"]["new_items"]["aligned"]["against"]["recall_at_10"]
    assert against["difference"] == pytest.approx(-1 / 6, abs=1e-6)


def test_where_seeds_recommend_by_other_scorers_the_better_on_validation_stands_for_all():
    seeds = [part("prorec", seed, {"fused": everyone(2), "generative": everyone(1)}) for seed in (0, 1)]
    other = {**seeds[1].metrics, "recommended": "generative"}
    mixed = [seeds[0], replace(seeds[1], metrics=other)]
    for parts in (mixed, mixed[::-1]):
        assert compare_variants(parts, "prorec", sequences())["variants"]["prorec"]["scorer"] == "generative"
    assert compare_variants(seeds, "prorec", sequences())["variants"]["prorec"]["scorer"] == "fused"


def test_without_a_ranker_a_variant_stands_on_its_own_lists():
    parts = [
        part("prorec", 0, {"fused": everyone(2), "ranked": everyone(1)}),
        part("prorec", 1, {"fused": everyone(2)}),
        part("knn", 0, {"item_knn": everyone(3)}, "item_knn_ranked"),
    ]
    ranked = {**parts[0].metrics, "recommended": "ranked"}
    found = compare_variants([replace(parts[0], metrics=ranked), *parts[1:]], "prorec", sequences(), 100)["variants"]
    assert (found["prorec"]["scorer"], found["knn"]["scorer"]) == ("fused", "item_knn")
    assert "no ranker could be fitted" in found["knn"]["remarks"][0] and not found["prorec"]["remarks"]


def test_the_protocol_is_what_all_have_in_common():
    few = part("few", 0, {"fused": everyone(1)})
    few = replace(few, metrics={**few.metrics, "protocol": {**few.metrics["protocol"], "beams": 3}})
    parts = [part("prorec", 0, {"fused": everyone(1)}), few]
    for order in (parts, parts[::-1]):
        protocol = compare_variants(order, "prorec", sequences(), 100)["protocol"]
        assert "beams" not in protocol and protocol["items"] == ITEMS
    memory = {**few.metrics, "protocol": {**few.metrics["protocol"], "trained_on_validation": True}}
    apart = replace(few, metrics=memory)
    assert compare_variants([apart], "few", sequences(), 100)["protocol"]["trained_on_validation"] is True
    assert "trained_on_validation" not in compare_variants([parts[0], apart], "few", sequences(), 100)["protocol"]


@pytest.mark.parametrize("masked", [True, False])
def test_what_a_user_took_is_marked_where_none_of_it_may_be_recommended(masked):
    taken = part("often-taken", 0, {"often_taken": everyone(1)})
    metrics = {**taken.metrics, "recommended": "often_taken", "protocol": {"history_masked": masked}}
    parts = [part("prorec", 0, {"fused": everyone(1)}), replace(taken, metrics=metrics)]
    found = compare_variants(parts, "prorec", sequences(), 100)["variants"]
    assert found["often-taken"]["marks"] == ([NOTHING_LEFT] if masked else []) and not found["prorec"]["marks"]


def test_what_was_trained_elsewhere_is_marked():
    usual, other = frozenset({"cpu, bfloat16"}), frozenset({"cpu, float32"})
    parts = [replace(part("prorec", seed, {"fused": everyone(1)}), made_with=usual) for seed in (0, 1)]
    parts.append(replace(part("else", 0, {"fused": everyone(1)}), made_with=other))
    found = compare_variants(parts, "prorec", sequences(), 100)
    assert {name: about["marks"] for name, about in found["variants"].items()} == {"prorec": [], "else": [MIXED]}
    assert list(marks_of(found)) == [MIXED] and marked("else", found["variants"]["else"]) == f"else {MIXED}"
    assert marks_of(compare_variants(parts[:2], "prorec", sequences(), 100)) == {}


def test_lists_of_another_program_have_no_cost_and_their_seeds_beside_what_differs():
    parts = [part("theirs", seed, {"given": everyone(1 + seed)}, "given") for seed in range(2)]
    for each, remarks in zip(parts, (["a"], ["a", "b"]), strict=True):
        each.metrics["remarks"] = remarks
    # One seed's lists end before the twentieth item.
    del parts[1].metrics["test"]["given"]["mrr"]
    found = compare_variants([*parts, part("ours", 0, {"popularity": everyone(1)}, "popularity")], "ours", sequences())
    theirs = found["variants"]["theirs"]
    assert theirs["cost"] == {} and found["variants"]["ours"]["cost"]["parameters"] == 5
    assert theirs["remarks"] == ["a", "seed 1: b"]
    assert "mrr" not in theirs["test"] and theirs["test"]["recall_at_10"] == {"mean": 1.0, "deviation": 0.0}
