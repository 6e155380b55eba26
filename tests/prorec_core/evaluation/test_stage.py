"""The whole stage on a small shop whose right answers are known, and the page that it leaves."""

import html
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import NewItems
from prorec_core.data.seen import Seen, leaving_out
from prorec_core.data.sequences import Split, from_lists
from prorec_core.evaluation.measured import Evaluation
from prorec_core.evaluation.new_items import NewItemLists, new_item_histories
from prorec_core.evaluation.stage import EvaluationInputs, evaluate
from prorec_core.metrics.measuring import rank_metrics
from prorec_core.metrics.top import TopItems
from prorec_core.reports.background import Background
from prorec_core.reports.drawing import as_png, as_svg
from prorec_core.reports.evaluation import _figures, _profile, plot_files, render
from prorec_core.reports.examples import choose_users, examples
from prorec_core.reports.plots import curves_by_k
from prorec_core.reports.tables import chosen_settings, new_item_rows, result_markdown
from prorec_core.text.semantic import SemanticSource
from tests.data_sets import data_set
from tests.html_page import Page

USERS, ITEMS, LENGTH = 60, 30, 12
EVIL = "<script>alert('x')</script> & \"Sons\" {{ 7 * 7 }} $x_1$"


def make_dataset():
    random = np.random.default_rng(0)
    lists = [random.permutation(ITEMS)[: random.integers(3, 12)].astype(np.int32) for _ in range(USERS)]
    return data_set(
        lists,
        ITEMS,
        texts=[EVIL if item % 3 == 0 else f"Item number {item}" for item in range(ITEMS)],
        user_ids=[f"<b>u{user}</b>" for user in range(USERS)],
        profile={
            "source": "demo",
            "demo": {"best_recall_at_10": 0.5, "best_ndcg_at_10": 0.3, "users": USERS},
            "filters": [
                {
                    "filter": "k_core",
                    "setting": "data.min_user_interactions",
                    "before": {"users": 99, "items": 50, "interactions": 1234},
                    "after": {"users": USERS, "items": ITEMS, "interactions": sum(map(len, lists))},
                }
            ],
            "ties": {"order": "shuffle", "seed": 5, "share": 0.0},
        },
    )


def lists_with_target_at(dataset, split, rank):
    """Lists of every user that hold the target at `rank` (0: not at all)."""
    targets = dataset.sequences.targets(split)
    items = np.stack([np.setdiff1d(np.arange(ITEMS), [target])[:LENGTH] for target in targets]).astype(np.int32)
    if rank:
        items[:, rank - 1] = targets
    scores = np.tile(-np.arange(LENGTH, dtype=np.float32), (USERS, 1))
    return TopItems(items, scores)


@pytest.fixture(scope="module")
def inputs():
    dataset = make_dataset()
    ranks = {"generative": 2, "dense": 0, "fused": 1, "aligned": 11}
    return EvaluationInputs(
        config=EvaluateConfig(list_length=LENGTH, examples=4, bootstrap_samples=100),
        dataset=dataset,
        lists={
            split: {scorer: lists_with_target_at(dataset, split, rank) for scorer, rank in ranks.items()}
            for split in (Split.VALIDATION, Split.TEST)
        },
        fusion_weight=8.0,
        recommended="fused",
        seed=1,
        fusion_trials=[(0.0, 0.1), (8.0, 0.2)],
    )


@pytest.fixture(scope="module")
def evaluation(inputs):
    return evaluate(inputs)


