"""What Stage I's model says of trie nodes: its distribution over the catalogue, summed over the items below each.

Knows tries and scores that are products; knows nothing of losses. Axes: P targets, C children of a node, N items, M
leaves, E dimensions of the scores' keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.generation.base import Generator
from prorec_core.sequential.base import Products
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.losses import BOUND

LEAVES = 256
"""Leaves below a node that a sampled teacher looks at, at most."""


class SoftTeacher(ABC):
    """The Stage-I model's distribution over the catalogue, as masses of trie nodes."""

    def __init__(self, scores: Products, generator: Generator) -> None:
        self.scores = scores
        self.trie = generator.trie
        self.kind = torch.bfloat16 if generator.low_precision else torch.float32
        # In the order of the leaves every node covers one stretch, so sums over stretches give its mass.
        self.by_leaf_NE = scores.keys_ND[self.trie.leaf_item]

    @abstractmethod
    def seen(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Tensor:
        """What `masses` asks of the histories up to some positions, float32, shape (P, ·)."""

    @abstractmethod
    def masses(self, level: int, seen_P: Tensor, children_PC: Tensor, *, fixed: bool = False) -> Tensor:
        """Mass of a node's children, of level `level + 1`, ascending, float32, shape (P, C); -1 has none.

        Args:
            level: of the parents.
            seen_P: of the same positions.
            children_PC: all children of one node a position.
            fixed: no shape may depend on which nodes they are.
        """


class WholeTeacher(SoftTeacher):
    """Scores all items at each position."""

    @torch.no_grad()
    def seen(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Tensor:
        """Mass of the first n leaves, for n = 0 … N, shape (P, N + 1)."""
        query_PE = self.scores.queries(batch, rows_P, columns_P)
        mass_PN = query_PE.to(self.kind) @ self.by_leaf_NE.to(self.kind).t()
        if self.scores.bound >= BOUND:
            mass_PN -= mass_PN.amax(1, keepdim=True)
        mass_PN.exp_()
        total_PN = F.pad(mass_PN.cumsum(1, dtype=torch.float32), (1, 0))
        return total_PN / total_PN[:, -1:]

    def masses(self, level: int, seen_P: Tensor, children_PC: Tensor, *, fixed: bool = False) -> Tensor:
        nodes = children_PC.clamp(min=0)
        first, last = self.trie.first_leaf[level + 1][nodes], self.trie.last_leaf[level + 1][nodes]
        masses = (seen_P.gather(1, last) - seen_P.gather(1, first)).clamp(min=0)
        return masses.masked_fill(children_PC < 0, 0)


class SampledTeacher(SoftTeacher):
    """Scores at each position some of the leaves below the node whose children are asked for.

    The leaves below a node are cut into strips of equal length, and from each strip one leaf is drawn: every leaf as
    often as any other, and where there are no more leaves than strips each leaf once. So all sums are estimated
    without bias, those below nodes of at most LEAVES items exactly.
    """

    def __init__(self, scores: Products, generator: Generator, sample: int) -> None:
        """
        Args:
            scores: of Stage I's model.
            generator: whose trie it is.
            sample: leaves below the root that are looked at, the same at all positions.
        """
        super().__init__(scores, generator)
        self.sample = sample
        self.root_12 = torch.tensor([[0, self.trie.n_items]], device=self.trie.path.device)
        self.largest = [
            int((last - first).max()) for first, last in zip(self.trie.first_leaf, self.trie.last_leaf, strict=True)
        ]
        """Leaves of the largest node of each level."""

    @torch.no_grad()
    def seen(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Tensor:
        """What the histories say, and the logarithm of the normaliser, shape (P, E + 1)."""
        query_PE = self.scores.queries(batch, rows_P, columns_P).float()
        strips = min(self.sample, self.trie.n_items)
        scores_PM, _, _, width_11 = self._scored(query_PE, self.root_12, strips, strips)
        return torch.cat([query_PE, scores_PM.logsumexp(1, keepdim=True) + width_11.log()], 1)

    @torch.no_grad()
    def masses(self, level: int, seen_P: Tensor, children_PC: Tensor, *, fixed: bool = False) -> Tensor:
        nodes_PC = children_PC.clamp(min=0)
        last_PC = self.trie.last_leaf[level + 1][torch.where(children_PC < 0, children_PC.amax(1)[:, None], nodes_PC)]
        first_P = self.trie.first_leaf[level + 1][nodes_PC[:, 0]]
        below_P2 = torch.stack([first_P, last_PC[:, -1]], 1)
        strips = min(self.sample if level == 0 else LEAVES, self.largest[level])
        below = self.root_12 if level == 0 else below_P2
        columns = strips if fixed or level == 0 else int((below_P2[:, 1] - below_P2[:, 0]).max().clamp(max=strips))
        scores_PM, leaves_PM, inside_PM, width_P1 = self._scored(seen_P[:, :-1], below, strips, columns)
        largest_P1 = scores_PM.masked_fill(~inside_PM, -torch.inf).amax(1, keepdim=True)
        mass_PM = (scores_PM - largest_P1).exp() * inside_PM * width_P1
        # Sums over the drawn leaves before each child's end; those past the node's own leaves lie behind all ends.
        sums_PM = F.pad(mass_PM.cumsum(1), (1, 0))
        order_PM = leaves_PM.masked_fill(~inside_PM, self.trie.n_items).expand(len(seen_P), -1).contiguous()
        ends_PC = sums_PM.gather(1, torch.searchsorted(order_PM, last_PC))
        masses_PC = ends_PC.diff(dim=1, prepend=ends_PC.new_zeros(len(ends_PC), 1)).clamp(min=0)
        # A sampled normaliser may be too small by far; what is above it is as good as all.
        return masses_PC * (largest_P1 - seen_P[:, -1:]).clamp(max=0).exp()

    def _scored(
        self, query_PE: Tensor, below: Tensor, strips: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Leaves drawn from stretches, one a position or one for all, and their scores.

        Args:
            query_PE: what the histories say.
            below: first leaf of a stretch, and that after its last, int64, (P or 1, 2).
            strips: into which each is cut, at most.
            width: M, no fewer than any of them has.

        Returns:
            Scores, float32, (P, M); leaves, int64, ascending, and whether they are any, (P or 1, M); leaves that each
            stands for, float32, (P or 1, 1).
        """
        first_P1, count_P1 = below[:, :1], (below[:, 1:] - below[:, :1])
        drawn_P1 = count_P1.clamp(max=strips)
        columns = torch.arange(width, device=below.device)
        # In float64: float32 cannot tell the leaves of a large catalogue apart.
        width_P1 = count_P1.double() / drawn_P1
        where_PM = (columns + torch.rand(len(below), len(columns), device=below.device)) * width_P1
        inside_PM = columns < drawn_P1
        leaves_PM = torch.where(inside_PM, first_P1 + torch.minimum(where_PM.long(), count_P1 - 1), first_P1)
        query = query_PE.to(self.kind)
        if len(below) == 1:
            scores_PM = query @ F.embedding(leaves_PM[0], self.by_leaf_NE).to(self.kind).t()
        else:
            keys_PME = F.embedding(leaves_PM, self.by_leaf_NE)
            scores_PM = (keys_PME * query_PE[:, None, :]).sum(-1)
        return scores_PM.float(), leaves_PM, inside_PM, width_P1.float()
