"""The page that a comparison leaves: whole, safe, and in need of nothing else, with one variant and with many."""

import re
from dataclasses import replace

import numpy as np
import pytest

from prorec_core.data.sequences import from_lists
from prorec_core.evaluation.variants import Measured, compare_variants
from prorec_core.metrics.measuring import rank_metrics
from prorec_core.metrics.scorers import GENERATOR
from prorec_core.reports.comparison.page import _table, new_item_rows, plot_files, render, table_markdown
from tests.html_page import Page

USERS, ITEMS = 60, 20
EVIL = "<script>alert('x')</script> | {{ 7 * 7 }}"
QUALITY = {
    "levels": [
        {"codes": 8, "used_share": 0.5, "entropy": 1.5, "perplexity": 4.5, "suffix": False},
        {"codes": 3, "used_share": 1.0, "entropy": 0.1, "perplexity": 1.1, "suffix": True},
    ],
    "collisions": {"before": {"share": 0.1, "tuples": 18, "largest_group": 2}},
    "relative_error": 0.3,
}
DOMINATION = {
    "overlap_semantic": 0.5,
    "overlap_collaborative": 0.3,
    "cka_semantic": 0.4,
    "cka_collaborative": 0.2,
    "text_share": 0.625,
}


def comparison(variants, seeds=(0, 1), failed=(), apart=(), new=()):
    random = np.random.default_rng(0)
    protocol = {
        "items": ITEMS,
        "test_users": USERS,
        "validation_users": USERS,
        "history_masked": False,
        "list_length": 20,
        "beams": 10,
        "ties": "input",
        "ties_seed": 0,
    }
    measured = []
    for seed in seeds:
        for place, name in enumerate(variants):
            ranks = random.integers(0, 20, USERS).astype(np.int32)
            metrics = {split: {"fused": rank_metrics(ranks, 20)} for split in ("test", "validation")}
            metrics["recommended"] = "fused"
            measured.append(
                Measured(
                    name,
                    seed,
                    GENERATOR,
                    {"protocol": {**protocol, "seed": seed, "trained_on_validation": name in apart}, **metrics},
                    {"fused": ranks},
                    {f"{name}{seed}": 5.0 * place},
                    1000 * place,
                    QUALITY if place % 2 else {},
                    DOMINATION if place % 2 else {},
                    {"run_id": f"{name}{seed}", "page": f"http://127.0.0.1:5000/#/{name}" if place else None},
                    new_item_ranks={"fused": ranks[:9]} if name in new else {},
                )
            )
            if name in new:
                recall = {"fused": rank_metrics(ranks[:9], 10)}
                about = {"items": 3, "interactions": 9, "share_of_catalogue": 0.15, "bonus": 0.0}
                metrics["new_items"] = {**about, "new": recall, "known": recall, "share_at_10": {"fused": 0.123}}
                measured[-1] = replace(measured[-1], metrics={**measured[-1].metrics, **metrics})
    lists = [random.permutation(ITEMS)[: random.integers(4, 12)].astype(np.int32) for _ in range(USERS)]
    found = compare_variants(measured, "prorec", from_lists(lists, ITEMS), 100)
    for name in found["variants"]:
        found["variants"][name] |= {"about": EVIL, "set": {"align.alpha": 0, "generator.node_scores": False}}
    return {**found, "failed": list(failed)}


@pytest.mark.parametrize("count", [1, 2, 13])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_page_is_whole_safe_and_needs_nothing_else(count, seeds):
    names = ["prorec", *(f"variant-{number}" for number in range(1, count))]
    text = render(comparison(names, seeds), "shop", {"name": "shop"})
    page = Page(text)
    assert not page.open and "script" not in {tag for tag, _ in page.tags}
    assert "&lt;script&gt;" in text and "{{ 7 * 7 }}" in text
    inside = [link for link in page.links if link.startswith("#")]
    assert all(link[1:] in page.ids for link in inside) and len(page.ids) == len(set(page.ids))
    assert all(link.startswith("http://127.0.0.1:5000/#/variant-") for link in set(page.links) - set(inside))
    assert not re.search(r"url\((?!#)|@import", text)
    assert all(f">{name}</th>" in text for name in names)
    assert text.count("history not masked") >= 3 and f"seed {', '.join(map(str, seeds))}" in text
    assert ("One seed alone" in text) is (len(seeds) == 1)
    assert ("standard deviation between seeds" in text) is (len(seeds) > 1)


