"""The code table as a tree, drawn from left to right. Knows codes and texts; knows nothing of models or files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from prorec_core.reports.drawing import INK, panels, style

_ROWS = 1500
"""Of the picture at most: who has more items sees every so many of them."""
_READ = 20_000
"""Texts that words are taken from at most, evenly spaced."""
_ROOM = 0.024
"""Share of the height that a line of words takes."""
_WORDS = 3
_LEAST_LETTERS = 4


def code_tree(codes: npt.NDArray[np.uint16], texts: Sequence[str]) -> Figure:
    """A column a level, in it a block a node of the tree of codes, as high as it has items below it.

    Beside the blocks of the first level stand the words that their items' texts have more often than others'.

    Args:
        codes: the code table, shape (items, levels).
        texts: of the same items.
    """
    n_items, levels = codes.shape
    order = np.lexsort(codes.T[::-1])
    begins = np.logical_or.accumulate(np.diff(codes[order].astype(np.int32), axis=0, prepend=-1) != 0, axis=1)
    nodes = begins.cumsum(axis=0) - 1
    rows = np.linspace(0, n_items - 1, min(n_items, _ROWS)).astype(np.int64)
    hues = colormaps["turbo"](0.08 + 0.84 * nodes[rows, 0] / max(int(nodes[-1, 0]), 1))[:, :3]
    with style():
        figure, (axes,) = panels(1, height=6.2)
        for level in range(levels):
            # Neighbours differ, and the deeper the paler.
            paler = np.minimum(0.35 + 0.1 * level + 0.16 * (nodes[rows, level] % 2), 0.85)[:, None]
            axes.imshow(
                (hues + (1 - hues) * paler)[:, None],
                extent=(level, level + 0.96, n_items, 0),
                aspect="auto",
                interpolation="nearest",
            )
        starts = np.flatnonzero(begins[:, 0])
        ends = np.append(starts[1:], n_items)
        words = _telling_words(texts, order, nodes[:, 0])
        for start, end, told in zip(starts.tolist(), ends.tolist(), words, strict=True):
            if end - start >= _ROOM * n_items:
                axes.text(0.03, (start + end) / 2, told, va="center", fontsize=7.5, color=INK)
        axes.set(xlim=(0, levels), ylim=(n_items, 0), ylabel="items, in the order of their codes")
        axes.set_xticks(np.arange(levels) + 0.48, [f"code {level}" for level in range(levels)])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _telling_words(texts: Sequence[str], order: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> list[str]:
    """Of each group of items the words that its texts have more often than all.

    Args:
        texts: of all items.
        order: the items, group by group.
        groups: of the items in that order, numbered from 0.
    """
    here: list[Counter[str]] = [Counter() for _ in range(int(groups[-1]) + 1)]
    sizes, everywhere = Counter[int](), Counter[str]()
    read = np.linspace(0, len(order) - 1, min(len(order), _READ)).astype(np.int64)
    for item, group in zip(order[read].tolist(), groups[read].tolist(), strict=True):
        words = {word for word in re.findall(r"\w+", texts[item].lower()) if len(word) >= _LEAST_LETTERS}
        here[group].update(words)
        everywhere.update(words)
        sizes[group] += 1
    told = []
    for group, counts in enumerate(here):
        more = {word: n / sizes[group] - everywhere[word] / len(read) for word, n in counts.items()}
        best = sorted((word for word in more if more[word] > 0), key=lambda word: (-more[word], word))
        told.append(", ".join(best[:_WORDS]))
    return told
