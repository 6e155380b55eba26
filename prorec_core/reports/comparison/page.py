"""The report of a comparison of variants: one page that needs nothing else, a table in Markdown, plots as files.

Knows what `compare_variants` found; knows nothing of how it was measured. Equal findings give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from prorec_core.evaluation.marks import marked, marks_of
from prorec_core.metrics import scorers
from prorec_core.metrics.table import columns, figure, label
from prorec_core.reports.comparison import plots
from prorec_core.reports.drawing import as_png, as_svg
from prorec_core.reports.plots import GROUPINGS
from prorec_core.reports.tables import leak_line, new_item_line, protocol_line, signed
from prorec_core.reports.templates import template
from prorec_core.yaml_text import dump

Found = Mapping[str, Any]


def render(found: Found, name: str, experiment: Mapping[str, Any]) -> str:
    """The report as HTML, without scripts and without anything loaded from elsewhere.

    Args:
        found: as of `compare_variants`; in it under each variant `about`, what it is in words, and `set`, what it
            changes; and under `failed` what did not come to an end.
        name: of the experiment.
        experiment: its whole configuration, for display.
    """
    figures = {key: Markup(as_svg(drawn, key, words)) for key, (drawn, words) in _figures(found).items()}
    return template("comparison.html.j2").render(
        name=name,
        found=found,
        variants=found["variants"],
        given=any(about["scorer"] == scorers.GIVEN for about in found["variants"].values()),
        apart=[name for name, about in found["variants"].items() if about["apart"]],
        marks=marks_of(found),
        seeds=_seeds(found),
        uneven=_uneven(found),
        protocol={split: _protocol(found, split) for split in ("test", "validation")},
        tables={split: _table(found, split) for split in ("test", "validation")},
        scorers=_scorers(found),
        head=["variant", "scorer", *map(label, columns("comparison"))],
        scorer_label=scorers.label,
        differences=_differences(found),
        new_items=new_item_rows(found),
        new_items_line=new_item_line(found["new_items"]) if found["new_items"] else "",
        remarks=_remarks(found),
        figures=figures,
        groupings=GROUPINGS,
        slices=[(kind, groups) for kind, groups in found["slices"].items() if groups],
        coloured=f"; green and red: the 95% interval of the difference to {found['reference']} leaves out 0"
        if any(about["against"] for about in found["variants"].values())
        else "",
        interval=_interval,
        configuration=dump(dict(experiment), width=100),
    )


def plot_files(found: Found) -> dict[str, bytes]:
    """The report's plots as PNG files: content by file name."""
    return {f"{name}.png": as_png(drawn) for name, (drawn, _) in _figures(found).items()}


def table_markdown(found: Found) -> str:
    """The comparison as Markdown: protocol, a row a variant, what failed."""
    shown = [
        metric
        for metric in columns("comparison")
        if any(metric in about["test"] for about in found["variants"].values())
    ]
    head = ["variant", "scorer", *map(label, shown), f"NDCG@10 − {found['reference']}"]
    lines = [f"*{_protocol(found, 'test')}*", "", _line(head), _line(["---", "---", *["---:"] * (len(shown) + 1)])]
    for name, about in found["variants"].items():
        cells = [spread(metric, about["test"].get(metric)) for metric in shown]
        against = about["against"].get("ndcg_at_10")
        named = marked(_linked(name, about), about)
        lines.append(_line([named, scorers.label(about["scorer"]), *cells, _interval(against) if against else ""]))
    lines += ["", " ".join(filter(None, [_explained(found), _uneven(found)]))]
    for mark, means in marks_of(found).items():
        lines += ["", f"{mark} {means}"]
    if rows := new_item_rows(found):
        lines += ["", f"*{new_item_line(found['new_items'])}*", ""]
        lines += [_line(rows[0]), _line(["---", "---", *["---:"] * (len(rows[0]) - 2)]), *map(_line, rows[1:])]
    for each in found.get("failed", ()):
        lines += ["", f"Failed: {failure(each)}"]
    return "\n".join(lines)


def failure(each: Mapping[str, Any]) -> str:
    """What failed, in which stage if it came to one, and why."""
    stage = f", in {each['stage']}" if each["stage"] else ""
    return f"{each['variant']}, seed {each['seed']}{stage}: {each['reason']}"