@pytest.fixture(scope="module")
def background(inputs):
    usage = np.bincount(np.arange(ITEMS) % 5, minlength=8)
    level = {"codes": 8, "used": 5, "perplexity": 5.0, "largest_group": 6, "usage": usage.tolist()}
    row = {
        "overlap_semantic": 0.2,
        "overlap_collaborative": 0.3,
        "cka_semantic": 0.4,
        "cka_collaborative": 0.5,
        "text_share": 0.4,
    }
    return Background(
        config=inputs.config,
        dataset=inputs.dataset,
        seed=1,
        name="small",
        training={"align": [{"epoch": 1, "loss": 2.0, "validation_ndcg_at_10": 0.1}], "train_generator": []},
        quality={
            "method": "residual_kmeans",
            "levels": [{**level, "relative_error": 0.5}, {**level, "suffix": True}],
            "collisions": {"handling": "suffix", "before": {"items": 3, "share": 0.1}, "after": {"items": 0}},
        },
        codes=np.arange(2 * ITEMS, dtype=np.uint16).reshape(ITEMS, 2),
        domination={"integrated": row, "naive_concatenation": row, "neighbours": 10},
        experiment={"name": "small", "data": {"path": "<here>"}},
    )


@pytest.fixture(scope="module")
def page(background):
    """The report of an evaluation, of another background where fields are given."""
    return lambda found, **fields: render(replace(background, **fields), found)


def test_metrics_of_planted_ranks(evaluation):
    test = evaluation.metrics["test"]
    assert list(test) == ["fused", "generative", "dense", "aligned", "popularity"]
    assert test["fused"]["recall_at_1"] == test["fused"]["mrr"] == 1.0
    assert test["generative"]["mrr"] == 0.5
    assert test["generative"]["ndcg_at_10"] == pytest.approx(1 / np.log2(3), abs=1e-6)
    assert test["aligned"]["recall_at_10"] == test["dense"]["recall_at_10"] == 0.0
    assert test["aligned"]["mrr"] == pytest.approx(1 / 11, abs=1e-6)
    assert "recall_at_20" not in test["fused"], "lists of 12 items say nothing about 20"
    assert evaluation.metrics["validation"]["fused"]["recall_at_1"] == 1.0
    assert not any("@" in name for found in test.values() for name in found)
    difference = evaluation.metrics["comparisons"]["fused_minus_dense"]["recall_at_10"]
    assert difference == {"difference": 1.0, "low": 1.0, "high": 1.0}


def test_a_search_of_few_beams_says_nothing_beyond_them(inputs, page):
    """Its lists end where the beams do: what they lack is not known to be missed. Others go on."""
    n_items, beams = 60, 10
    dataset = data_set([np.roll(np.arange(n_items, dtype=np.int32), user)[:4] for user in range(9)], n_items)
    whole = TopItems(
        np.tile(np.arange(n_items, dtype=np.int32), (9, 1)), np.tile(-np.arange(n_items, dtype=np.float32), (9, 1))
    )
    short = TopItems(np.where(np.arange(n_items) < beams, whole.items_UK, -1), whole.scores_UK)
    lists = {split: {"generative": short, "dense": whole} for split in (Split.VALIDATION, Split.TEST)}
    config = EvaluateConfig(bootstrap_samples=100, mask_history=False, beams=beams)
    found = evaluate(EvaluationInputs(config=config, dataset=dataset, lists=lists, fusion_weight=None))
    test = found.metrics["test"]
    assert "recall_at_10" in test["generative"] and "mrr" in test["generative"]
    assert not {"recall_at_20", "ndcg_at_20", "recall_at_50"} & test["generative"].keys()
    assert "recall_at_50" in test["dense"]
    assert render(Background(config, dataset), found)


def test_a_catalogue_of_fewer_than_ten_items_is_measured_and_shown():
    """Its lists hold all of it, so that the first ten are known."""
    n_items = 6
    histories = [np.roll(np.arange(n_items, dtype=np.int32), user)[:4] for user in range(9)]
    dataset = data_set(histories, n_items, profile={"source": "tables"})
    lists = TopItems(
        np.tile(np.arange(n_items, dtype=np.int32), (9, 1)), np.tile(-np.arange(n_items, dtype=np.float32), (9, 1))
    )
    inputs = EvaluationInputs(
        config=EvaluateConfig(bootstrap_samples=100, mask_history=False),
        dataset=dataset,
        lists={split: {"generative": lists} for split in (Split.VALIDATION, Split.TEST)},
        fusion_weight=None,
    )
    found = evaluate(inputs)
    assert found.metrics["test"]["generative"]["recall_at_10"] == 1.0
    assert "recall_at_20" not in found.metrics["test"]["generative"]
    assert render(Background(inputs.config, dataset), found)


