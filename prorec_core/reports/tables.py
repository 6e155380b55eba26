"""Metrics as tables and sentences. Knows the layout of metrics.json; knows nothing of models, HTML or terminals."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prorec_core.data.times import shown_time
from prorec_core.generation.ranker_file import RANKER_FILE
from prorec_core.metrics import scorers
from prorec_core.metrics.scorers import in_order
from prorec_core.metrics.table import columns, figure, label

_LEAVE_ONE_OUT = "leave-one-out"
_ALPHA_ADVISED = 1.0
"""Below this weight of the alignment a greater one is advised as a trial for new items."""
_REFERENCE = {
    "text_only": "best from text alone",
    "best": "best reachable",
}


@dataclass(frozen=True)
class Cell:
    """One figure of a table: its text, the standard error beside it ("" where there is none), whether it is best."""

    text: str
    error: str = ""
    best: bool = False


def signed(value: float, decimals: int = 4) -> str:
    """A difference for people, with a true minus sign; one that rounds to nothing has no sign.

    >>> signed(0.01234), signed(-0.5, 1), signed(-0.00001)
    ('+0.0123', '−0.5', '0.0000')
    """
    text = f"{value:+.{decimals}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def cells(
    measured: Mapping[str, Mapping[str, float]], metrics: Iterable[str], *, mark_best: bool = True
) -> list[tuple[str, list[Cell]]]:
    """A table's rows: each scorer with its figures; equal best figures are all marked.

    Args:
        measured: metrics by scorer, as in metrics.json under a split.
        metrics: the columns; what a scorer lacks is shown as a dash.
        mark_best: mark the highest figure of a column.
    """
    shown = list(metrics)
    best = {
        metric: max((found[metric] for found in measured.values() if metric in found), default=None) for metric in shown
    }
    rows = []
    for scorer in in_order(measured):
        found, row = measured[scorer], []
        for metric in shown:
            if metric not in found:
                row.append(Cell("–"))
                continue
            error = found.get(f"{metric}_standard_error")
            is_best = mark_best and len(measured) > 1 and found[metric] == best[metric]
            row.append(Cell(figure(metric, found[metric]), "" if error is None else f"{error:.4f}", is_best))
        rows.append((scorer, row))
    return rows


def present(measured: Mapping[str, Mapping[str, float]], metrics: Sequence[str]) -> list[str]:
    """Those of some metrics that at least one scorer has."""
    return [metric for metric in metrics if any(metric in found for found in measured.values())]


def reference_names(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What is known of the data by construction (metrics.json's `reference`): its names, in order, and in words."""
    # An earlier evaluation may have one that was no bound.
    found = {name: known for name, known in metrics.get("reference", {}).items() if name != "behaviour_only"}
    return {name: words for name, words in _REFERENCE.items() if name in found} | {
        name: name.replace("_", " ") for name in sorted(set(found) - set(_REFERENCE))
    }


def protocol_line(protocol: Mapping[str, Any], split: str = "test") -> str:
    """The protocol in one sentence: what stands above every table.

    Args:
        protocol: metrics.json's `protocol`.
        split: "test" or "validation".
    """
    ties, left_out = "kept as in the input", protocol.get("left_out", {}).get(split, 0)
    if protocol["ties"] == "shuffle":
        ties = f"shuffled with seed {protocol['ties_seed']}"
    return " · ".join(
        [
            _asked(protocol, split),
            f"item-level, over the whole catalogue of {protocol['items']:,} items",
            "history masked" if protocol["history_masked"] else "history not masked",
            *(["trained on the validation items too"] if protocol.get("trained_on_validation") else []),
            f"ties in time {ties}",
            f"lists of {protocol['list_length']} items",
            *([f"{protocol['beams']} beams"] if "beams" in protocol else []),
            _how_many(protocol, split),
            *([f"{left_out:,} more left out, on which an earlier version was trained"] if left_out else []),
            f"seed {protocol['seed']}",
        ]
    )


