"""The plots of a report. Knows measured numbers and how to show them; knows nothing of models, files or pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from prorec_core.data.sequences import IntArray
from prorec_core.metrics import scorers
from prorec_core.metrics.measures import shares_of_users
from prorec_core.metrics.scorers import about, in_order
from prorec_core.metrics.table import CUTOFFS, label
from prorec_core.reports.drawing import (
    BEHAVIOUR_COLOUR,
    INK,
    MUTED,
    RULE,
    TEXT_COLOUR,
    DifferenceFormatter,
    draw_interval,
    panels,
    style,
)
from prorec_core.reports.tables import difference

_LOSS_COLOUR, _MEASURE_COLOUR = "#7b61a8", "#2a9d74"
_LEVELS_A_ROW = 4
_STEPS = 1000
"""Codes of a level that are drawn one by one; of more, so many are drawn, evenly spaced."""
DOMINATION_ROWS = {
    "integrated": "integrated (this run)",
    "naive_concatenation": "naive concatenation",
    "standardised_concatenation": "standardised concatenation",
}


def curves_by_k(
    ranks: Mapping[str, IntArray],
    length: int,
    owners: IntArray | None = None,
    ends: Mapping[str, int] | None = None,
) -> Figure:
    """Recall@k and NDCG@k of each scorer for k from 1 to the length of the lists.

    Args:
        ranks: of the targets, by scorer, shape (T,) each.
        length: of the lists.
        owners: whose each target is, as in `measures.user_means`, shape (T,).
        ends: by scorer the items of its longest list, where that is shorter: so far it is drawn.
    """
    shares = None if owners is None else shares_of_users(owners)
    at_k = np.arange(1, length + 1)
    with style():
        figure, (recall, ndcg) = panels(2, height=3.1)
        for scorer in in_order(ranks):
            of = np.full(len(ranks[scorer]), 1 / max(len(ranks[scorer]), 1)) if shares is None else shares
            times = np.bincount(ranks[scorer], of, length + 1)[1 : length + 1]
            end = min((ends or {}).get(scorer, length), length)
            for axes, values in ((recall, times), (ndcg, times / np.log2(at_k + 1))):
                axes.plot(
                    at_k[:end],
                    np.cumsum(values)[:end],
                    color=about(scorer).colour,
                    label=scorers.label(scorer),
                    marker=about(scorer).marker,
                    markersize=4,
                    markevery=[k - 1 for k in CUTOFFS if k <= end],
                )
        for axes, name in ((recall, "Recall@k"), (ndcg, "NDCG@k")):
            axes.set(title=name, xlabel="k (logarithmic)", xscale="log", xlim=(0.92, length * 1.08))
            axes.set_ylim(bottom=0)
            axes.set_xticks([k for k in CUTOFFS if k <= length], [str(k) for k in CUTOFFS if k <= length])
            axes.xaxis.set_minor_locator(NullLocator())
        recall.legend(loc="upper left")
    return figure


GROUPINGS = {
    "target_popularity": "by popularity of the target",
    "history_length": "by length of the history",
    "user": "by whether training saw the user",
    "repeats": "by whether taken before",
}
"""Ways of grouping targets, for people; the first two are told of all data."""


def recall_by_group(slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Recall@10 with standard errors for groups of users, a panel a way of grouping."""
    with style():
        figure, both = panels(len(slices), height=3.0, sharey="row")
        for axes, (kind, groups) in zip(both, slices.items(), strict=True):
            shown = in_order(groups[0]["recall"]) if groups else []
            for index, scorer in enumerate(shown):
                places = np.arange(len(groups)) + (index - (len(shown) - 1) / 2) * 0.12
                axes.errorbar(
                    places,
                    [group["recall"][scorer] for group in groups],
                    yerr=[group["standard_error"][scorer] for group in groups],
                    color=about(scorer).colour,
                    marker=about(scorer).marker,
                    markersize=5,
                    linestyle="none",
                    elinewidth=1.4,
                    label=scorers.label(scorer),
                )
            axes.set_title(f"Recall@10 {GROUPINGS.get(kind, kind)}")
            names = [f"{group['group']}\n{group['users']:,} users" for group in groups]
            axes.set_xticks(range(len(groups)), names)
            axes.set_xlim(-0.5, len(groups) - 0.5)
            axes.grid(axis="x", visible=False)
        both[0].set_ylim(bottom=0)
        figure.legend(*both[0].get_legend_handles_labels(), loc="outside upper left", ncols=8)
    return figure


