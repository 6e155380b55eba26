"""Hierarchical k-means: clusters, then clusters inside each cluster; codes are a path down a tree.

Knows embeddings and codes; knows nothing of items or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from prorec_core.config import QuantizeConfig
from prorec_core.progress import Progress, Report, silent
from prorec_core.quantization.kmeans import kmeans, level_seed
from prorec_core.quantization.quantizer import Codes, Floats, Quantizer, State, nearest, relative_error

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Level:
    """The nodes of one level, those of one parent together, in the order of their codes.

    Attributes:
        centroids: float32, shape (nodes, D).
        first: children of node p of the level above are `centroids[first[p]:first[p + 1]]`, int64.
    """

    centroids: Floats
    first: Indices


class HierarchicalKMeans(Quantizer):
    """A tree of clusters; an embedding is reconstructed as the centroid of the deepest cluster on its path.

    The first level has K clusters. A cluster of m items with r levels to go is split into at most ceil(m^(1/r))
    clusters (and at most K), so that the items spread over all levels instead of standing alone after two.
    A code of a deeper level means something only below its parent; siblings are numbered along the direction in
    which the clusters of their level differ most from their parents.
    """

    def __init__(self, root: Floats, tree: list[_Level]) -> None:
        """`root`: the mean of all items, shape (1, D); `tree`: the levels below it."""
        self._root = root
        self._tree = tree
        self.levels = len(tree)

    @classmethod
    def fit(
        cls, embeddings_ND: Floats, config: QuantizeConfig, seed: int, report: Report = silent
    ) -> tuple[Self, Codes]:
        root = embeddings_ND.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        above, node = root, np.zeros(len(embeddings_ND), np.int64)
        tree, codes = [], []
        for level in range(config.levels):
            groups = _groups(node, len(above))
            split = []
            for parent, members in enumerate(groups):
                to_go = config.levels - level
                wanted = config.codes if level == 0 else math.ceil(len(members) ** (1 / to_go) - 1e-9)
                split.append(
                    kmeans(
                        embeddings_ND[members],
                        max(1, min(wanted, config.codes)),
                        config.iterations,
                        level_seed(seed, level, parent),
                    )
                    if len(members)
                    else above[parent : parent + 1]
                )
            found = _number(split, above)
            code, node = _descend(embeddings_ND, node, found)
            tree.append(found)
            codes.append(code)
            above = found.centroids
            error = relative_error(embeddings_ND, above[node])
            report(Progress(level + 1, config.levels, "level", {"relative_error": error}))
        return cls(root, tree), np.stack(codes, axis=1).astype(np.uint16)

    def encode(self, embeddings_ND: Floats) -> Codes:
        node = np.zeros(len(embeddings_ND), np.int64)
        codes = []
        for level in self._tree:
            code, node = _descend(embeddings_ND, node, level)
            codes.append(code)
        return np.stack(codes, axis=1).astype(np.uint16)

    def decode(self, codes_Nl: Codes) -> Floats:
        found = np.repeat(self._root, len(codes_Nl), axis=0)
        node = np.zeros(len(codes_Nl), np.int64)
        exists = np.ones(len(codes_Nl), dtype=bool)
        for level, codes in zip(self._tree, codes_Nl.T.astype(np.int64), strict=False):
            exists &= codes < np.diff(level.first)[node]
            node = np.where(exists, level.first[node] + codes, 0)
            found[exists] = level.centroids[node[exists]]
        return found

    def state(self) -> State:
        state: State = {"root": self._root}
        for number, level in enumerate(self._tree):
            state |= {f"centroids.{number}": level.centroids, f"first.{number}": level.first}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        levels = range(len(state) // 2)
        return cls(
            state["root"],
            [_Level(state[f"centroids.{level}"], state[f"first.{level}"]) for level in levels],
        )


def _groups(node_N: Indices, n_nodes: int) -> list[Indices]:
    """The points of each node, ascending."""
    order = np.argsort(node_N, kind="stable")
    return np.split(order, np.cumsum(np.bincount(node_N, minlength=n_nodes))[:-1])


def _number(split: list[Floats], above: Floats) -> _Level:
    """Join the children of all parents, siblings ordered along the level's first principal axis."""
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(children) for children in split])])
    centroids = np.concatenate(split)
    parent = np.repeat(np.arange(len(split)), np.diff(first))
    steps = centroids.astype(np.float64) - above[parent]
    axis = np.linalg.eigh(steps.T @ steps)[1][:, -1]
    axis *= np.sign(axis[np.abs(axis).argmax()])
    return _Level(centroids[np.lexsort((steps @ axis, parent))], first)


def _descend(embeddings_ND: Floats, node_N: Indices, level: _Level) -> tuple[Indices, Indices]:
    """From a node each to its nearest child: the child's code and its node."""
    code = np.zeros(len(embeddings_ND), np.int64)
    for parent, members in enumerate(_groups(node_N, len(level.first) - 1)):
        children = level.centroids[level.first[parent] : level.first[parent + 1]]
        if len(members) and len(children) > 1:
            code[members] = nearest(embeddings_ND[members], children)
    return code, level.first[node_N] + code