def test_protocol_is_declared(evaluation):
    protocol = evaluation.metrics["protocol"]
    assert protocol["history_masked"] is True
    assert (protocol["ties"], protocol["ties_seed"], protocol["seed"]) == ("shuffle", 5, 1)
    assert (protocol["list_length"], protocol["test_users"], protocol["items"]) == (LENGTH, USERS, ITEMS)
    assert evaluation.metrics["reference"] == {"best": {"recall_at_10": 0.5, "ndcg_at_10": 0.3}}


@pytest.mark.usefixtures("undrawn")
def test_targets_that_were_left_out_are_measured_of_nobody_and_told(inputs, page):
    seen = {Split.TEST: Seen(np.arange(USERS) < 2, "x/1 was trained on 2 of the 60 test items")}
    lists = {
        scorer: TopItems(found.items_UK[2:], found.scores_UK[2:]) for scorer, found in inputs.lists[Split.TEST].items()
    }
    found = evaluate(
        replace(inputs, dataset=leaving_out(inputs.dataset, seen), lists={**inputs.lists, Split.TEST: lists})
    )
    protocol = found.metrics["protocol"]
    assert (protocol["test_users"], protocol["validation_users"]) == (USERS - 2, USERS)
    assert protocol["left_out"] == {"validation": 0, "test": 2} and found.metrics["reference"] == {}
    assert found.ranks.filter(pc.equal(found.ranks["split"], "test"))["user"].to_pylist() == [*range(2, USERS)]
    line = f"{USERS - 2} test users · 2 more left out, on which an earlier version was trained · seed 1"
    text = html.unescape(page(found))
    assert line in text and line in result_markdown(found.metrics) and f"{USERS} validation users · seed 1" in text
    assert "left out of what is chosen by and measured: x/1 was trained on 2 of the 60 test items" in text


def test_stage_one_is_compared_once_where_it_is_the_dense_score_too(inputs, evaluation):
    same = {split: {**lists, "dense": lists["aligned"]} for split, lists in inputs.lists.items()}
    assert "fused_minus_dense" in evaluation.metrics["comparisons"]
    found = evaluate(replace(inputs, lists=same)).metrics["comparisons"]
    assert set(found) == {"fused_minus_generative", "fused_minus_aligned", "generative_minus_aligned"}


@pytest.mark.usefixtures("undrawn")
def test_training_on_the_validation_items_is_said_everywhere(inputs, evaluation, page):
    more = replace(inputs.dataset, sequences=inputs.dataset.sequences.with_validation_in_training())
    found = evaluate(replace(inputs, dataset=more))
    assert found.metrics["protocol"]["trained_on_validation"] is True
    assert evaluation.metrics["protocol"]["trained_on_validation"] is False
    assert "Trained on the validation items too" in page(found)
    assert "trained on the validation items too" in result_markdown(found.metrics)
    assert "rained on the validation" not in page(evaluation) + result_markdown(evaluation.metrics)
    counted = [each.metrics["test"]["popularity"]["popularity_at_10"] for each in (found, evaluation)]
    assert counted[0] > counted[1], "popularity counts them too"