def _linked(name: str, about: Mapping[str, Any]) -> str:
    pages = [f"[{run['seed']}]({run['page']})" for run in about["runs"] if run.get("page")]
    return f"{name} (seed {', '.join(pages)})" if pages else name


def _explained(found: Found) -> str:
    spread = "± is the standard deviation between seeds. " if len(found["seeds"]) > 1 else ""
    return (
        f"{spread}In brackets: 95% interval of the difference, {found['bootstrap_samples']:,} resamples of test users, "
        "each user's value being the mean over seeds."
    )


def _uneven(found: Found) -> str:
    """Which variants lack seeds that others have; "" where none does."""
    every = set(found["seeds"])
    lacking = {name: about["seeds"] for name, about in found["variants"].items() if set(about["seeds"]) != every}
    if not lacking:
        return ""
    named = "; ".join(f"{name} seed {', '.join(map(str, seeds))} alone" for name, seeds in lacking.items())
    return (
        f"Not every variant has every seed ({named}): a difference is over those that both have, a mean over its own."
    )


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def spread(metric: str, value: Mapping[str, Any] | None) -> str:
    """The mean of a metric over seeds and the deviation between them, as of `compare_variants`; a dash for nothing."""
    if value is None:
        return "–"
    deviation = value["deviation"]
    return figure(metric, value["mean"]) + ("" if deviation is None else f" ± {figure(metric, deviation)}")


def _interval(against: Mapping[str, float]) -> str:
    return f"{signed(against['difference'])} [{signed(against['low'])}, {signed(against['high'])}]"


def _seeds(found: Found) -> str:
    return ", ".join(map(str, found["seeds"]))


def _protocol(found: Found, split: str) -> str:
    return protocol_line({**found["protocol"], "seed": _seeds(found)}, split)


def _table(found: Found, split: str) -> dict[str, Any]:
    """Columns, and a row a variant: name and cells of text, deviation and whether it is the best of its column."""
    variants = found["variants"]
    shown = [metric for metric in _measured() if any(metric in about[split] for about in variants.values())]
    # What is apart is best of nothing, unless all are.
    rivals = [about for about in variants.values() if not about["apart"]] or list(variants.values())
    best = {
        metric: max((about[split][metric]["mean"] for about in rivals if metric in about[split]), default=None)
        for metric in shown
    }
    rows = []
    for name, about in variants.items():
        cells = []
        for metric in shown:
            value = about[split].get(metric)
            cells.append(
                ("–", "", False)
                if value is None
                else (
                    figure(metric, value["mean"]),
                    "" if value["deviation"] is None else figure(metric, value["deviation"]),
                    about in rivals and value["mean"] == best[metric] and len(rivals) > 1,
                )
            )
        rows.append((name, cells))
    return {"columns": list(map(label, shown)), "rows": rows}


def _measured() -> tuple[str, ...]:
    """All metrics of ranks, and those of lists that are shown in comparisons."""
    return (*columns("page", "ranks"), *columns("comparison", "lists"))


def _scorers(found: Found) -> list[list[str]]:
    """Every scorer of every variant: variant, scorer, figures, difference to the reference's same scorer."""
    rows = []
    for name, about in found["variants"].items():
        for scorer, measured in about["scorers"].items():
            against = measured["against"].get("ndcg_at_10")
            figures = [spread(metric, measured["test"].get(metric)) for metric in columns("comparison")]
            rows.append([name, scorers.label(scorer), *figures, _interval(against) if against else "–"])
    return rows


def new_item_rows(found: Found) -> list[list[str]]:
    """The figures of new items as plain rows, a header first; [] where no variant has any."""
    head = ["variant", "scorer", "new, Recall@10", "new, Recall@50", "others, Recall@10", "share of the first ten",
            f"new, Recall@10 − {found['reference']}"]  # fmt: skip
    rows = []
    for name, about in found["variants"].items():
        for scorer, measured in about["new_items"].items():
            new, known = measured["new"], measured["known"]
            against = measured["against"].get("recall_at_10")
            asked = ((new, "recall_at_10"), (new, "recall_at_50"), (known, "recall_at_10"))
            figures = [spread(metric, group.get(metric)) for group, metric in asked]
            told = _interval(against) if against else "–"
            rows.append([name, scorers.label(scorer), *figures, f"{measured['share_at_10']:.1%}", told])
    return [head, *rows] if rows else []