def leak_line(protocol: Mapping[str, Any]) -> str:
    """What a figure knows that a shop would not know, or who stays outside; in one sentence."""
    kind = protocol.get("split", _LEAVE_ONE_OUT)
    if kind == "by time":
        held = "test" if protocol.get("trained_on_validation") else "validation"
        return (
            f"Split by time: nothing that anybody did once the {held} had begun was trained on, and whoever came in "
            "the stretch of the test is asked about, at the moment of each interaction"
        )
    order = "each user's last item is" if kind == _LEAVE_ONE_OUT else "each user's last items are"
    return (
        f"{kind[0].upper()}{kind[1:]} leaks the future: {order} held back whenever that was, so other users' later "
        "interactions are trained on (what became popular, what went together); such figures compare methods, and are "
        "higher than what a shop would see (data.split=by_time)"
    )


def unseen_line(protocol: Mapping[str, Any], split: str = "test") -> str:
    """How many targets are of users or items that training never saw; "" where that is not counted."""
    if not (found := protocol.get("unseen", {}).get(split)):
        return ""
    total = found["targets"]

    def share(part: int) -> str:
        return f"{part:,} of {total:,} {split} targets ({part / total:.1%})"

    if not (found["targets_of_new_users"] or found["targets_of_new_items"] or found["without_history"]):
        return ""
    without = found["without_history"]
    empty = f"; before {without:,} there is no history at all, and popular items are recommended" if without else ""
    told = []
    if found["targets_of_new_users"]:
        told.append(
            f"{share(found['targets_of_new_users'])} are of {found['new_users']:,} users whom training never saw{empty}"
        )
    elif without:
        told.append(f"{share(without)} have no history before them, and popular items are recommended")
    if found["targets_of_new_items"]:
        told.append(
            f"{share(found['targets_of_new_items'])} are of {found['new_items']:,} items that training never saw, and "
            "count as missed wherever the catalogue lacks them"
        )
    return ". ".join(told)


def _asked(protocol: Mapping[str, Any], split: str) -> str:
    """Which targets are asked for."""
    kind = protocol.get("split", _LEAVE_ONE_OUT)
    if kind == _LEAVE_ONE_OUT:
        return f"leave-one-out, {'last' if split == 'test' else 'last but one'} item of each user as {split} target"
    what = "every interaction" if protocol["targets"] == "all" else "each user's first interaction"
    if kind == "by position":
        share = "last share" if split == "test" else "share before the test"
        return f"by position, for want of a clock: {what} in the {share} of each user's own history as {split} target"
    unit = protocol["unit"]
    until = f" until {shown_time(protocol['test_from'], unit)}" if split == "validation" else ""
    return f"by time: {what} from {shown_time(protocol[f'{split}_from'], unit)} on{until} as {split} target"


def _how_many(protocol: Mapping[str, Any], split: str) -> str:
    users = f"{protocol[f'{split}_users']:,} {split} users"
    if protocol.get("split", _LEAVE_ONE_OUT) == _LEAVE_ONE_OUT:
        return users
    return f"{users} with {protocol[f'{split}_targets']:,} targets, figures are means over users of their own means"


def result_rows(metrics: Mapping[str, Any], split: str = "test") -> list[list[str]]:
    """The result as plain rows: a header, then a row a scorer. Standard errors stand beside recall and NDCG at 10."""
    measured = metrics[split]
    shown = present(measured, columns("result"))
    rows = [["scorer", *map(label, shown)]]
    for scorer, row in cells(measured, shown):
        rows.append(
            [scorers.label(scorer), *(f"{cell.text} ± {cell.error}" if cell.error else cell.text for cell in row)]
        )
    return rows