@pytest.mark.usefixtures("undrawn")
def test_unmasked_history_and_a_fusion_weight_within_its_grid(inputs, evaluation, page):
    found = evaluate(
        replace(
            inputs,
            config=inputs.config.model_copy(update={"mask_history": False}),
            fusion_trials=[(0.0, 0.1), (8.0, 0.2), (9.0, 0.1)],
        )
    )
    masked, unmasked = evaluation.metrics["test"]["popularity"], found.metrics["test"]["popularity"]
    assert unmasked["distinct_items_at_10"] == 10
    assert masked["distinct_items_at_10"] > 10, "masked lists go further down for those who have the popular items"
    assert found.metrics["protocol"]["history_masked"] is False
    assert "history not masked" in page(found)
    assert "at the edge" in page(evaluation)
    assert "at the edge" not in page(found)
    nothing_fused = evaluate(replace(inputs, fusion_weight=0.0, fusion_trials=[(0.0, 0.3), (8.0, 0.1)]))
    assert nothing_fused.metrics["fusion_weight"] == 0 and "at the edge" not in page(nothing_fused)


def test_ranks_table_and_files(evaluation, inputs, tmp_path):
    assert evaluation.ranks.num_rows == 2 * USERS
    assert {str(field.type) for field in evaluation.ranks.schema if field.name != "split"} == {"int32"}
    evaluation.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.parquet", "metrics.json", "ranks.parquet"]
    assert Evaluation.load(tmp_path).lists == {}
    loaded = Evaluation.load(tmp_path, lists=True)
    assert loaded.metrics == evaluation.metrics
    assert loaded.ranks.equals(evaluation.ranks)
    assert list(loaded.lists) == list(evaluation.lists)
    for scorer, found in evaluation.lists.items():
        assert np.array_equal(loaded.lists[scorer].items_UK, found.items_UK)
        assert np.array_equal(loaded.lists[scorer].scores_UK, found.scores_UK)
    test = loaded.ranks.filter(pa.compute.equal(loaded.ranks["split"], "test"))
    again = rank_metrics(test["rank_generative"].to_numpy(), 10)
    assert again.items() <= loaded.metrics["test"]["generative"].items()
    assert test["target"].to_pylist() == inputs.dataset.sequences.targets(Split.TEST).tolist()


def test_same_inputs_give_the_same_bytes(inputs, evaluation, background, page):
    again = evaluate(inputs)
    assert page(again) == page(evaluation)
    assert again.metrics == evaluation.metrics
    plots = plot_files(background, evaluation)
    ranks = {"fused": np.arange(USERS, dtype=np.int32) % LENGTH}
    assert as_png(curves_by_k(ranks, LENGTH)) == as_png(curves_by_k(ranks, LENGTH))
    assert {"curves.png", "groups.png", "codes.png", "domination.png", "training.png"} <= set(plots)
    assert all(content.startswith(b"\x89PNG") for content in plots.values())


def test_page_is_whole_safe_and_needs_nothing_else(evaluation, page):
    text = page(evaluation)
    page = Page(text)
    assert not page.open
    assert "script" not in {tag for tag, _ in page.tags}
    assert "&lt;script&gt;" in text
    assert "<b>u" not in text
    assert "{{ 7 * 7 }}" in text, "titles are no templates"
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"url\((?!#)|@import", text)
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(pictures) >= 7
    assert all(picture["role"] == "img" and len(picture["aria-label"]) > 30 for picture in pictures)


def test_sources_of_the_text_embedding_are_shown_with_what_they_lack(evaluation, background, page):
    source = SemanticSource("picture", 32, "d", mean=[0.0] * 32, scale=1.0, missing="mean", items=ITEMS, without=3)
    text = SemanticSource("text", 384, "e", mean=[0.0], scale=1.0, items=ITEMS)
    row = background.domination["integrated"]
    by_source = {name: {"overlap": 0.1, "cka": 0.2, "share": 0.25} for name in ("text", "picture")}
    fields = {
        "sources": [text, replace(source, new_without=2, examples=["P1", "<P2>"])],
        "domination": {**background.domination, "integrated": {**row, "by_source": by_source}},
    }
    found = page(evaluation, **fields)
    assert "What items are described by" in found and f"3 of {ITEMS}, 2 new" in found and "P1, &lt;P2&gt;" in found
    assert "· picture" in found and "picture (25%)" in found, "in the table and in the plot"
    assert not Page(found).open
    assert "What items are described by" not in page(evaluation, sources=[replace(text, mean=None)])


