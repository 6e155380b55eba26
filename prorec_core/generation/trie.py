"""The trie of all items' codes, as tensors. Knows codes and items; knows nothing of models, users or text.

Axes: N items, D dimensions, C children of a node (padded). Level 0 is the root, level `depth` the leaves, one
an item. Nodes of a level are numbered in the lexicographic order of their codes, so the children of a node
are contiguous, and so are the leaves below it: two numbers a node say which they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prorec_core.errors import UserError

WHOLE_TABLES = 65_536
"""Nodes of a level, or items of a catalogue, up to which search works on tables of all: whole rows of children, scores
of all nodes. Above, it costs what the nodes that it asks for have of children."""
_COLUMNS = 16
"""Dimensions of embeddings of which there are float64 sums at a time."""


@dataclass(frozen=True)
class CodeTrie:
    """Which codes exist after which, for a catalogue in which every item has its own tuple of codes.

    All tensors are int64.

    Attributes:
        n_nodes: number of nodes at levels 0 … depth; 1 at level 0 and the number of items at level `depth`.
        first_child: at levels 0 … depth-1, shape (n_nodes[l],): the children of a node are the nodes of level l+1
            from `first_child` on.
        n_children: at levels 0 … depth-1, shape (n_nodes[l],): how many they are, at least one.
        widest: at levels 0 … depth-1: most children of a node.
        node_code: at levels 0 … depth, shape (n_nodes[l],): a node's own code; 0 for the root.
        first_leaf, last_leaf: at levels 0 … depth, shape (n_nodes[l],): the leaves below a node are those
            from `first_leaf` up to, without, `last_leaf`.
        leaf_item: shape (N,): the item of a leaf.
        item_leaf: shape (N,): the leaf of an item.
        path: shape (N, depth): an item's node at levels 1 … depth.
        codes: shape (N, depth): an item's codes.
    """

    n_nodes: list[int]
    first_child: list[Tensor]
    n_children: list[Tensor]
    widest: list[int]
    node_code: list[Tensor]
    first_leaf: list[Tensor]
    last_leaf: list[Tensor]
    leaf_item: Tensor
    item_leaf: Tensor
    path: Tensor
    codes: Tensor

    @property
    def depth(self) -> int:
        """Number of codes of an item."""
        return len(self.n_children)

    @property
    def n_items(self) -> int:
        """Number of items N."""
        return len(self.leaf_item)

    @classmethod
    def from_codes(cls, codes: npt.NDArray[np.integer] | Tensor) -> CodeTrie:
        """Build the trie of a code table.

        Args:
            codes: one row of non-negative codes an item, shape (N, depth), any integer type.

        Raises:
            UserError: there are no items, or two items share a tuple of codes.
        """
        table = np.asarray(codes.cpu() if isinstance(codes, Tensor) else codes).astype(np.int64)
        if table.ndim != 2 or not table.size:
            raise UserError(
                f"a code table needs at least one item and one level, this one has shape {table.shape}",
                cure="Run the stage 'quantize' again",
            )
        n_items, depth = table.shape
        order = np.lexsort(table.T[::-1])
        rows = table[order]
        # begins[l] marks the leaves at which a node of level l begins, in the order of the leaves.
        begins = np.zeros((depth + 1, n_items), dtype=bool)
        begins[:, 0] = True
        begins[1:, 1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1).T
        if not begins[depth].all():
            twin = int(np.flatnonzero(~begins[depth])[0])
            raise UserError(
                f"items {order[twin - 1]} and {order[twin]} share the codes {tuple(rows[twin].tolist())}",
                cure="Run the stage 'quantize' again: its collision handling gives each item its own codes",
            )
        node_of_leaf = begins.cumsum(axis=1) - 1
        first = [np.flatnonzero(row) for row in begins]
        last = [np.append(row[1:], n_items) for row in first]
        first_child = [node_of_leaf[level + 1, first[level]] for level in range(depth)]
        n_children = [node_of_leaf[level + 1, last[level] - 1] + 1 - first_child[level] for level in range(depth)]
        item_leaf = np.empty(n_items, dtype=np.int64)
        item_leaf[order] = np.arange(n_items)
        root = [np.zeros(1, dtype=np.int64)]
        return cls(
            n_nodes=[len(row) for row in first],
            first_child=[torch.from_numpy(row) for row in first_child],
            n_children=[torch.from_numpy(count) for count in n_children],
            widest=[int(count.max()) for count in n_children],
            node_code=[torch.from_numpy(row) for row in root + [rows[first[k + 1], k].copy() for k in range(depth)]],
            first_leaf=[torch.from_numpy(row) for row in first],
            last_leaf=[torch.from_numpy(row) for row in last],
            leaf_item=torch.from_numpy(order),
            item_leaf=torch.from_numpy(item_leaf),
            path=torch.from_numpy(np.ascontiguousarray(node_of_leaf[1:, item_leaf].T)),
            codes=torch.from_numpy(table),
        )

    def to(self, device: torch.device | str) -> CodeTrie:
        """The same trie on another device."""
        return CodeTrie(
            n_nodes=self.n_nodes,
            first_child=[tensor.to(device) for tensor in self.first_child],
            n_children=[tensor.to(device) for tensor in self.n_children],
            widest=self.widest,
            node_code=[tensor.to(device) for tensor in self.node_code],
            first_leaf=[tensor.to(device) for tensor in self.first_leaf],
            last_leaf=[tensor.to(device) for tensor in self.last_leaf],
            leaf_item=self.leaf_item.to(device),
            item_leaf=self.item_leaf.to(device),
            path=self.path.to(device),
            codes=self.codes.to(device),
        )

    def children_of(self, level: int, nodes: Tensor, width: int | None = None) -> Tensor:
        """The children of nodes of a level (0 … depth-1).

        Args:
            level: of the nodes.
            nodes: int64, any shape.
            width: C, at least what any of them has; by default that of the largest family of the level, in a
                catalogue of more than `WHOLE_TABLES` items that of the nodes given.

        Returns:
            Nodes of the next level, ascending, padded with -1, int64, shape (…, C).
        """
        n_children = self.n_children[level][nodes].unsqueeze(-1)
        if width is None:
            narrow = self.n_items > WHOLE_TABLES and nodes.numel()
            width = int(n_children.max()) if narrow else self.widest[level]
        offset = torch.arange(width, device=nodes.device)
        children = self.first_child[level][nodes].unsqueeze(-1) + offset
        return children.masked_fill_(offset >= n_children, -1)

    def item_nodes(self, level: int, items: Tensor | None = None) -> Tensor:
        """The nodes of items (int64, any shape), or of each item, at a level (0 … depth), int64."""
        if items is None:
            return self.path[:, level - 1] if level else torch.zeros_like(self.item_leaf)
        return self.path[items, level - 1] if level else torch.zeros_like(items)

    def node_sums(self, level: int, values: Tensor) -> Tensor:
        """Sum values of items over the items below each node of a level.

        Args:
            level: 0 … depth.
            values: one value an item, shape (…, N), floating point.

        Returns:
            Shape (…, n_nodes[level]), of the type of `values`. Differentiable. On a CPU equal input gives
            equal bits; on a GPU the order of the additions is not fixed.
        """
        if level == self.depth:
            return values.index_select(-1, self.leaf_item)
        sums = values.new_zeros((*values.shape[:-1], self.n_nodes[level]))
        return sums.index_add(-1, self.item_nodes(level), values)

    def node_means(self, level: int, embeddings_ND: Tensor) -> Tensor:
        """Mean embedding of the items below each node of a level (0 … depth), added up in float64.

        Returns:
            Shape (n_nodes[level], D), of the type of `embeddings_ND`.
        """
        size = self.last_leaf[level] - self.first_leaf[level]
        means_ND = embeddings_ND.new_empty((self.n_nodes[level], embeddings_ND.shape[1]))
        for columns, target in zip(embeddings_ND.split(_COLUMNS, dim=1), means_ND.split(_COLUMNS, dim=1), strict=True):
            target.copy_((self.node_sums(level, columns.T.double()) / size).T)
        return means_ND
