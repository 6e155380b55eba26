"""The generator's objective: `L_2 = L_gen + β · L_distill`, with soft targets over trie nodes.

Knows generators, tries and a frozen Stage-I teacher; knows nothing of batching or optimisation. Axes as in
`generation.base`; W some of the targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.generation.base import Context, Generator, LevelScores
from prorec_core.generation.soft_teacher import SoftTeacher
from prorec_core.training.batching import HistoryBatch, Targets
from prorec_core.training.losses import catalogue_cross_entropy
from prorec_core.training.sampling import met_cross_entropy, met_items
from prorec_core.training.workers import ALONE, Workers, batch_of

_WIDTHS = 6
"""Groups of targets by the number of their parents' children."""
_WIDE = 16
"""Children of a node from which on groups are worth their while."""


def some_targets(batch: HistoryBatch, per_user: int) -> Targets:
    """At most `per_user` random positions a row that have a next item."""
    assert batch.targets_BL is not None
    order = torch.rand(batch.targets_BL.shape, device=batch.targets_BL.device)
    order = order.masked_fill(batch.targets_BL < 0, 2.0)
    chosen = order.argsort(dim=1)[:, :per_user]
    rows = torch.arange(len(chosen), device=chosen.device)[:, None].expand_as(chosen)
    items = batch.targets_BL[rows, chosen]
    real = items >= 0
    if batch.fixed:
        return Targets(rows.flatten(), chosen.flatten(), items.flatten().clamp(min=0), real.flatten())
    return Targets(rows[real], chosen[real], items[real])


def _drawn(targets: Targets, share: float) -> tuple[Tensor, Targets]:
    """A random share of the targets, rounded up: their places, int64, and themselves."""
    items_P, real_P = targets.items_P, targets.real_P
    most = math.ceil(share * len(items_P))
    if real_P is None:
        drawn = torch.randperm(len(items_P), device=items_P.device)[:most]
        return drawn, targets.select(drawn)
    # Of fewer real ones than places a part of these places stays empty.
    drawn = torch.rand(len(items_P), device=items_P.device).masked_fill(~real_P, 2).argsort()[:most]
    wanted = (real_P.sum().double() * share).ceil()
    chosen = targets.select(drawn)
    return drawn, replace(chosen, real_P=real_P[drawn] & (torch.arange(most, device=items_P.device) < wanted))