def test_every_table_of_metrics_declares_the_protocol(evaluation, page):
    text = page(evaluation)
    for caption in re.findall(r"<table>\s*(.*?)<thead>", text, flags=re.DOTALL):
        if "leave-one-out" in caption:
            assert "history masked" in caption
            assert "shuffled with seed 5" in caption
    assert text.count("history masked") >= 6


def test_little_is_enough(inputs):
    lists = {split: {"generative": found["generative"]} for split, found in inputs.lists.items()}
    dataset = replace(inputs.dataset, profile={})
    found = evaluate(EvaluationInputs(inputs.config, dataset, lists, None))
    text = render(Background(inputs.config, dataset), found)
    assert set(found.metrics["test"]) == {"generative", "popularity"}
    assert found.metrics["comparisons"] == {}
    assert not Page(text).open
    assert not {"codes", "domination", "training", "configuration"} & set(Page(text).ids)


def test_lists_that_do_not_fit_are_refused(inputs):
    good = inputs.lists[Split.TEST]["fused"]
    for wrong in (
        TopItems(good.items_UK[1:], good.scores_UK[1:]),
        TopItems(good.items_UK[:, :5], good.scores_UK[:, :5]),
        TopItems(good.items_UK + ITEMS, good.scores_UK),
    ):
        lists = {split: {"fused": wrong} for split in inputs.lists}
        with pytest.raises(ValueError, match="fused"):
            evaluate(replace(inputs, lists=lists))


def test_examples_tell_history_target_and_hits(inputs, background, evaluation):
    shown = examples(background, evaluation)
    assert len(shown) == 4
    for example in shown:
        generative, fused = example["lists"]
        assert [entry["place"] for entry in generative["entries"] if entry["hit"]] == [2]
        assert [entry["place"] for entry in fused["entries"] if entry["hit"]] == [1]
        assert fused["entries"][0]["item_id"] == example["target"]["item_id"]
        user = inputs.dataset.users["user_id"].to_list().index(example["user_id"])
        history = [f"i{item}" for item in inputs.dataset.sequences.histories(Split.TEST).of_user(user)]
        assert [entry["item_id"] for entry in example["history"]] == history[example["earlier"] :]


@given(st.lists(st.sampled_from([0, 1, 5, 6]), max_size=30), st.integers(1, 12), st.integers(0, 99))
def test_users_shown_are_distinct_and_mostly_hits(ranks, count, seed):
    ranks = np.array(ranks, np.int32)
    users = choose_users(ranks, count, seed)
    assert len(users) == len(set(users.tolist())) == min(count, len(ranks))
    hits, hits_there = int(np.isin(ranks[users], [1, 5]).sum()), int(np.isin(ranks, [1, 5]).sum())
    assert hits >= min(hits_there, int(np.ceil(0.6 * count)))


def with_new_items(inputs, found):
    """Four new items, one taken last by each of the first five users; `found` is the rank that lists have it at."""
    titles = [f"New {item}" for item in range(4)]
    users, targets = np.arange(5, dtype=np.int32), np.array([0, 1, 2, 3, 0], np.int32)
    items = pl.DataFrame({"item_id": [f"n{item}" for item in range(4)], "title": titles, "text": titles})
    known = inputs.lists[Split.TEST]["fused"]
    new = np.tile(np.arange(LENGTH, dtype=np.int32), (5, 1))
    new[:, found - 1] = ITEMS + targets
    return replace(
        inputs,
        dataset=replace(inputs.dataset, new_items=NewItems(items, users, targets)),
        new=NewItemLists({"fused": known}, {"fused": TopItems(new, known.scores_UK[:5])}, bonus=0.25),
    )