def difference_intervals(comparisons: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Mean differences between scorers with their 95% intervals, a panel a metric."""
    names = list(comparisons)
    metrics = list(next(iter(comparisons.values())))
    with style():
        figure, columns = panels(len(metrics), height=0.75 + 0.36 * len(names), sharey="row")
        for axes, metric in zip(columns, metrics, strict=True):
            axes.axvline(0, color=MUTED, linewidth=1)
            for place, name in enumerate(names):
                found = comparisons[name][metric]
                shade = about(name.split("_minus_")[0]).colour
                draw_interval(axes, place, (found["low"], found["difference"], found["high"]), shade)
            axes.set_title(f"Difference of {label(metric)}")
            axes.set_yticks(range(len(names)), list(map(difference, names)))
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(DifferenceFormatter())
        columns[0].tick_params(axis="y", labelcolor=INK)
    return figure


def beyond_shortcut(test: Mapping[str, Mapping[str, float]], rest: Mapping[str, Mapping[str, float]]) -> Figure:
    """Each scorer on all targets (hollow) and on those that a shortcut lacks (filled, with its standard error).

    Args:
        test: metrics by scorer.
        rest: those that are compared, on these targets alone, with standard errors.
    """
    shown = in_order(rest)
    metrics = [name for name in next(iter(rest.values())) if not name.endswith("_standard_error")]
    with style():
        figure, columns = panels(len(metrics), height=0.9 + 0.3 * len(shown), sharey="row")
        for axes, metric in zip(columns, metrics, strict=True):
            for place, scorer in enumerate(shown):
                colour, marker = about(scorer).colour, about(scorer).marker
                everyone, others = test[scorer][metric], rest[scorer][metric]
                axes.plot([others, everyone], [place, place], color=RULE, linewidth=1.2, zorder=1)
                axes.plot(
                    everyone, place, marker=marker, color=colour, markersize=6, fillstyle="none", linestyle="none"
                )
                error = rest[scorer][f"{metric}_standard_error"]
                axes.errorbar(others, place, xerr=error, color=colour, marker=marker, markersize=6, elinewidth=1.4)
            axes.set_title(label(metric))
            axes.set_yticks(range(len(shown)), list(map(scorers.label, shown)))
            axes.set_ylim(len(shown) - 0.5, -0.5)
            axes.set_xlim(left=0)
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def ranker_features(without: Mapping[str, Mapping[str, float]], *, network: bool = False) -> Figure:
    """What each of the ranker's features adds to validation NDCG@10, with 95% intervals.

    Args:
        without: by feature the difference, low and high, of a ranker fitted without it.
        network: whether a network goes on from the weights that these are about.
    """
    with style():
        figure, (axes,) = panels(1, width=4.5, height=2.4)
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, found in enumerate(without.values()):
            draw_interval(axes, place, (-found["high"], -found["difference"], -found["low"]), about("ranked").colour)
        axes.set_title(f"What each feature adds to the ranker{'’s weights' if network else ''}")
        axes.set_xlabel("validation NDCG@10, users held out")
        axes.set_yticks(range(len(without)), list(without))
        axes.set_ylim(len(without) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(DifferenceFormatter())
    return figure


def code_usage(levels: Sequence[Mapping[str, Any]]) -> Figure:
    """How many items have each code, level by level, the most used code first."""
    shown = [level for level in levels if level.get("usage")]
    columns = min(len(shown), _LEVELS_A_ROW)
    rows = math.ceil(len(shown) / columns)
    with style():
        figure, places = panels(columns, rows, height=2.3)
        for axes in places[len(shown) :]:
            axes.set_visible(False)
        for number, (axes, level) in enumerate(zip(places, shown, strict=False), start=1):
            usage = np.sort(np.array(level["usage"]))[::-1]
            edges = np.unique(np.linspace(0, len(usage), min(len(usage), _STEPS) + 1).astype(np.int64))
            heights = usage[edges[:-1]]
            suffix = bool(level.get("suffix"))
            axes.stairs(heights, edges, fill=True, color=MUTED if suffix else TEXT_COLOUR, alpha=0.35)
            axes.stairs(heights, edges, color=MUTED if suffix else TEXT_COLOUR, linewidth=1.2)
            axes.axhline(usage.mean(), color=BEHAVIOUR_COLOUR, linewidth=1.2, linestyle=(0, (4, 2)))
            axes.set_title(f"level {number}{' (suffix)' if suffix else ''}")
            used = int((usage > 0).sum())
            share = usage[usage > 0] / max(usage.sum(), 1)
            perplexity = math.exp(-float((share * np.log(share)).sum()))
            for height, words in ((0.96, f"{used:,} of {len(usage):,} used"), (0.84, f"perplexity {perplexity:,.1f}")):
                axes.text(0.97, height, words, transform=axes.transAxes, ha="right", va="top", fontsize=8)
            axes.set(xlabel="codes, most used first", xlim=(0, len(usage)))
            axes.set_ylim(0, max(usage.max(), 1) * 1.35)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        places[0].set_ylabel("items")
    return figure


def domination_bars(
    domination: Mapping[str, Any], names: Mapping[str, str] = DOMINATION_ROWS, neighbours: int = 10
) -> Figure:
    """What each embedding shares with the text and with behaviour: to the left and to the right of one line.

    Where the text embedding is made of several sources, each has a bar of its own below.

    Args:
        domination: by embedding its row of domination.json.
        names: what each is called, in the order of the rows.
        neighbours: how many of each item were looked at.
    """
    bars = list(_bars(domination, names))
    kinds = (
        (f"Shared neighbours at {neighbours}", "overlap"),
        ("Linear CKA", "cka"),
    )
    with style():
        figure, both = panels(2, height=0.9 + 0.42 * len(bars), sharey="row")
        for axes, (title, kind) in zip(both, kinds, strict=True):
            for place, (_, row, of) in enumerate(bars):
                of_text = row[kind] if of else row[f"{kind}_semantic"]
                axes.barh(place, -of_text, height=0.3 if of else 0.56, color=TEXT_COLOUR, alpha=0.55 if of else 1)
                _beside(axes, -of_text, place, -1)
                if not of:
                    of_behaviour = row[f"{kind}_collaborative"]
                    axes.barh(place, of_behaviour, height=0.56, color=BEHAVIOUR_COLOUR)
                    _beside(axes, of_behaviour, place, 1)
            axes.axvline(0, color=INK, linewidth=1)
            axes.set_title(title)
            axes.set(xlim=(-1.22, 1.22), ylim=(len(bars) - 0.45, -0.55))
            axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["1", "0.5", "0", "0.5", "1"])
            axes.set_yticks(range(len(bars)), [words for words, _, _ in bars])
            for middle, words in ((0.25, "← with the text"), (0.75, "with behaviour →")):
                axes.annotate(
                    words,
                    (middle, 0),
                    xycoords="axes fraction",
                    xytext=(0, -20),
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    color=MUTED,
                )
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
        both[0].tick_params(axis="y", labelcolor=INK)
    return figure


def _bars(domination: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, float], bool]]:
    """Words, figures and whether they are of a source: each embedding, and below it what its text embedding is of."""
    for name, words in names.items():
        if name in domination:
            yield words, domination[name], False
            for source, row in domination[name].get("by_source", {}).items():
                yield f"{source} ({row['share']:.0%})", row, True


def _beside(axes: Axes, end: float, place: float, direction: int) -> None:
    axes.text(
        end + 0.04 * direction,
        place,
        f"{abs(end):.2f}",
        ha="left" if direction > 0 else "right",
        va="center",
        fontsize=8,
    )


def training_curves(training: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss above and validation NDCG@10 below for each trained stage; a ring marks the epoch that was kept."""
    stages = [name for name, records in training.items() if records]
    with style():
        figure, places = panels(len(stages), 2, height=1.9, sharex="col")
        for column, stage in enumerate(stages):
            records = training[stage]
            above, below = places[column], places[len(stages) + column]
            for axes, name, shade in (
                (above, "loss", _LOSS_COLOUR),
                (below, "validation_ndcg_at_10", _MEASURE_COLOUR),
            ):
                known = [record for record in records if name in record]
                epochs, values = [record["epoch"] for record in known], [record[name] for record in known]
                axes.plot(epochs, values, color=shade, marker="o", markersize=3.2)
                axes.margins(y=0.16)
                axes.yaxis.set_major_locator(MaxNLocator(4))
                if name != "loss" and values:
                    # Of equal epochs the last is kept.
                    best = len(values) - 1 - int(np.argmax(values[::-1]))
                    axes.plot(epochs[best], values[best], marker="o", markersize=9, color="none", markeredgecolor=INK)
                    high = values[best] > (min(values) + max(values)) / 2
                    axes.annotate(
                        f"{values[best]:.4f}",
                        (epochs[best], values[best]),
                        xytext=(0, -15 if high else 10),
                        textcoords="offset points",
                        ha="right" if best == len(values) - 1 and best else "center",
                        fontsize=8,
                    )
            above.set_title(stage)
            below.set(xlabel="epoch", xlim=(0.6, max(record["epoch"] for record in records) + 0.4))
            below.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        places[0].set_ylabel("loss")
        places[len(stages)].set_ylabel("validation NDCG@10")
        figure.align_ylabels()
    return figure


def fusion_curve(trials: Sequence[tuple[float, float]], chosen: float) -> Figure:
    """Validation NDCG@10 by the weight of the dense score, evenly spaced; a ring marks the weight chosen."""
    with style():
        figure, (axes,) = panels(1, width=4.5, height=2.4)
        values = [value for _, value in trials]
        axes.plot(range(len(trials)), values, color=about("fused").colour, marker="o", markersize=4)
        for place, (weight, value) in enumerate(trials):
            if weight == chosen:
                axes.plot(place, value, marker="o", markersize=10, color="none", markeredgecolor=INK)
        axes.set_title("Validation NDCG@10 of the fused score")
        axes.set_xlabel("weight λ of the dense score")
        axes.set_xticks(range(len(trials)), [f"{weight:g}" for weight, _ in trials])
        axes.margins(y=0.16)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.spines["left"].set_color(RULE)
    return figure