def result_markdown(metrics: Mapping[str, Any]) -> str:
    """The result as Markdown: the protocol, the test table with best values bold, the comparisons."""
    measured = metrics["test"]
    shown = present(measured, columns("result"))
    lines = [
        f"*{protocol_line(metrics['protocol'])}*",
        "",
        _line(["scorer", *map(label, shown)]),
        _line(["---", *["---:"] * len(shown)]),
    ]
    for scorer, row in cells(measured, shown):
        texts = [f"**{cell.text}**" if cell.best else cell.text for cell in row]
        texts = [f"{text} ± {cell.error}" if cell.error else text for text, cell in zip(texts, row, strict=True)]
        lines.append(_line([scorers.label(scorer), *texts]))
    if told := [*metrics.get("warnings", []), *filter(None, [unseen_line(metrics["protocol"])])]:
        lines += ["", *(f"- {html.escape(text, quote=False)}." for text in told)]
    told = ["± is the standard error over users."]
    if metrics.get("recommended"):
        told.append(f"Recommended by: {scorers.label(metrics['recommended'])}.")
    if metrics.get("fusion_weight") is not None:
        told.append(f"Weight of the dense score in fused: λ = {metrics['fusion_weight']:g}.")
    lines += ["", " ".join(told)]
    if known := reference_names(metrics):
        told = []
        for name, words in known.items():
            figures = [f"{label(metric)} {value:.4f}" for metric, value in metrics["reference"][name].items()]
            told.append(f"{words} {', '.join(figures)}")
        lines += ["", f"Known of this data by construction: {'; '.join(told)}."]
    if chosen := heuristic_line(metrics):
        lines += ["", chosen]
    if shortcut := metrics.get("shortcut"):
        lines += ["", f"*{shortcut_line(shortcut)}*"]
        if rows := shortcut_rows(metrics):
            lines += ["", _line(rows[0]), _line(["---", *["---:"] * (len(rows[0]) - 1)]), *map(_line, rows[1:])]
    if new := metrics.get("new_items"):
        head, *rows = new_item_rows(new)
        lines += ["", f"*{new_item_line(new)}*", "", _line(head), _line(["---", *["---:"] * (len(head) - 1)])]
        lines += map(_line, rows)
    if metrics.get("comparisons"):
        lines += ["", _line(["difference", "metric", "mean", "95% interval"]), _line(["---", "---", "---:", "---"])]
        for row_texts in comparison_rows(metrics["comparisons"]):
            lines.append(_line(row_texts))
    return "\n".join(lines)


def chosen_settings(metrics: Mapping[str, Any], name: str) -> list[str]:
    """What validation chose, as settings to train on the validation items too; [] where it cannot be set.

    Args:
        metrics: of the evaluation.
        name: of the experiment.
    """
    recommended, weight = metrics["recommended"], metrics["fusion_weight"]
    if metrics["protocol"]["trained_on_validation"] or not metrics.get("validation_tells", True):
        return []
    if recommended not in {"ranked", "fused"}:
        return []
    ranker = "generator.ranker=false"
    if file := ranker_file(metrics, name):
        ranker = f"generator.ranker_file={file}"
    elif recommended == "ranked":
        weights = ",".join(f"{each:.6g}" for each in metrics["ranker"]["weights"])
        ranker = f"generator.ranker_weights=[{weights}]"
    # Where there is no dense score, a weight has to be given all the same.
    return ["train_on_validation=true", f"evaluate.fusion_weights=[{1 if weight is None else weight:g}]", ranker]


def heuristic_line(metrics: Mapping[str, Any]) -> str:
    """The numbers of a heuristic and how they came about, in one sentence; "" where none was measured."""
    if not (found := metrics.get("heuristic")):
        return ""
    numbers = ", ".join(f"{name} {value:g}" for name, value in found["chosen"].items())
    if not found["trials"]:
        return f"Numbers of the heuristic, as by default: {numbers}."
    return f"Numbers of the heuristic, chosen by validation NDCG@10 among {len(found['trials'])} settings: {numbers}."


def shortcut_line(found: Mapping[str, Any]) -> str:
    """How many test targets a shortcut finds, in one sentence.

    Args:
        found: metrics.json's `shortcut`.
    """
    sampled = f" (of {found['of']:,}, evenly spaced)" if found["targets"] < found["of"] else ""
    return (
        f"A shortcut that needs no training has {found['found']:,} of {found['targets']:,} test targets{sampled}, "
        f"{found['share']:.1%}, within its first ten. It is a walk over what followed what in training, from the "
        "user's latest two items. The others need more than that"
    )