class Objective:
    """Both losses of a batch of targets."""

    def __init__(
        self,
        generator: Generator,
        teacher: SoftTeacher | None,
        sample: int | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """
        Args:
            generator: that is trained.
            teacher: of soft targets.
            sample: items that stand for those that are no targets of the batch in distillation; None: all are met.
            workers: who train it together; what is made is this one's part of the batch's losses.
        """
        self.workers = workers
        self.sample = sample
        self.generator = generator
        self.teacher = teacher
        self.config = generator.config
        self.distill = generator.config.distill
        self.beta = self.distill.beta or 0.0
        kind = torch.bfloat16 if generator.low_precision else torch.float32
        self.teachers = {name: generator.teacher(name).to(kind) for name in generator.teacher_names}

    def __call__(self, batch: HistoryBatch, targets: Targets) -> Mapping[str, Tensor]:
        """Named losses: "loss" (the sum), "loss_generate" and, if there is any, "loss_distill"."""
        generator, trie = self.generator, self.generator.trie
        everyone = targets
        batch, targets, own_P, share = self._part(batch, targets)
        context = generator.contexts(batch, targets.rows_P, targets.columns_P)
        codes_Pl = trie.codes[targets.items_P]
        rows = [self._learnt(level, targets) for level in range(trie.depth)]
        teachers = len(generator.teacher_names)
        distilled: Sequence[Tensor] = [context.vector_PD] * teachers
        if self.distill.at == "summary" and self.beta > 0:
            states_PTD = generator.hidden(context, codes_Pl[:, None], summaries=True)[:, 0]
            states = [states_PTD[rows_W, level] for level, rows_W in enumerate(rows)]
            distilled = states_PTD[:, -teachers:].unbind(1)
        else:
            states = generator.hidden_of(context, codes_Pl, rows)
        seen = self.teacher.seen(batch, targets.rows_P, targets.columns_P) if self.teacher else None
        generate = context.vector_PD.new_zeros((), dtype=torch.float32)
        for level, (rows_W, states_WD) in enumerate(zip(rows, states, strict=True)):
            generate = generate + self._level_loss(level, context, states_WD, rows_W, targets, seen)
        generate = share * generate
        if self.beta == 0:
            return {"loss": generate, "loss_generate": generate.detach()}
        distill = self._distill_loss(distilled, everyone, own_P, stands_in=share == 0)
        return {
            "loss": generate + self.beta * distill,
            "loss_generate": generate.detach(),
            "loss_distill": distill.detach(),
        }

    def _part(self, batch: HistoryBatch, targets: Targets) -> tuple[HistoryBatch, Targets, Tensor | None, float]:
        """This worker's users and their targets, which of all targets these are (None: all), and their share of all."""
        rows = self.workers.own_rows(len(batch.lengths_B))
        if rows is None:
            return batch, targets, None, 1.0
        rows = rows.to(batch.lengths_B.device)
        place_B = _places(rows, len(batch.lengths_B))
        own_P = (place_B[targets.rows_P] >= 0).nonzero()[:, 0]
        own = Targets(place_B[targets.rows_P[own_P]], targets.columns_P[own_P], targets.items_P[own_P])
        share = len(own_P) / len(targets.items_P) if self.workers.rank < len(batch.lengths_B) else 0.0
        return batch_of(batch, rows), own, own_P, share

    def _learnt(self, level: int, targets: Targets) -> Tensor:
        """The targets of which a level's code is to be learnt, int64: a node's only child is certain.

        Where siblings compete they are ordered by how many there are. Where shapes are fixed all are kept: what is
        certain has a loss of nothing.
        """
        items_P = targets.items_P
        if not self.generator.siblings_compete or targets.real_P is not None:
            return torch.arange(len(items_P), device=items_P.device)
        trie = self.generator.trie
        n_children_P = trie.n_children[level][trie.item_nodes(level, items_P)]
        order = n_children_P.argsort(stable=True)
        return order[n_children_P[order] > 1]

    def _level_loss(
        self,
        level: int,
        context: Context,
        hidden_WD: Tensor,
        rows_W: Tensor,
        targets: Targets,
        seen: Tensor | None,
    ) -> Tensor:
        """Mean over all P targets, of which the W given have something to learn."""
        generator, trie = self.generator, self.generator.trie
        if not generator.siblings_compete:
            logits_PK = generator.code_logits(level, hidden_WD).float()
            labels_P = targets.labels(trie.codes[targets.items_P, level])
            return F.cross_entropy(logits_PK, labels_P, label_smoothing=self.config.label_smoothing)
        total = hidden_WD.new_zeros((), dtype=torch.float32)
        if not len(rows_W):
            return total
        scores = generator.level_scores(level, F.embedding(rows_W, context.vector_PD), hidden_WD[:, None])
        # Parents with about as many children are dealt with together: padding all to the widest doubles the work.
        uneven = level > 0 and trie.widest[level] > _WIDE and targets.real_P is None
        groups = _WIDTHS if uneven else 1
        for part, rows in zip(scores.chunks(groups), rows_W.chunk(groups), strict=True):
            told = None if seen is None else seen[rows]
            total = total + self._children_loss(level, part, targets.select(rows), told)
        return total / targets.count

    def _children_loss(self, level: int, scores: LevelScores, targets: Targets, seen: Tensor | None) -> Tensor:
        """Summed cross-entropy of the targets' nodes among the children of their parents."""
        generator, trie = self.generator, self.generator.trie
        items_W, real_W = targets.items_P, targets.real_P
        parents_W = trie.item_nodes(level, items_W)
        n_children_W1 = trie.n_children[level][parents_W][:, None]
        width = trie.widest[level] if real_W is not None else int(n_children_W1.max())
        children_WC = trie.children_of(level, parents_W, width)
        missing_WC = children_WC < 0
        logits_WC = generator.child_logits(level, scores, children_WC[:, None])[:, 0]
        log_p_WC = logits_WC.masked_fill(missing_WC, -torch.inf).log_softmax(-1).masked_fill(missing_WC, 0)
        wanted_WC = (children_WC == trie.item_nodes(level + 1, items_W)[:, None]).float()
        if self.config.label_smoothing:
            share = self.config.label_smoothing
            wanted_WC = (1 - share) * wanted_WC + share * (~missing_WC) / n_children_W1
        if seen is not None and self.teacher is not None:
            masses_WC = self.teacher.masses(level, seen, children_WC, fixed=real_W is not None)
            total_W1 = masses_WC.sum(1, keepdim=True)
            weight_W1 = self.distill.soft_targets * (total_W1 > 1e-6)
            wanted_WC = (1 - weight_W1) * wanted_WC + weight_W1 * masses_WC / total_W1.clamp(min=1e-6)
        if real_W is not None:
            wanted_WC = wanted_WC * real_W[:, None]
        return -(wanted_WC * log_p_WC).sum()

    def _distill_loss(
        self, states_PD: Sequence[Tensor], targets: Targets, own_P: Tensor | None, *, stands_in: bool
    ) -> Tensor:
        """InfoNCE between each teacher's state and its embedding of the target, against all other items or a sample.

        Over a random share of the targets: without bias, and the products over the catalogue are what costs.

        Args:
            states_PD: of this worker's targets, one a teacher.
            targets: all of the batch.
            own_P: which of them are this worker's; None: all.
            stands_in: whether they are another's, and count for nothing here.
        """
        drawn: Tensor | None = None
        count = len(targets.items_P)
        if self.distill.share < 1:
            with self.workers.in_common():
                drawn, targets = _drawn(targets, self.distill.share)
        # Whoever's they are, all that are drawn are among the items that a sample stands beside.
        met_P, fixed = targets.items_P, targets.real_P is not None
        drawn, targets, share = _own_of(drawn, own_P, targets, count)
        share = 0.0 if stands_in else share
        if drawn is not None:
            states_PD = [F.embedding(drawn, state) for state in states_PD]
        items_P = targets.items_P
        queries, scale = self.generator.dense_queries_of(states_PD), 1 / self.distill.temperature
        if self.sample is not None:
            with self.workers.in_common():
                met = met_items(met_P, self.generator.trie.n_items, self.sample, fixed=fixed)
            rows_P = targets.labels(met.rows_of(items_P))
            tables = {name: F.embedding(met.items_R, self.teachers[name]) for name in queries}
            parts = [met_cross_entropy(query, tables[name], rows_P, scale, met) for name, query in queries.items()]
            return share * torch.stack(parts).mean()
        parts = [
            catalogue_cross_entropy(
                query_PE,
                self.teachers[name],
                items_P,
                scale,
                bounded=True,
                low_precision=self.generator.low_precision,
                real_P=targets.real_P,
            )
            for name, query_PE in queries.items()
        ]
        return share * torch.stack(parts).mean()


def _own_of(
    drawn: Tensor | None, own_P: Tensor | None, targets: Targets, count: int
) -> tuple[Tensor | None, Targets, float]:
    """Of the drawn targets this worker's, by their places among its own; themselves; their share of all drawn.

    Args:
        drawn: places of those drawn among all, int64; None: all are.
        own_P: which of all are this worker's, int64; None: all.
        targets: those drawn.
        count: how many all are.
    """
    if own_P is None:
        return drawn, targets, 1.0
    everyone = torch.arange(count, device=own_P.device) if drawn is None else drawn
    places = _places(own_P, count)[everyone]
    chosen = (places >= 0).nonzero()[:, 0]
    share = len(chosen) / len(everyone)
    if not len(chosen):
        # Who has none stands in with one at no weight: all workers take every step alike.
        return places.new_zeros(1), targets.select(places.new_zeros(1)), 0.0
    return places[chosen], targets.select(chosen), share


def _places(chosen: Tensor, count: int) -> Tensor:
    """Where each of `count` stands among those chosen, -1 where it does not, int64."""
    found = torch.full((count,), -1, device=chosen.device)
    found[chosen] = torch.arange(len(chosen), device=chosen.device)
    return found