def test_new_items_are_measured_beside_the_others(inputs):
    found = evaluate(with_new_items(inputs, 3)).metrics["new_items"]
    assert found["items"] == 4
    assert found["interactions"] == 5
    assert found["share_of_catalogue"] == pytest.approx(4 / (ITEMS + 4), abs=1e-6)
    assert found["new"]["fused"] == {"recall_at_10": 1.0, "recall_at_10_standard_error": 0.0}
    assert found["known"]["fused"]["recall_at_10"] == 1.0
    assert found["new"]["popularity"]["recall_at_10"] == 0.0, "nobody has taken a new item"
    assert found["share_at_10"] == {"fused": 0.0, "popularity": 0.0}
    missed = evaluate(with_new_items(inputs, 11)).metrics["new_items"]
    assert missed["new"]["fused"]["recall_at_10"] == 0.0


@pytest.mark.usefixtures("undrawn")
def test_what_the_ranker_is_made_of_is_told_and_that_it_is_not_used(inputs, background, page):
    without = {
        name: {"difference": -0.01, "low": low, "high": -0.001} for name, low in (("text", -0.02), ("dense", -0.03))
    }
    fitted = {"features": ["text", "dense"], "standardised": [0.5, 0.25], "ndcg_at_10": 0.125, "without": without}
    fitted["weights"] = [1.0, 2.25]
    unused = {split: {**found, "ranked": found["generative"]} for split, found in inputs.lists.items()}
    result = evaluate(replace(inputs, ranker={**fitted, "folds": []}, lists=unused))
    assert result.metrics["ranker"] == fitted and result.metrics["recommended"] == "fused"
    text = page(result)
    ranked, fused = (result.metrics["validation"][name]["ndcg_at_10"] for name in ("ranked", "fused"))
    told = f"The ranker is not used: on validation users held out it has NDCG@10 {ranked:.4f}, fused {fused:.4f}."
    assert told in html.unescape(text), "as in the table of validation"
    assert "Recommended by: fused" in text and "Recommended by: fused." in result_markdown(result.metrics)
    assert "text +0.0100, dense +0.0100" in text, "in the order of the features"
    assert "ranker.png" in plot_files(background, result)
    figure, words = _figures(background, result)["ranker"]
    assert as_png(figure).startswith(b"\x89PNG") and words in html.unescape(as_svg(figure, "ranker", words))
    lists = {split: {**found, "ranked": found["fused"]} for split, found in inputs.lists.items()}
    used = evaluate(replace(inputs, ranker=fitted, recommended="ranked", lists=lists))
    assert "The ranker is not used" not in page(used)
    assert "network" not in page(used)
    going_on = {**fitted, "network": True, "linear_ndcg_at_10": 0.0625}
    told = html.unescape(page(evaluate(replace(inputs, ranker=going_on, recommended="ranked", lists=lists))))
    assert "A network that goes on from these ranks: 0.1250 there, the weights alone 0.0625." in told
    plain = evaluate(inputs)
    assert plain.metrics["ranker"] == {} and "ranker.png" not in plot_files(background, plain)


@pytest.mark.usefixtures("undrawn")
def test_a_ranker_as_it_was_given_is_told_to_be_so(inputs, background, page):
    lists = {split: {**found, "ranked": found["fused"]} for split, found in inputs.lists.items()}
    given = {"features": ["text", "dense"], "weights": [1.0, 2.25]}
    inputs = replace(inputs, ranker={**given, "folds": [[1.0, 2.25]]}, recommended="ranked", lists=lists)
    sequences = inputs.dataset.sequences.with_validation_in_training()
    result = evaluate(replace(inputs, dataset=replace(inputs.dataset, sequences=sequences)))
    assert result.metrics["ranker"] == given and "ranker.png" not in plot_files(background, result)
    assert "Weights of the ranker: as given." in page(result)
    assert "Recommended by: ranked." in result_markdown(result.metrics) and "--set" not in page(result)


