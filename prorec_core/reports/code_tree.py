"""The code table as a tree, drawn from left to right. Knows codes and texts; knows nothing of models or files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from prorec_core.reports.drawing import INK, PAPER, panels, style

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
    order = np.lexsort(codes.T[::-1])
    ordered, n_items = codes[order], len(codes)
    starts_new = np.zeros(n_items, np.bool_)
    starts_new[:1] = True
    blocks: list[Rectangle] = []
    shades: list[tuple[float, ...]] = []
    first: list[tuple[int, int]] = []
    hues = colormaps["turbo"]
    with style():
        figure, (axes,) = panels(1, height=6.2)
        for level in range(codes.shape[1]):
            starts_new[1:] |= ordered[1:, level] != ordered[:-1, level]
            starts = np.flatnonzero(starts_new).tolist()
            nodes = list(zip(starts, [*starts[1:], n_items], strict=True))
            first = first or nodes
            top = np.searchsorted([start for start, _ in first], starts, side="right") - 1
            for number, (start, end) in enumerate(nodes):
                blocks.append(Rectangle((level, start), 0.96, end - start))
                hue = np.array(hues(0.08 + 0.84 * top[number] / max(len(first) - 1, 1))[:3])
                # Neighbours differ, and the deeper the paler.
                paler = 0.35 + 0.1 * level + 0.14 * (number % 2)
                shades.append(tuple(hue + (1 - hue) * min(paler, 0.85)))
        edge = PAPER if len(blocks) < 1500 else "none"
        axes.add_collection(PatchCollection(blocks, facecolors=shades, edgecolors=edge, linewidths=0.4))
        words = _telling_words([texts[item] for item in order], first)
        for (start, end), told in zip(first, words, strict=True):
            if end - start >= _ROOM * n_items:
                axes.text(0.03, (start + end) / 2, told, va="center", fontsize=7.5, color=INK)
        axes.set(xlim=(0, codes.shape[1]), ylim=(n_items, 0), ylabel="items, in the order of their codes")
        axes.set_xticks(np.arange(codes.shape[1]) + 0.48, [f"code {level}" for level in range(codes.shape[1])])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_visible(False)
    return figure


def _telling_words(texts: Sequence[str], groups: Sequence[tuple[int, int]]) -> list[str]:
    """Of each group of texts, by its first and the one after its last, the words that it has more often than all."""
    sets = [{word for word in re.findall(r"\w+", text.lower()) if len(word) >= _LEAST_LETTERS} for text in texts]
    everywhere = Counter(word for words in sets for word in words)
    told = []
    for start, end in groups:
        here = Counter(word for words in sets[start:end] for word in words)
        more = {word: n / (end - start) - everywhere[word] / len(sets) for word, n in here.items()}
        told.append(", ".join(sorted(more, key=lambda word: (-more[word], word))[:_WORDS]))
    return told
