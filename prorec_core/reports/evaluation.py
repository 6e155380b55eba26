"""The report of an evaluation: one page that needs nothing else, and its plots as files.

Knows measured numbers and words; knows nothing of models. Equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from prorec_core import fitting
from prorec_core.config import BY_DATA
from prorec_core.config_data import is_built_in
from prorec_core.data.sequences import Split
from prorec_core.data.times import shown_time
from prorec_core.evaluation.measured import Evaluation
from prorec_core.metrics import scorers
from prorec_core.metrics.scorers import in_order
from prorec_core.metrics.table import METRICS, columns, figure, label
from prorec_core.reports import plots
from prorec_core.reports.background import Background
from prorec_core.reports.drawing import as_png, as_svg
from prorec_core.reports.examples import SHOWN, examples
from prorec_core.reports.tables import (
    Cell,
    alignment_advice,
    cells,
    chosen_settings,
    comparison_rows,
    heuristic_line,
    leak_line,
    new_item_line,
    new_item_rows,
    present,
    protocol_line,
    ranker_file,
    reference_names,
    result_markdown,
    result_rows,
    shortcut_line,
    shortcut_rows,
    signed,
    unseen_line,
)
from prorec_core.reports.templates import template
from prorec_core.yaml_text import dump

__all__ = ["plot_files", "render", "result_markdown", "result_rows"]

_MOMENTS = {"validation_from", "test_from", "last_training_time", "first_validation_time", "first_test_time"}
"""Times of a profile, in its unit."""


def render(background: Background, evaluation: Evaluation) -> str:
    """The report as HTML, without scripts and without anything loaded from elsewhere.

    Args:
        background: what is shown beside what was measured.
        evaluation: what was measured, with the lists.
    """
    metrics = evaluation.metrics
    return template("evaluation.html.j2").render(
        name=background.name or "evaluation",
        seed=background.seed,
        metrics=metrics,
        protocol={split: protocol_line(metrics["protocol"], split) for split in ("test", "validation")},
        protocol_targets="test_targets" in metrics["protocol"],
        tables={split: _tables(metrics[split]) for split in ("test", "validation")},
        chosen_by=_chosen_by(background),
        validation_targets=metrics["protocol"].get("validation_targets", 0),
        tiles=_tiles(background, metrics),
        notes=_notes(metrics, background),
        reference=_reference(metrics),
        comparisons=comparison_rows(metrics["comparisons"]),
        shortcut=_shortcut(metrics),
        heuristic=heuristic_line(metrics),
        new_items=_new_items(metrics, background.experiment),
        figures=_svgs(background, evaluation),
        scorers=in_order(evaluation.test_ranks),
        about=scorers.about,
        scorer_label=scorers.label,
        beyond=[METRICS[name] for name in METRICS if METRICS[name].of_lists and METRICS[name].shown.get("page")],
        slices=metrics["slices"],
        quality=background.quality,
        domination=background.domination,
        domination_rows=plots.DOMINATION_ROWS,
        sources=[each for each in background.sources if each.mean is not None],
        examples=examples(background, evaluation),
        shown=SHOWN,
        profile=_profile(background.dataset.profile),
        filters=[step for step in background.dataset.profile.get("filters", []) if {"before", "after"} <= set(step)],
        configuration=dump(dict(background.experiment), width=100),
        has_configuration=bool(background.experiment),
        rule=fitting.RULE,
        size=fitting.Size.of(background.dataset.profile) if _follows_data(background) else None,
        settings=_settings(background) if _follows_data(background) else [],
        chosen=chosen_settings(metrics, background.name) if background.experiment else [],
        ranker_file=ranker_file(metrics, background.name),
    )


def plot_files(background: Background, evaluation: Evaluation) -> dict[str, bytes]:
    """The report's plots as PNG files: content by file name. Arguments as of `render`."""
    found = _figures(background, evaluation)
    return {f"{name}.png": as_png(drawn) for name, (drawn, _) in found.items()}


def _svgs(background: Background, evaluation: Evaluation) -> dict[str, Markup]:
    found = _figures(background, evaluation)
    # Only Matplotlib's own output is trusted as markup: it escapes the texts that it draws.
    return {name: Markup(as_svg(drawn, name, words)) for name, (drawn, words) in found.items()}