def shortcut_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Each scorer on all test targets and on those that the shortcut lacks, as plain rows: a header, then a row a
    scorer; [] where the shortcut lacks none."""
    rest = metrics["shortcut"]["rest"]
    if not rest:
        return []
    shown = present(
        rest, [metric for metric in columns("result") if f"{metric}_standard_error" in next(iter(rest.values()))]
    )
    rows = [["scorer", *(f"{label(metric)}, {where}" for metric in shown for where in ("all", "the others"))]]
    for scorer in in_order(rest):
        told = [
            f"{figure(metric, of[scorer][metric])} ± {of[scorer][f'{metric}_standard_error']:.4f}"
            for metric in shown
            for of in (metrics["test"], rest)
        ]
        rows.append([scorers.label(scorer), *told])
    return rows


def new_item_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The figures of new items (metrics.json's `new_items`) as plain rows: a header, then a row a scorer."""
    groups = {"new": "new", "known": "others"} | ({"all": "all"} if "all" in found else {})
    shown = [
        (group, metric) for group in groups for metric in present(found[group], [f"recall_at_{k}" for k in (10, 50)])
    ]
    rows = [["scorer", *(f"{groups[group]}, {label(metric)}" for group, metric in shown), "share of the first ten"]]
    for scorer in in_order(found["new"]):
        told = [
            f"{found[group][scorer][metric]:.4f} ± {found[group][scorer][f'{metric}_standard_error']:.4f}"
            for group, metric in shown
        ]
        rows.append([scorers.label(scorer), *told, f"{found['share_at_10'][scorer]:.1%}"])
    return rows


def new_item_line(found: Mapping[str, Any]) -> str:
    """What the figures of new items were measured on, in one sentence."""
    bonus = f" · {found['bonus']:g} nats added to the score of each new item" if found["bonus"] else ""
    if found.get("by_time"):
        return (
            f"{found['items']:,} new items, {found['share_of_catalogue']:.1%} of the catalogue, which training never "
            f"saw, placed by their text · {found['interactions']:,} test targets are such · new and other items ranked "
            f"together{bonus}"
        )
    return (
        f"{found['items']:,} new items, {found['share_of_catalogue']:.1%} of the catalogue, no interaction with them "
        f"in training or validation · {found['interactions']:,} users took one last · new and other items ranked "
        f"together{bonus}"
    )


def alignment_advice(experiment: Mapping[str, Any]) -> str:
    """When more alignment is worth a trial for new items; "" where there is much, or where it does not count."""
    align, quantize = experiment.get("align"), experiment.get("quantize")
    if not align or not quantize or quantize["embedding"] != "integrated" or align["alpha"] >= _ALPHA_ADVISED:
        return ""
    return (
        "A new item is placed by its text, through the adapter that alignment trains; its weight here, align.alpha, is "
        f"{align['alpha']:g}. Where many items are new, compare 1 and 10 with it: on the built-in shop, whose texts "
        "tell outright what an item is, they find several times as many new items and hardly fewer others; on Amazon "
        "Beauty no more new ones, and fewer others."
    )


def ranker_file(metrics: Mapping[str, Any], name: str) -> str:
    """The file beside the report of an experiment that holds its ranker; "" where weights, or no ranker, recommend."""
    return f"{name}-{RANKER_FILE}" if metrics["recommended"] == "ranked" and metrics["ranker"].get("network") else ""


def comparison_rows(comparisons: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """Differences between scorers as plain rows: what, metric, mean difference, interval."""
    return [
        [
            difference(name),
            label(metric),
            signed(found["difference"]),
            f"{signed(found['low'])} to {signed(found['high'])}",
        ]
        for name, by_metric in comparisons.items()
        for metric, found in by_metric.items()
    ]


def difference(name: str) -> str:
    """The name of a comparison for people.

    >>> difference("fused_minus_aligned")
    'fused − Stage I'
    """
    return " − ".join(scorers.label(each) for each in name.split("_minus_"))


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"