@pytest.mark.usefixtures("undrawn")
def test_what_was_chosen_is_told_as_settings_for_training_on_everything(evaluation, page):
    chosen = evaluation
    flags = [f"--set '{each}'" for each in chosen_settings(chosen.metrics, "shop")]
    assert flags[1:] == ["--set 'evaluate.fusion_weights=[8]'", "--set 'generator.ranker=false'"]
    assert f'<pre tabindex="0">{" ".join(flags)}</pre>' in html.unescape(page(chosen)), "to be copied as they are"
    metrics = {**chosen.metrics, "recommended": "ranked", "ranker": {"weights": [1.0, 0.123456789]}}
    assert chosen_settings(metrics, "shop")[2] == "generator.ranker_weights=[1,0.123457]"
    assert chosen_settings({**metrics, "fusion_weight": None}, "shop")[1] == "evaluate.fusion_weights=[1]"
    of_network = {**metrics, "ranker": {"weights": [1.0], "network": True}}
    assert chosen_settings(of_network, "shop")[2] == "generator.ranker_file=shop-ranker.json"
    apart = {**metrics, "protocol": {**metrics["protocol"], "trained_on_validation": True}}
    assert chosen_settings(apart, "shop") == chosen_settings({**metrics, "recommended": "generative"}, "shop") == []


def test_the_ranks_of_new_items_are_kept_beside_the_others(inputs, evaluation, tmp_path):
    result = evaluate(with_new_items(inputs, 3))
    result.save(tmp_path)
    loaded = Evaluation.load(tmp_path)
    for each in (result, loaded):
        assert each.new_item_ranks["fused"].tolist() == [3] * 5
        assert each.new_item_ranks["popularity"].tolist() == [0] * 5
        for scorer, ranks in evaluation.test_ranks.items():
            assert each.test_ranks[scorer].tolist() == ranks.tolist(), "the plain ranks are what they were"
    rows = loaded.ranks.filter(pc.equal(loaded.ranks["split"], "new_items"))
    assert rows["user"].to_pylist() == [0, 1, 2, 3, 4]
    assert rows["target"].to_pylist() == [ITEMS, ITEMS + 1, ITEMS + 2, ITEMS + 3, ITEMS]
    assert evaluation.new_item_ranks == {}


def test_new_items_have_a_table_everywhere(inputs, page):
    grown = with_new_items(inputs, 3)
    result = evaluate(grown)
    for text in (page(result, dataset=grown.dataset), result_markdown(result.metrics)):
        assert "4 new items, 11.8% of the catalogue" in text
        assert "5 users took one last" in text
        assert "0.25 nats" in text
    assert new_item_rows(result.metrics["new_items"])[1][:2] == ["fused", "1.0000 ± 0.0000"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("alpha", "embedding", "told"),
    [(0.01, "integrated", True), (0.0, "integrated", True), (1.0, "integrated", False), (0.01, "semantic", False)],
)
def test_beside_new_items_stands_when_alignment_is_worth_more(inputs, page, alpha, embedding, told):
    grown = with_new_items(inputs, 3)
    experiment = {"name": "small", "align": {"alpha": alpha}, "quantize": {"embedding": embedding}}
    text = page(evaluate(grown), dataset=grown.dataset, experiment=experiment)
    assert (f"its weight here, align.alpha, is {alpha:g}." in text) is told
    assert "align.alpha, is" not in page(evaluate(inputs), experiment=experiment), (
        "without new items there is no advice"
    )


@pytest.mark.usefixtures("undrawn")
def test_without_new_items_there_is_no_table(evaluation, page):
    assert "new_items" not in evaluation.metrics
    assert "New items" not in page(evaluation)


def test_new_lists_have_to_fit_the_new_users(inputs):
    grown = with_new_items(inputs, 3)
    short = replace(grown.new, new={"fused": inputs.lists[Split.TEST]["fused"]})
    with pytest.raises(ValueError, match="60 lists and 5 targets"):
        evaluate(replace(grown, new=short))
    with pytest.raises(ValueError, match="no new items"):
        new_item_histories(inputs.dataset)


