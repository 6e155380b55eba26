"""A data set at a glance: how its interactions are spread over users and items. Knows sequences; knows no files."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prorec_core.data.sequences import Sequences
from prorec_core.reports.drawing import BEHAVIOUR_COLOUR, MUTED, TEXT_COLOUR, panels, style

_BINS = 30
_POINTS = 2000
"""Of a curve at most."""


def data_plot(sequences: Sequences) -> Figure:
    """How many items users have taken, and how often each item was taken, the most taken first."""
    lengths = np.diff(sequences.offsets)
    taken = np.sort(np.bincount(sequences.items, minlength=sequences.n_items))[::-1]
    width = max(1, -(-int(lengths.max() - lengths.min() + 1) // _BINS))
    edges = np.arange(lengths.min(), lengths.max() + width + 1, width)
    half = int(np.searchsorted(np.cumsum(taken), taken.sum() / 2)) + 1
    with style():
        figure, (users, items) = panels(2)
        users.hist(lengths, bins=(edges - 0.5).tolist(), color=BEHAVIOUR_COLOUR, rwidth=0.9)
        users.set(title=f"Histories of {sequences.n_users:,} users", xlabel="items in a history", ylabel="users")
        shown = np.unique(np.linspace(0, len(taken) - 1, _POINTS).astype(np.int64))
        items.fill_between(shown + 1, taken[shown], step="mid", color=TEXT_COLOUR)
        items.set(
            title=f"Use of {len(taken):,} items",
            xlabel="items, the most taken first",
            ylabel="times taken",
            xlim=(1, max(len(taken), 2)),
            ylim=(0, None),
        )
        items.axvline(half, color=MUTED, linewidth=1)
        items.annotate(
            f" half of all interactions\n are with these {half:,}",
            (half, taken.max() * 0.98),
            va="top",
            fontsize=8,
            color=MUTED,
        )
        for axes in (users, items):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure
