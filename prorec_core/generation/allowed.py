"""Which items may be recommended, as search asks for it: a mask of the catalogue, and counts below the trie's nodes.

Knows items and the trie; knows nothing of why an item is allowed, or of users. Axes: N items, U users, B beams, C
children of a node (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prorec_core.generation.trie import CodeTrie


@dataclass(frozen=True, eq=False)
class AllowedItems:
    """The items of a catalogue that one rule leaves. All users of the rule share it, and so do all levels of the trie.

    Attributes:
        mask_N: which items, bool, in the order of the items.
        before_N1: how many of the first 0, 1, … N leaves of the trie are allowed, int64: leaves stand in the order of
            their codes, so what is allowed below any node is one subtraction.
        count: how many items are allowed.
    """

    mask_N: Tensor
    before_N1: Tensor
    count: int

    @classmethod
    def of(cls, trie: CodeTrie, mask_N: Tensor) -> AllowedItems:
        """What a mask of the items (bool, on any device) leaves of the trie, on the device of the trie."""
        mask_N = mask_N.to(trie.leaf_item.device)
        before_N1 = torch.zeros(trie.n_items + 1, dtype=torch.int64, device=mask_N.device)
        torch.cumsum(mask_N[trie.leaf_item], 0, out=before_N1[1:])
        return cls(mask_N, before_N1, int(before_N1[-1]))

    def below(self, trie: CodeTrie, level: int, nodes: Tensor) -> Tensor:
        """How many allowed items there are below nodes (int64, any shape) of a level (0 … depth), int64."""
        return self.before_N1[trie.last_leaf[level][nodes]] - self.before_N1[trie.first_leaf[level][nodes]]


Rules = Sequence[AllowedItems | None]
"""For each user what may be recommended; None: everything."""


def by_rule(rules: Rules | None, device: torch.device) -> list[tuple[AllowedItems, Tensor]]:
    """Each rule with the rows of its users, int64; who has none is in no group."""
    rows: dict[int, list[int]] = {}
    for row, rule in enumerate(rules or ()):
        if rule is not None:
            rows.setdefault(id(rule), []).append(row)
    known = {id(rule): rule for rule in rules or () if rule is not None}
    return [(known[key], torch.tensor(members, device=device)) for key, members in rows.items()]
