"""The figures of `benchmarks.scale` as a table in Markdown and as a plot. Knows rows as scale.json has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prorec_core.reports.drawing import as_png, panels, style

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8f4f2a", "#7f7f7f")
"""After Okabe and Ito."""
_MARKS = "osD^vPX*h"
_GIB = 2**30


def markdown(found: Mapping[str, Any]) -> str:
    """A row a stage, a column a size: seconds, of them of the processor, and the peak; then what was not measured."""
    rows, machine = found["rows"], found["machine"]
    sizes = sorted({(row["items"], row["users"]) for row in rows})
    names = list(dict.fromkeys(row["stage"] for row in rows))
    cells = {(row["stage"], row["items"], row["users"]): row for row in rows}
    heads = " | ".join(f"{items:,} items, {users:,} users" for items, users in sizes)
    lines = [f"| stage | {heads} |", f"| --- |{' ---: |' * len(sizes)}"]
    for name in names:
        told = (_cell(cells.get((name, *size))) for size in sizes)
        lines.append(f"| `{name}` | {' | '.join(told)} |")
    totals = (_total([row for row in rows if (row["items"], row["users"]) == size]) for size in sizes)
    lines += [f"| all that was measured | {' | '.join(totals)} |", ""]
    lines.append("Seconds · seconds of the processor · largest memory of the process in GiB.")
    threads = f", {machine['threads']} thread" + "s" * (machine["threads"] > 1)
    device = f", {machine['device']}" if machine["device"] else ""
    lines.append(f"On {machine['cores']} cores ({machine['processor']}){threads}{device}.")
    lines += [f"| all that was measured | {' | '.join(totals)} |", ""]
    lines.append("Seconds · seconds of the processor · largest memory of the process in GiB.")
    device = f", {machine['device']}" if machine.get("device") else ""
    lines.append(f"On {machine['cores']} cores ({machine['processor']}){device}.")
    lines += [
        f"- `{row['stage']}`, {row['items']:,} items: not run: {row['why_not']}." for row in rows if row["why_not"]
    ]
    return "\n".join(lines) + "\n"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or not row["figures"]:
        return "–"
    of = row["figures"]
    device = f" + {of['device_bytes'] / _GIB:.2f}" if "device_bytes" in of else ""
    return f"{of['seconds']:,.1f} · {of['processor_seconds']:,.1f} · {of['peak_bytes'] / _GIB:.2f}{device}"


def _total(rows: list[Mapping[str, Any]]) -> str:
    measured = [row["figures"] for row in rows if row["figures"]]
    if not measured:
        return "–"
    seconds, worked = (sum(of[name] for of in measured) for name in ("seconds", "processor_seconds"))
    return f"{seconds:,.1f} · {worked:,.1f} · {max(of['peak_bytes'] for of in measured) / _GIB:.2f}"


def plot(found: Mapping[str, Any]) -> bytes:
    """Seconds of the processor, and peak memory, against the items; PNG."""
    rows = [row for row in found["rows"] if row["figures"]]
    names = list(dict.fromkeys(row["stage"] for row in found["rows"]))
    with style():
        figure, (left, right) = panels(2, width=10.0, height=4.2)
        for axes, title, unit, value in (
            (left, "Seconds of the processor", 1, "processor_seconds"),
            (right, "Largest memory of the process, GiB", _GIB, "peak_bytes"),
        ):
            for place, name in enumerate(names):
                own = sorted((row["items"], row["figures"][value] / unit) for row in rows if row["stage"] == name)
                colour, mark = _COLOURS[place % len(_COLOURS)], _MARKS[place % len(_MARKS)]
                at, costs = [size for size, _ in own], [cost for _, cost in own]
                axes.plot(at, costs, label=name, color=colour, marker=mark, markersize=4, linewidth=1.4)
            axes.set(xlabel="items", title=title)
            axes.set_xscale("log")
            axes.set_xticks(sorted({row["items"] for row in rows}), minor=False)
            axes.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
            axes.xaxis.set_minor_formatter(lambda *_: "")
        left.set_yscale("log")
        left.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:,g}")
        left.yaxis.set_minor_formatter(lambda *_: "")
        right.set_ylim(bottom=0)
        right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        figure.set_layout_engine("tight")
    return as_png(figure)
