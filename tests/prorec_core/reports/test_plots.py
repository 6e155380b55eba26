"""Plots show all that they are given, stay small, and draw texts as texts."""

import numpy as np
import pytest

from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.metrics.measures import ndcg_at_k, recall_at_k
from prorec_core.metrics.measuring import compared
from prorec_core.metrics.scorers import SCORERS, about
from prorec_core.reports import plots
from prorec_core.reports.code_tree import code_tree
from prorec_core.reports.comparison.plots import forest
from prorec_core.reports.data_plot import data_plot
from prorec_core.reports.drawing import as_svg


def group(name, recall):
    return {"group": name, "users": 4, "recall": {"fused": recall}, "standard_error": {"fused": 0.01}}


def test_every_group_lies_within_the_shared_range():
    for first, second in ((0.01, 0.6), (0.6, 0.01)):
        figure = plots.recall_by_group({"a": [group("x", first)], "b": [group("y", second)]})
        assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 0.6 for axes in figure.axes)


def test_curves_end_at_recall_of_the_whole_list():
    figure = plots.curves_by_k({"fused": np.array([1, 3, 0, 5], np.int32)}, 5)
    recall, ndcg = (axes.lines[0].get_ydata() for axes in figure.axes)
    np.testing.assert_allclose(recall, [0.25, 0.25, 0.5, 0.5, 0.75])
    np.testing.assert_allclose(ndcg[-1], (1 + 1 / 2 + 1 / np.log2(6)) / 4)


def test_curves_end_where_lists_do():
    figure = plots.curves_by_k(
        {"given": np.array([1, 3, 0, 2], np.int32), "fused": np.ones(4, np.int32)}, 5, ends={"given": 3}
    )
    assert [len(line.get_ydata()) for line in figure.axes[0].lines] == [5, 3]


def test_curves_are_means_over_users_as_the_tables_are():
    ranks, owners = np.array([1, 3, 0, 5, 2], np.int32), np.array([4, 4, 4, 7, 9], np.int32)
    figure = plots.curves_by_k({"fused": ranks}, 5, owners)
    for axes, measure in zip(figure.axes, (recall_at_k, ndcg_at_k), strict=True):
        wanted = [measure(ranks, k, owners) for k in range(1, 6)]
        np.testing.assert_allclose(axes.lines[0].get_ydata(), wanted, atol=1e-6)
        assert wanted[-1] != measure(ranks, 5), "of targets it is another"


@pytest.mark.parametrize("low", [-0.0053, -0.0078, -0.0004, -0.00002, -0.12, -3.0, 0.0011])
def test_ticks_of_differences_say_where_they_stand(low):
    """Also where the steps between them have four decimals."""
    found = {"low": low, "difference": low + 0.0001, "high": low + 0.0002 + abs(low) * 0.8}
    comparisons = {"fused_minus_dense": {"ndcg_at_10": found}}
    for figure in (
        plots.difference_intervals(comparisons),
        plots.ranker_features({"counts": found}),
        forest(
            {
                "reference": "a",
                "variants": {"b": {"against": dict.fromkeys(compared(), found), "apart": True, "marks": []}},
            },
            ["b"],
        ),
    ):
        figure.draw_without_rendering()
        for axes in figure.axes:
            left, right = axes.get_xlim()
            ticks = [each for each in axes.xaxis.get_major_ticks() if left <= each.get_loc() <= right]
            texts = [tick.label1.get_text() for tick in ticks]
            assert [float(text.replace("−", "-")) for text in texts] == pytest.approx(
                [tick.get_loc() for tick in ticks]
            )
            signs = [text[0] for text in texts]
            assert signs == ["+" if tick.get_loc() > 0 else "−" if tick.get_loc() < 0 else "0" for tick in ticks]


def test_scorers_are_told_apart():
    for of in ("colour", "marker"):
        assert len({getattr(about(scorer), of) for scorer in SCORERS}) == len(SCORERS)


def test_large_codebooks_and_single_epochs_draw():
    levels = [{"usage": np.arange(60_000).tolist()}, {"usage": [7], "suffix": True}]
    assert len(as_svg(plots.code_usage(levels), "codes", "…")) < 300_000
    figure = plots.training_curves({"align": [{"epoch": 1, "loss": 2.0, "validation_ndcg_at_10": 0.0}]})
    assert as_svg(figure, "training", "…").count(">1</text>") == 1


def test_the_ring_stands_at_the_epoch_that_was_kept():
    """Of equal ones the last, as the training keeps it."""
    records = [
        {"epoch": place, "loss": 1.0, "validation_ndcg_at_10": value}
        for place, value in enumerate([0.1, 0.2, 0.2, 0.1], 1)
    ]
    below = plots.training_curves({"align": records}).axes[1]
    (ring,) = (line for line in below.lines if line.get_markersize() == 9)
    assert list(ring.get_xdata()) == [3]


def test_names_are_escaped_and_never_read_as_formulas():
    drawn = as_svg(plots.curves_by_k({"<b>$x_1$</b>": np.ones(3, np.int32)}, 3), "n", 'a "quoted" <thing>')
    assert "&lt;b&gt;$x_1$&lt;/b&gt;" in drawn
    assert 'aria-label="a &quot;quoted&quot; &lt;thing&gt;"' in drawn
    assert "<b>" not in drawn


def test_a_tree_of_codes_shows_each_node_as_high_as_it_has_items():
    codes = np.array([[2, 0], [0, 1], [0, 0], [2, 0], [2, 3], [2, 1]], np.uint16)
    texts = ["red lamp", "blue chair", "blue sofa", "green lamp", "lamp", "lamp and blue chair"]
    figure = code_tree(codes, texts)
    first, second = (np.asarray(image.get_array())[:, 0] for image in figure.axes[0].images)
    assert [len(np.unique(part, axis=0)) for part in (first, second)] == [2, 4]
    assert (first[:2] == first[0]).all() and (first[2:] == first[2]).all() and (first[0] != first[2]).any()
    assert [text.get_text() for text in figure.axes[0].texts] == ["blue, sofa, chair", "lamp, green"]


def test_plots_of_very_many_and_of_very_few():
    many = np.stack([np.arange(50_000) // 300, np.arange(50_000) % 300], axis=1).astype(np.uint16)
    figure = code_tree(many, ["text"] * len(many))
    assert all(len(image.get_array()) <= 1500 for image in figure.axes[0].images)
    assert len(code_tree(np.zeros((1, 1), np.uint16), ["one"]).axes[0].texts) == 1
    users, items = data_plot(from_lists([np.arange(3, dtype=np.int32)] * 4, 3)).axes
    assert sum(bar.get_height() for bar in users.patches) == 4
    assert "3 items" in items.get_title(loc="left")
    new = Sequences(np.array([0, 1, 4], np.int32), np.array([0, 3]), 3)
    assert "5 items" in data_plot(new).axes[1].get_title(loc="left"), "what is drawn, new ones too"