def _figures(background: Background, evaluation: Evaluation) -> dict[str, tuple[Figure, str]]:
    """Every plot for which there is something to show, and what it says to those who cannot see it."""
    found: dict[str, tuple[Figure, str]] = {}
    metrics, ranks = evaluation.metrics, evaluation.test_ranks
    test, length = metrics["test"], metrics["protocol"]["list_length"]
    told = ", ".join(f"{scorers.label(scorer)} {test[scorer]['recall_at_10']:.4f}" for scorer in in_order(ranks))
    found["curves"] = (
        plots.curves_by_k(ranks, length, evaluation.owners("test"), evaluation.ends),
        f"Recall and NDCG of each scorer by list length k from 1 to {length}. Recall at 10: {told}.",
    )
    if metrics["comparisons"]:
        words = "; ".join(" ".join(row) for row in comparison_rows(metrics["comparisons"]))
        found["comparisons"] = (
            plots.difference_intervals(metrics["comparisons"]),
            f"Differences between scorers with 95% intervals. {words}.",
        )
    if rest := metrics.get("shortcut", {}).get("rest"):
        words = "; ".join(", ".join(row) for row in shortcut_rows(metrics)[1:])
        found["shortcut"] = (
            plots.beyond_shortcut(test, rest),
            f"Each scorer on all test targets and on those that a shortcut lacks. {words}.",
        )
    of_all = ("target_popularity", "history_length")
    for name, slices in (
        ("groups", {kind: groups for kind, groups in metrics["slices"].items() if kind in of_all}),
        ("kinds", {kind: groups for kind, groups in metrics["slices"].items() if kind not in of_all}),
    ):
        if slices and all(slices.values()):
            words = "; ".join(
                f"{group['group']}: "
                + ", ".join(f"{scorers.label(scorer)} {value:.4f}" for scorer, value in group["recall"].items())
                for groups in slices.values()
                for group in groups
            )
            found[name] = (plots.recall_by_group(slices), f"Recall at 10 for groups of users. {words}.")
    if metrics["fusion_trials"] and metrics["fusion_weight"] is not None:
        found["fusion"] = (
            plots.fusion_curve(metrics["fusion_trials"], metrics["fusion_weight"]),
            f"Validation NDCG at 10 by fusion weight; chosen: {metrics['fusion_weight']:g}.",
        )
    if "without" in metrics["ranker"]:
        without = {name: metrics["ranker"]["without"][name] for name in metrics["ranker"]["features"]}
        words = ", ".join(f"{name} {signed(-found['difference'])}" for name, found in without.items())
        text = f"What each feature adds to the ranker's weights in NDCG at 10 on validation users held out: {words}."
        if metrics["ranker"].get("network"):
            better, linear = metrics["ranker"]["ndcg_at_10"], metrics["ranker"]["linear_ndcg_at_10"]
            text += f" A network that goes on from these ranks: {better:.4f} there, the weights alone {linear:.4f}."
        found["ranker"] = plots.ranker_features(without, network=bool(metrics["ranker"].get("network"))), text
    levels = [level for level in background.quality.get("levels", []) if level.get("usage")]
    if levels:
        words = ", ".join(
            f"level {number}: {sum(count > 0 for count in level['usage'])} of {len(level['usage'])}"
            for number, level in enumerate(levels, start=1)
        )
        found["codes"] = (plots.code_usage(levels), f"Items by code, level by level. Codes used: {words}.")
    if "integrated" in background.domination:
        words = "; ".join(
            f"{name}: {background.domination[key]['text_share']:.0%} of shared neighbours with the text"
            for key, name in plots.DOMINATION_ROWS.items()
            if key in background.domination
        )
        found["domination"] = (
            plots.domination_bars(background.domination, neighbours=background.domination["neighbours"]),
            f"What embeddings share with text and with behaviour. {words}.",
        )
    if any(background.training.values()):
        words = "; ".join(
            f"{stage}: {len(records)} epochs, final loss {records[-1].get('loss', float('nan')):.4f}"
            for stage, records in background.training.items()
            if records
        )
        found["training"] = (
            plots.training_curves(background.training),
            f"Loss and validation NDCG at 10 by epoch for each trained stage. {words}.",
        )
    return found