def test_equal_findings_give_equal_bytes_and_every_plot_is_a_file():
    found = comparison(["prorec", "other"])
    assert render(found, "shop", {}) == render(found, "shop", {})
    plots = plot_files(found)
    assert plots == plot_files(found)
    assert {"values.png", "generators.png", "target_popularity.png", "cost.png", "domination.png"} <= set(plots)
    assert all(content.startswith(b"\x89PNG") for content in plots.values())


@pytest.mark.usefixtures("undrawn")
def test_what_failed_is_told_first():
    failed = [{"variant": "other", "seed": 3, "stage": "align", "reason": EVIL}]
    found = comparison(["prorec"], failed=failed)
    text = render(found, "shop", {})
    assert "in align: &lt;script&gt;" in text and text.index("Failed:") < text.index("Results</h2>")
    assert "Failed: other, seed 3, in align" in table_markdown(found)
    # A process may die before it comes to a stage.
    early = comparison(["prorec"], failed=[{**failed[0], "stage": ""}])
    assert "Failed: other, seed 3: " in table_markdown(early)
    assert "other, seed 3: &lt;script&gt;" in render(early, "shop", {})


def test_markdown_says_what_stands_in_the_table():
    found = comparison(["prorec", "other"])
    lines = table_markdown(found).splitlines()
    row = next(line for line in lines if line.startswith("| other"))
    about = found["variants"]["other"]
    assert f"{about['test']['ndcg_at_10']['mean']:.4f} ± {about['test']['ndcg_at_10']['deviation']:.4f}" in row
    assert f"{abs(about['against']['ndcg_at_10']['low']):.4f}" in row
    assert "[0](http://127.0.0.1:5000/#/other), [1](http" in row
    assert next(line for line in lines if line.startswith("| prorec")).endswith("|  |")


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_applied_is_remarked_on():
    found = comparison(["prorec", "semantic", "collaborative"])
    variants = found["variants"]
    assert all(about["not_applied"] == [] for about in variants.values())
    assert "Not applied" not in render(found, "shop", {})
    for name in ("semantic", "collaborative"):
        variants[name]["not_applied"] = ["warm_start (no ground)"]
    told = "Not applied in semantic, collaborative: warm_start (no ground); from prorec they differ in this too."
    assert told in render(found, "shop", {})
    variants["prorec"]["not_applied"] = ["warm_start (no ground)"]
    assert "Not applied in prorec, semantic, collaborative: warm_start (no ground)." in render(found, "shop", {})


def test_what_trained_on_the_validation_items_is_marked_and_best_of_nothing():
    found = comparison(["more", "prorec", "other"], apart=["more"])
    page, table = render(found, "test", {}), table_markdown(found)
    rows = [line for line in table.splitlines() if line.startswith(("| more", "| prorec", "| other", "| ["))]
    assert [("†" in row) for row in rows] == [False, False, True]
    assert "† Trained on the validation items too" in table and "† Trained on the validation items too" in page
    test, validation = (_table(found, split)["rows"] for split in ("test", "validation"))
    assert [name for name, _ in test] == ["prorec", "other", "more"]
    assert not any(best for _, _, best in test[-1][1]) and any(best for _, cells in test for _, _, best in cells)
    assert {text for text, _, _ in validation[-1][1]} == {"–"}
    assert "†" not in table_markdown(comparison(["prorec", "other"]))


def test_new_items_have_a_section_where_some_were_held_out():
    found = comparison(["prorec", "other", "counts"], new=["prorec", "other"])
    page, table = render(found, "shop", {}), table_markdown(found)
    Page(page)
    for text in (page, table):
        assert "3 new items, 15.0% of the catalogue" in text and "12.3%" in text and "new, Recall@10 − prorec" in text
    about = found["variants"]["other"]["new_items"]["fused"]
    row = next(line for line in table.splitlines() if line.startswith("| other | fused"))
    assert f"{about['new']['recall_at_10']['mean']:.4f} ± " in row
    assert f"{abs(about['against']['recall_at_10']['low']):.4f}" in row
    assert 'href="#new-items"' in page and "new_items.png" in plot_files(found)
    assert [row[0] for row in new_item_rows(found)[1:]] == ["prorec", "other"]
    plain = comparison(["prorec", "other"])
    assert new_item_rows(plain) == [] and "new_items.png" not in plot_files(plain)
    assert "New items" not in render(plain, "shop", {}) and "new items" not in table_markdown(plain)


def test_seeds_that_a_variant_lacks_are_told():
    found = comparison(["full", "other"])
    assert "Not every variant" not in table_markdown(found) + render(found, "shop", {"name": "shop"})
    found["variants"]["other"]["seeds"] = [1]
    for text in (table_markdown(found), render(found, "shop", {"name": "shop"})):
        assert "Not every variant has every seed (other seed 1 alone)" in text