def with_repeats(inputs, users, **changes):
    """The same where the first `users` have taken their test item before, and no list of theirs holds it."""
    sequences = inputs.dataset.sequences
    lists = [sequences.of_user(user).copy() for user in range(USERS)]
    for items in lists[:users]:
        items[-1] = items[0]
    dataset = replace(inputs.dataset, sequences=from_lists(lists, ITEMS), profile={**inputs.dataset.profile, **changes})
    rank = {split: dict.fromkeys(inputs.lists[split], 0 if users == USERS else 1) for split in inputs.lists}
    made = {
        split: {scorer: lists_with_target_at(dataset, split, at) for scorer, at in each.items()}
        for split, each in rank.items()
    }
    return replace(inputs, dataset=dataset, lists=made, fusion_trials=[(0.0, 0.1), (8.0, 0.0)])


@pytest.mark.usefixtures("undrawn")
def test_targets_out_of_reach_are_told_with_what_can_be_reached(inputs, evaluation, page):
    found = evaluate(with_repeats(inputs, 15))
    assert found.metrics["targets_in_history"] == {"validation": 0, "test": 15}
    (text,) = found.metrics["warnings"]
    assert "25.0% of the test targets (15 of 60)" in text and "75.0% of the test targets can be reached" in text
    assert "evaluate.mask_history=false" in text and "data.duplicates=first" in text
    assert text in html.unescape(page(found)) and text in result_markdown(found.metrics)
    free = inputs.config.model_copy(update={"mask_history": False})
    assert evaluate(replace(with_repeats(inputs, 15), config=free)).metrics["warnings"] == []
    assert evaluation.metrics["warnings"] == [] and evaluation.metrics["validation_tells"] is True


def test_zeros_on_validation_are_not_told_as_a_choice(inputs, page):
    found = evaluate(with_repeats(inputs, USERS))
    assert found.metrics["validation_tells"] is False
    assert any("nothing was chosen" in text for text in found.metrics["warnings"])
    text = html.unescape(page(found))
    assert "Recommended by: fused, since validation tells none from another" in text
    assert "best on validation" not in text and "the one nearest to 1: λ" in text and "at the edge" not in text
    assert chosen_settings(found.metrics, "shop") == []


@pytest.mark.usefixtures("undrawn")
def test_what_was_gone_on_from_is_told(evaluation, background, page):
    start = {"start_from": "models:/prorec-shop/3", "continuing": {"epochs_share": 0.3, "codes": "keep"}}
    told = "Trained on from models:/prorec-shop/3, for 30% of the epochs below; codes of known items stay."
    assert told in page(evaluation, experiment={**background.experiment, **start})
    assert "Trained on from" not in page(evaluation)


def test_moments_of_a_split_are_shown_as_times():
    profile = {"split": {"unit": "seconds", "test_from": 1_704_067_200, "least": 1}, "kept": {"users": 1_704_067}}
    assert dict(_profile(profile)) == {
        "split · unit": "seconds",
        "split · test from": "2024-01-01",
        "split · least": "1",
        "kept · users": "1,704,067",
    }


@pytest.mark.parametrize(("rank", "told"), [(1, None), (0, "is worse than popularity: NDCG@10 on test 0.0000 and 0")])
def test_what_is_no_better_than_popularity_is_told(inputs, rank, told):
    lists = {**inputs.lists[Split.TEST], "fused": lists_with_target_at(inputs.dataset, Split.TEST, rank)}
    found = evaluate(replace(inputs, lists={**inputs.lists, Split.TEST: lists}))
    texts = [text for text in found.metrics["warnings"] if "popularity" in text]
    assert [told in text for text in texts] == ([] if told is None else [True])


@pytest.mark.usefixtures("undrawn")
def test_what_was_said_of_the_data_is_said_again(inputs, page):
    said = "items.csv: column 'title' has '<i>nan</i>' in 3 rows"
    found = evaluate(with_repeats(inputs, 0, warnings=[said]))
    assert found.metrics["warnings"] == [said]
    assert html.escape(said, quote=False) in result_markdown(found.metrics)
    assert "<i>nan" not in page(found) and said in html.unescape(page(found))