def _tables(measured: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    accuracy, beyond = present(measured, columns("page", "ranks")), present(measured, columns("page", "lists"))
    return {
        "accuracy": {"columns": [label(metric) for metric in accuracy], "rows": cells(measured, accuracy)},
        "beyond": {
            "columns": [label(metric) for metric in beyond],
            "rows": cells(measured, beyond, mark_best=False),
        },
    }


def _reference(metrics: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Rows of the test table for what is known of the data by construction."""
    known = reference_names(metrics)
    rows = dict(cells(metrics["reference"], present(metrics["test"], columns("page", "ranks")), mark_best=False))
    return [(words, rows[name]) for name, words in known.items()]


def _shortcut(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    if not metrics.get("shortcut"):
        return None
    head, *rows = shortcut_rows(metrics) or [[]]
    names = in_order(metrics["shortcut"]["rest"])
    line = f"{shortcut_line(metrics['shortcut'])}."
    return {"line": line, "head": head, "rows": list(zip(names, rows, strict=True))}


def _new_items(metrics: Mapping[str, Any], experiment: Mapping[str, Any]) -> dict[str, Any] | None:
    if "new_items" not in metrics:
        return None
    head, *rows = new_item_rows(metrics["new_items"])
    names = in_order(metrics["new_items"]["new"])
    return {
        "caption": new_item_line(metrics["new_items"]),
        "head": head,
        "rows": list(zip(names, rows, strict=True)),
        "advice": alignment_advice(experiment),
    }


def _tiles(background: Background, metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few figures that a reader looks for first."""
    test = metrics["test"]
    first = metrics["recommended"] or in_order(test)[0]
    tiles, name = [], scorers.label(first)
    for metric in columns("headline"):
        against = test["popularity"][metric]
        beside = f"± {test[first][f'{metric}_standard_error']:.4f}"
        if first != "popularity" and against:
            beside += f" · {test[first][metric] / against:.1f} × popularity"
        tiles.append({"name": f"{label(metric)}, {name}", "value": f"{test[first][metric]:.4f}", "beside": beside})
    tiles.append(
        {
            "name": f"{label('coverage_at_10')}, {name}",
            "value": f"{test[first]['coverage_at_10']:.1%}",
            "beside": f"{figure('distinct_items_at_10', test[first]['distinct_items_at_10'])} different items",
        }
    )
    if "integrated" in background.domination:
        beside = "of shared neighbours"
        if "naive_concatenation" in background.domination:
            beside += f" · {background.domination['naive_concatenation']['text_share']:.0%} when concatenated"
        tiles.append(
            {
                "name": "Text share of the embedding",
                "value": f"{background.domination['integrated']['text_share']:.0%}",
                "beside": beside,
            }
        )
    return tiles


def _notes(metrics: Mapping[str, Any], background: Background) -> list[str]:
    """What a careful reader would remark on."""
    notes = [f"{text}." for text in metrics["warnings"]]
    notes += [f"{text}." for text in (unseen_line(metrics["protocol"]), leak_line(metrics["protocol"])) if text]
    if start := background.experiment.get("start_from"):
        share, codes = (background.experiment["continuing"][name] for name in ("epochs_share", "codes"))
        notes.append(
            f"Trained on from {start}, for {share:.0%} of the epochs below; codes of known items "
            f"{'stay' if codes == 'keep' else 'were given anew'}."
        )
    if metrics["protocol"]["trained_on_validation"]:
        notes.append(
            "Trained on the validation items too: what is said of validation is memory, and what is said of test is "
            "not comparable with models that never saw those items."
        )
    for name, found in metrics["comparisons"].items():
        first, _, second = name.partition("_minus_")
        measured = found["ndcg_at_10"]
        ends = f"{signed(measured['low'])} to {signed(measured['high'])}"
        interval = f"{signed(measured['difference'])}, 95% interval {ends}"
        if first == metrics["recommended"] or second == "aligned":
            verdict = "is better than" if measured["low"] > 0 else "is worse than" if measured["high"] < 0 else ""
            verdict = verdict or "cannot be told from"
            told, other = scorers.label(first), scorers.label(second)
            notes.append(f"{told[0].upper()}{told[1:]} {verdict} {other} in NDCG@10 ({interval}).")
    if not metrics["validation_tells"]:
        return notes
    if "without" in metrics["ranker"] and metrics["recommended"] != "ranked":
        ranked, other = (metrics["validation"][name]["ndcg_at_10"] for name in ("ranked", metrics["recommended"]))
        notes.append(
            f"The ranker is not used: on validation users held out it has NDCG@10 {ranked:.4f}, "
            f"{scorers.label(metrics['recommended'])} {other:.4f}."
        )
    weights = [weight for weight, _ in metrics["fusion_trials"]] or list(background.config.fusion_weights)
    weight = metrics["fusion_weight"]
    # Below 0 there is none: nothing is fused then.
    if weight and len(weights) > 1 and weight in (min(weights), max(weights)):
        notes.append(
            f"The fusion weight chosen, λ = {weight:g}, lies at the edge of those tried; "
            "a better one may lie beyond (evaluate.fusion_weights)."
        )
    return notes


def _chosen_by(background: Background) -> int:
    """How many validation targets choices are made on: those that a model can be asked for."""
    return len(background.dataset.sequences.answerable(Split.VALIDATION))


def _follows_data(background: Background) -> bool:
    """Whether the rule for other data than the built-in shop's has something to say of this experiment."""
    experiment, profile = background.experiment, background.dataset.profile
    whole = BY_DATA.keys() <= experiment.keys() and {"kept", "history_length"} <= profile.keys()
    return whole and not is_built_in(experiment["data"])


def _settings(background: Background) -> list[tuple[str, str, str]]:
    """Field, number, and the rule's where that is another one."""
    rows = fitting.beside_the_rule(background.experiment, fitting.Size.of(background.dataset.profile))
    return [
        (field, fitting.plain(used), fitting.plain(by_rule) if by_rule != used else "") for field, used, by_rule in rows
    ]


def _profile(profile: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The profile of the data as pairs of name and value, without filters and warnings, which have their own places."""
    pairs: list[tuple[str, str]] = []
    unit = profile.get("split", {}).get("unit", "")

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name} · {key}" if name else str(key), inner)
        elif isinstance(value, list | tuple):
            pairs.append((name, ", ".join(_plain(inner) for inner in value)))
        elif unit and value is not None and name.rpartition(" · ")[2] in _MOMENTS:
            pairs.append((name, shown_time(value, unit)))
        else:
            pairs.append((name, _plain(value)))

    add("", {name: value for name, value in profile.items() if name not in ("filters", "warnings")})
    return [(name.replace("_", " "), value) for name, value in pairs]


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