def _differences(found: Found) -> list[list[str]]:
    """Variant, metric, difference, interval, in how many seeds it is above the reference."""
    return [
        [
            name,
            label(metric),
            signed(against["difference"]),
            f"{signed(against['low'])} to {signed(against['high'])}",
            f"{against['seeds_above']} of {against['seeds']}",
        ]
        for name, about in found["variants"].items()
        for metric, against in about["against"].items()
    ]


def _remarks(found: Found) -> list[str]:
    """What a careful reader would remark on."""
    reference, kinds = found["reference"], {"is better than": [], "cannot be told from": [], "is worse than": []}  # type: ignore[var-annotated]
    for name, about in found["variants"].items():
        if against := about["against"].get("ndcg_at_10"):
            kind = "is worse than" if against["low"] > 0 else "is better than" if against["high"] < 0 else ""
            kinds[kind or "cannot be told from"].append(name)
    remarks = [f"In NDCG@10 {reference} {kind} {', '.join(names)}." for kind, names in kinds.items() if names]
    without: dict[str, list[str]] = {}
    for name, about in found["variants"].items():
        for text in about["not_applied"]:
            without.setdefault(text, []).append(name)
    for text, names in without.items():
        more = "" if reference in names else f"; from {reference} they differ in this too"
        remarks.append(f"Not applied in {', '.join(names)}: {text}{more}.")
    remarks += [f"{name}: {text}." for name, about in found["variants"].items() for text in about["remarks"]]
    if found["variants"].get(reference, {}).get("apart") and not all(
        about["apart"] for about in found["variants"].values()
    ):
        remarks.append(f"{reference} trained on the validation items, so what did not is not held against it.")
    apart = [about["apart"] for about in found["variants"].values()]
    known = " What is marked † knows the stretch before the test, too." if any(apart) and not all(apart) else ""
    remarks.append(f"{leak_line(found['protocol'])}.{known}")
    if len(found["seeds"]) == 1:
        remarks.append("One seed alone: how much another seed would change is not known.")
    if reference not in found["variants"]:
        remarks.append(f"{reference} was not measured, so nothing is held against it.")
    return remarks


def _figures(found: Found) -> dict[str, tuple[Figure, str]]:
    """Every plot for which there is something to show, and what it says to those who cannot see it."""
    variants = found["variants"]
    told = ", ".join(f"{name} {about['test']['ndcg_at_10']['mean']:.4f}" for name, about in variants.items())
    drawn = {"values": (plots.values(found), f"NDCG and Recall at 10 of every variant and seed. NDCG at 10: {told}.")}
    # Far-off baselines would press the rest together, so what generates or is ranked has a scale of its own.
    for key, generating in (("generators", True), ("baselines", False)):
        names = [
            name
            for name, about in variants.items()
            if about["against"] and scorers.about(about["scorer"]).generates is generating
        ]
        if names:
            words = "; ".join(f"{name} {_interval(variants[name]['against']['ndcg_at_10'])}" for name in names)
            drawn[key] = (plots.forest(found, names), f"Differences to {found['reference']} in NDCG at 10: {words}.")
    for kind, groups in found["slices"].items():
        if groups:
            words = "; ".join(
                f"{group['group']}: " + ", ".join(f"{name} {value:.4f}" for name, value in group["recall"].items())
                for group in groups
            )
            drawn[kind] = (plots.groups(found, kind), f"Recall at 10 by {kind.replace('_', ' ')}. {words}.")
    rows = {name: about["domination"] for name, about in variants.items() if about["domination"]}
    if rows:
        words = ", ".join(f"{name} {row['text_share']:.0%}" for name, row in rows.items())
        drawn["domination"] = (plots.domination(found), f"Share of shared neighbours with the text: {words}.")
    if found["new_items"]:
        words = ", ".join(
            f"{name} {about['new_items'][about['scorer']]['new']['recall_at_10']['mean']:.4f}"
            for name, about in variants.items()
            if about["new_items"]
        )
        drawn["new_items"] = (plots.new_items(found), f"Recall at 10 of new items, and of all others. New: {words}.")
    costs = {name: about["cost"]["seconds"] for name, about in variants.items() if about["cost"]}
    if costs:
        words = ", ".join(f"{name} {seconds:,.0f}" for name, seconds in costs.items())
        drawn["cost"] = (plots.cost(found), f"Seconds and parameters of every variant. Seconds: {words}.")
    return drawn
