"""Beam search over a code trie. Knows codes and log-probabilities; knows nothing of users, text or training.

Axes: U users, B beams, C children of a node (padded), H forbidden items of a user (padded), K items returned,
l codes chosen so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prorec_core.generation.trie import CodeTrie
from prorec_core.metrics.top import best_places

_DEAD = float("-inf")


class Scorer(Protocol):
    """A model as beam search sees it."""

    def __call__(self, level: int, nodes_UB: Tensor, codes_UBl: Tensor) -> Tensor:
        """Log-probabilities of the next code, given each user's history and the codes so far.

        Args:
            level: how many codes are chosen, 0 … depth-1.
            nodes_UB: the beams' nodes at `level`, int64; at level 0 the root, with B = 1.
            codes_UBl: the codes chosen so far, int64, shape (U, B, level).

        Returns:
            Shape (U, B, C), aligned with `trie.children_of(level, nodes_UB)`, or wider; what stands at missing
            children (-1) is ignored.
        """
        ...


@dataclass(frozen=True)
class BeamResult:
    """Items found for each user, best first; equal ones in the lexicographic order of their codes.

    Attributes:
        items_UK: int64, -1 where there are fewer than K items.
        log_probabilities_UK: float32, the sum over the levels; -inf where there is no item.
    """

    items_UK: Tensor
    log_probabilities_UK: Tensor


@torch.no_grad()
def beam_search(
    scorer: Scorer,
    trie: CodeTrie,
    n_users: int,
    beams: int,
    keep: int,
    forbidden_items_UH: Tensor | None = None,
) -> BeamResult:
    """Find the `keep` items with the highest probability among those that `beams` beams reach.

    Every beam is a node of the trie, so it names existing items by construction. With at least as many beams
    as a level has nodes the search is exact. Nodes below which every item is forbidden are left out at each
    level, so that forbidden items cost no beams. An item of probability 0 is never returned.

    Args:
        scorer: the model.
        trie: the catalogue, on the device of the scorer's answers.
        n_users: U, users searched for at once; the largest tensor has U * beams * C elements.
        beams: prefixes kept at each level, at least 1.
        keep: K, items returned a user, at least 1; may exceed `beams`.
        forbidden_items_UH: items never to be returned, int64, padded with -1; an item may stand there twice.
    """
    device = trie.path.device
    leaves_UH = None if forbidden_items_UH is None else _sorted_leaves(trie, forbidden_items_UH.to(device))
    nodes_UB = torch.zeros((n_users, 1), dtype=torch.int64, device=device)
    codes_UBl = torch.zeros((n_users, 1, 0), dtype=torch.int64, device=device)
    totals_UB = torch.zeros((n_users, 1), device=device)
    for level in range(trie.depth):
        # Beams without a node go through the scorer as node 0 and can never rise from -inf.
        alive_UB = totals_UB > _DEAD
        scores_UBC = scorer(level, nodes_UB, codes_UBl).float() + totals_UB.unsqueeze(-1)
        n_children = torch.where(alive_UB, trie.n_children[level][nodes_UB], 0)
        n_slots = scores_UBC.shape[-1]
        missing_UBC = torch.arange(n_slots, device=device) >= n_children.unsqueeze(-1)
        scores_UBC.masked_fill_(missing_UBC, _DEAD)
        first_child_UB = trie.first_child[level][nodes_UB]
        if leaves_UH is not None:
            _leave_out(trie, level, leaves_UH, nodes_UB.masked_fill(~alive_UB, -1), scores_UBC)
        last = level == trie.depth - 1
        # The places of a row follow the order of the nodes; so do the beams, and ties fall to the lower codes.
        totals_UB, slots_UB = best_places(scores_UBC.flatten(1), keep if last else beams)
        parents_UB = slots_UB // n_slots
        nodes_UB = first_child_UB.gather(1, parents_UB) + slots_UB % n_slots
        nodes_UB = nodes_UB.masked_fill(totals_UB == _DEAD, 0)
        chosen_UBl = codes_UBl.gather(1, parents_UB.unsqueeze(-1).expand(-1, -1, level))
        codes_UBl = torch.cat([chosen_UBl, trie.node_code[level + 1][nodes_UB].unsqueeze(-1)], dim=-1)
    totals_UK, order_UK = totals_UB.sort(dim=1, descending=True, stable=True)
    items_UK = trie.leaf_item[nodes_UB.gather(1, order_UK)].masked_fill(totals_UK == _DEAD, -1)
    missing = keep - items_UK.shape[1]
    return BeamResult(
        torch.nn.functional.pad(items_UK, (0, missing), value=-1),
        torch.nn.functional.pad(totals_UK, (0, missing), value=_DEAD),
    )


def _sorted_leaves(trie: CodeTrie, forbidden_items_UH: Tensor) -> Tensor:
    """Each user's forbidden leaves, ascending and each once, padded at the end with the number of items."""
    padding = trie.n_items
    leaves = trie.item_leaf[forbidden_items_UH.clamp(min=0)].masked_fill(forbidden_items_UH < 0, padding)
    if trie.closed is not None:
        leaves = leaves.masked_fill(trie.closed.diff(append=trie.closed[-1:])[leaves] > 0, padding)
    leaves = leaves.sort(dim=1).values
    again = torch.zeros_like(leaves, dtype=torch.bool)
    again[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
    return leaves.masked_fill(again, padding).sort(dim=1).values


def _leave_out(trie: CodeTrie, level: int, leaves_UH: Tensor, nodes_UB: Tensor, scores_UBC: Tensor) -> None:
    """Set the scores of children below which every item is forbidden to -inf, in place."""
    real_UH = leaves_UH < trie.n_items
    items_UH = trie.leaf_item[leaves_UH.clamp(max=trie.n_items - 1)]
    child_UH = trie.item_nodes(level + 1, items_UH)
    parent_UH = trie.item_nodes(level, items_UH)
    first, last = trie.first_leaf[level + 1][child_UH], trie.last_leaf[level + 1][child_UH]
    below = torch.searchsorted(leaves_UH, last) - torch.searchsorted(leaves_UH, first)
    size = last - first
    if trie.closed is not None:
        size = size - (trie.closed[last] - trie.closed[first])
    whole_UH = real_UH & (below == size)
    user, place, beam = (whole_UH[:, :, None] & (parent_UH[:, :, None] == nodes_UB[:, None, :])).nonzero(as_tuple=True)
    slot = child_UH[user, place] - trie.first_child[level][parent_UH[user, place]]
    scores_UBC[user, beam, slot] = _DEAD
