"""Beam search over a code trie. Knows codes, log-probabilities and which items are allowed; knows nothing of text,
training or of why an item is allowed.

Axes: U users, B beams, C children of a node (padded), H forbidden items of a user (padded), K items returned,
l codes chosen so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prorec_core.generation.allowed import AllowedItems, Rules, by_rule
from prorec_core.generation.trie import CodeTrie
from prorec_core.metrics.top import best_places

_DEAD = float("-inf")
Groups = list[tuple[AllowedItems, Tensor]]
"""Rules with the rows of their users."""


class Scorer(Protocol):
    """A model as beam search sees it."""

    def __call__(self, level: int, nodes_UB: Tensor, codes_UBl: Tensor, parents_UB: Tensor) -> Tensor:
        """Log-probabilities of the next code, given each user's history and the codes so far.

        Args:
            level: how many codes are chosen, 0 … depth-1; asked for one after the other.
            nodes_UB: the beams' nodes at `level`, int64; at level 0 the root, with B = 1.
            codes_UBl: the codes chosen so far, int64, shape (U, B, level).
            parents_UB: the beam of the level before that each goes on from, int64; at level 0 zeros.

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
    rules: Rules | None = None,
) -> BeamResult:
    """Find the `keep` items with the highest probability among those that `beams` beams reach.

    Every beam is a node of the trie, so it names existing items by construction. With at least as many beams
    as a level has nodes the search is exact. Nodes below which no item may be returned are left out at each
    level, so that forbidden items cost no beams: of a user's items that may be returned at least
    `min(keep, beams)` are, or all there are. (Every beam leads to one: either all nodes that do are kept at each
    level, or from some level on there are `beams` of them.) An item of probability 0 is never returned.

    Args:
        scorer: the model.
        trie: the catalogue, on the device of the scorer's answers.
        n_users: U, users searched for at once; the largest tensor has U * beams * C elements.
        beams: prefixes kept at each level, at least 1.
        keep: K, items returned a user, at least 1; may exceed `beams`.
        forbidden_items_UH: items never to be returned, int64, padded with -1; an item may stand there twice.
        rules: for each user the items that alone may be returned. What they cost grows with the number of rules.
    """
    device = trie.path.device
    groups = by_rule(rules, device)
    leaves_UH = None if forbidden_items_UH is None else _sorted_leaves(trie, forbidden_items_UH.to(device), groups)
    nodes_UB = torch.zeros((n_users, 1), dtype=torch.int64, device=device)
    codes_UBl = torch.zeros((n_users, 1, 0), dtype=torch.int64, device=device)
    totals_UB = torch.zeros((n_users, 1), device=device)
    parents_UB = torch.zeros_like(nodes_UB)
    for level in range(trie.depth):
        # Beams without a node go through the scorer as node 0 and can never rise from -inf.
        alive_UB = totals_UB > _DEAD
        scores_UBC = scorer(level, nodes_UB, codes_UBl, parents_UB).float() + totals_UB.unsqueeze(-1)
        n_children = torch.where(alive_UB, trie.n_children[level][nodes_UB], 0)
        n_slots = scores_UBC.shape[-1]
        missing_UBC = torch.arange(n_slots, device=device) >= n_children.unsqueeze(-1)
        scores_UBC.masked_fill_(missing_UBC, _DEAD)
        first_child_UB = trie.first_child[level][nodes_UB]
        for rule, rows in groups:
            _keep_allowed(trie, level, rule, rows, first_child_UB, missing_UBC, scores_UBC)
        if leaves_UH is not None:
            _leave_out(trie, level, leaves_UH, nodes_UB.masked_fill(~alive_UB, -1), scores_UBC, groups)
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


def _sorted_leaves(trie: CodeTrie, forbidden_items_UH: Tensor, groups: Groups) -> Tensor:
    """Each user's forbidden leaves, ascending and each once, padded at the end with the number of items.

    Without those that the user's rule leaves out anyway: what is left counts against what the rule allows.
    """
    padding = trie.n_items
    out_UH = forbidden_items_UH < 0
    for rule, rows in groups:
        out_UH[rows] |= ~rule.mask_N[forbidden_items_UH[rows].clamp(min=0)]
    leaves = trie.item_leaf[forbidden_items_UH.clamp(min=0)].masked_fill(out_UH, padding)
    if trie.closed is not None:
        closed = trie.closed[(leaves + 1).clamp(max=padding)] - trie.closed[leaves]
        leaves = leaves.masked_fill(closed > 0, padding)
    leaves = leaves.sort(dim=1).values
    again = torch.zeros_like(leaves, dtype=torch.bool)
    again[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
    return leaves.masked_fill(again, padding).sort(dim=1).values


def _keep_allowed(
    trie: CodeTrie,
    level: int,
    rule: AllowedItems,
    rows: Tensor,
    first_child_UB: Tensor,
    missing_UBC: Tensor,
    scores_UBC: Tensor,
) -> None:
    """Set the scores of children below which a rule allows no item to -inf, in place, for the users of that rule."""
    everyone = len(rows) == len(scores_UBC)
    first, missing = (first_child_UB, missing_UBC) if everyone else (first_child_UB[rows], missing_UBC[rows])
    # The child of a missing slot may be of another family, or none at all.
    children = (first.unsqueeze(-1) + torch.arange(missing.shape[-1], device=first.device)).masked_fill(missing, 0)
    none_RBC = rule.below(trie, level + 1, children) == 0
    if everyone:
        scores_UBC.masked_fill_(none_RBC, _DEAD)
    else:
        scores_UBC[rows] = scores_UBC[rows].masked_fill(none_RBC, _DEAD)


def _leave_out(
    trie: CodeTrie, level: int, leaves_UH: Tensor, nodes_UB: Tensor, scores_UBC: Tensor, groups: Groups
) -> None:
    """Set the scores of children below which every item that is allowed is forbidden to -inf, in place."""
    real_UH = leaves_UH < trie.n_items
    items_UH = trie.leaf_item[leaves_UH.clamp(max=trie.n_items - 1)]
    child_UH = trie.item_nodes(level + 1, items_UH)
    parent_UH = trie.item_nodes(level, items_UH)
    first, last = trie.first_leaf[level + 1][child_UH], trie.last_leaf[level + 1][child_UH]
    below = torch.searchsorted(leaves_UH, last) - torch.searchsorted(leaves_UH, first)
    size = last - first
    if trie.closed is not None:
        size = size - (trie.closed[last] - trie.closed[first])
    for rule, rows in groups:
        size[rows] = rule.below(trie, level + 1, child_UH[rows])
    whole_UH = real_UH & (below == size)
    nodes_UB, beam_UB = nodes_UB.sort(dim=1)
    at_UH = torch.searchsorted(nodes_UB, parent_UH).clamp(max=nodes_UB.shape[1] - 1)
    hit_UH = whole_UH & (nodes_UB.gather(1, at_UH) == parent_UH)
    slot_UH = child_UH - trie.first_child[level][parent_UH]
    place_UH = beam_UB.gather(1, at_UH) * scores_UBC.shape[-1] + slot_UH
    # Without a hit the first score is held against infinity, which leaves it as it is: so nobody has to be asked how
    # many hits there are.
    held_UH = torch.full_like(place_UH, -_DEAD, dtype=scores_UBC.dtype).masked_fill(hit_UH, _DEAD)
    scores_UBC.flatten(1).scatter_reduce_(1, place_UH.masked_fill(~hit_UH, 0), held_UH, "amin")
