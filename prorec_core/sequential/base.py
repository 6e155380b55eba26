"""What every sequential recommender offers. Knows item vectors and histories; knows nothing of how vectors arise.

A model is given the table of item vectors at each call: the collaborative embedding when it is trained alone,
the integrated one when it is aligned; in training it may be the part of a large table that a step meets. Axes: B users,
L positions, N items, D dimensions of the table, P targets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig, Training
from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.training.batching import HistoryBatch, Targets, at_a_time, inference_batches
from prorec_core.training.losses import catalogue_cross_entropy, mean_of
from prorec_core.training.sampling import MetItems, met_cross_entropy

INFERENCE_TOKENS = 16_384
INFERENCE_USERS = 1024
_SCORES = 2**24
"""Scores of items held at a time (float32: 64 MiB)."""
ITEM_DEVIATION = 0.02
"""Standard deviation of new item vectors."""


@dataclass(frozen=True)
class Products:
    """Scores of items as products of what an item is and what a history says at some position.

    Attributes:
        keys_ND: one an item.
        queries: given a batch and rows and columns in it, int64, shape (P,), what the histories say after these
            positions, times what the scores are scaled by, float32, shape (P, D).
        bound: no score is above it.
    """

    keys_ND: Tensor
    queries: Callable[[HistoryBatch, Tensor, Tensor], Tensor]
    bound: float


class SequentialModel(nn.Module, ABC):
    """Scores every item as the next one of a history.

    The last three methods offer a generator what not every model has; one that has it overrides them.
    """

    @classmethod
    @abstractmethod
    def build(cls, config: CollaborativeConfig, training: Training, table_dim: int, low_precision: bool) -> Self:
        """A model with new weights.

        Args:
            config: its shape, its score and its loss.
            training: of the stage that trains it: dropout and how much of a history it reads.
            table_dim: dimensions of the item vectors that it is given.
            low_precision: whether products may be made in bfloat16.
        """

    @abstractmethod
    def training_loss(self, table_ND: Tensor, batch: HistoryBatch, met: MetItems | None = None) -> Tensor:
        """Mean cross-entropy of the next item at every position of the batch.

        Args:
            table_ND: the vectors of all items, or of those that the step meets.
            batch: rows of the table.
            met: what the rows stand for; None: each for itself, and all are there.
        """

    @abstractmethod
    def scores(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        """Logits of all items after each history, float32, shape (B, N)."""

    def scorer(self, table_ND: Tensor) -> Callable[[HistoryBatch], Tensor]:
        """`scores` for many batches over one table: what the histories do not decide may be made once for all."""
        return lambda batch: self.scores(table_ND, batch)

    def products(self, table_ND: Tensor) -> Products | None:
        """`scores` as products, by which a generator is taught with soft targets; None where they are none."""
        return None

    def directions(self, table_ND: Tensor) -> Callable[[HistoryBatch, Tensor, Tensor], Tensor] | None:
        """Where among the item vectors the next item is looked for: the nearer it is, the better an item scores.

        Returns:
            Given a batch and rows and columns in it, int64, shape (P,), the vectors after these positions, shape
            (P, D); None where nothing of the kind can be said.
        """
        return None

    def copy_into(self, encoder: nn.Module, inputs: nn.Module, outputs: Iterable[nn.Module]) -> bool:
        """Have a generator's encoder of histories start as this model, so that it ranks as this does before training.

        Args:
            encoder: gives a state a position.
            inputs: linear, to what the encoder reads from the direction of item vectors at unit variance.
            outputs: linear, from states to the space of item vectors, where scores are cosines.

        Returns:
            Whether it does; nothing is touched where this model is of another kind or size.
        """
        return False


class ItemSoftmax(nn.Module):
    """The softmax over items that states are trained with: cosine or dot product, whole or sampled."""

    def __init__(self, config: CollaborativeConfig, low_precision: bool) -> None:
        super().__init__()
        self.config = config
        self.low_precision = low_precision
        self.cosine = config.score == "cosine"
        self.scale = 1 / config.temperature if self.cosine else 1.0

    def forward(self, states_PD: Tensor, table_ND: Tensor, targets: Targets, met: MetItems | None = None) -> Tensor:
        """Mean cross-entropy of the targets given the states before them; `met` as in `training_loss`."""
        states_PD, table_ND, scale = self.compared(states_PD.float()), self.compared(table_ND), self.scale
        if met is not None:
            return met_cross_entropy(states_PD, table_ND, targets.labels(targets.items_P), scale, met)
        return catalogue_cross_entropy(
            states_PD,
            table_ND,
            targets.items_P,
            scale,
            bounded=self.cosine,
            low_precision=self.low_precision,
            real_P=targets.real_P,
        )

    def binary(
        self, states_PD: Tensor, table_ND: Tensor, targets: Targets, drawn_P: Tensor, counts_P: Tensor
    ) -> Tensor:
        """Mean of `−log σ(target) − log(1 − σ(negative))` (Kang and McAuley, 2018, eq. 5).

        Args:
            states_PD: state before each target.
            table_ND: item vectors.
            targets: what comes next.
            drawn_P: one sampled negative a target, int64.
            counts_P: false where the sample is none, since the user has it, bool.
        """

        def logits(items_P: Tensor) -> Tensor:
            vectors_PD, states = F.embedding(items_P, table_ND), states_PD.float()
            if self.cosine:
                return F.cosine_similarity(states, vectors_PD, dim=-1) / self.config.temperature
            return (states * vectors_PD).sum(-1)

        negatives = F.softplus(logits(drawn_P)) * counts_P
        return mean_of(F.softplus(-logits(targets.items_P)) + negatives, targets.real_P)

    def compared(self, vectors: Tensor) -> Tensor:
        """States or item vectors as they enter the score: under the cosine their direction alone."""
        return F.normalize(vectors, dim=-1) if self.cosine else vectors

    def as_input(self, vectors: Tensor) -> Tensor:
        """Item vectors as a network reads them: times √D, under the cosine their direction alone."""
        return self.compared(vectors) * math.sqrt(vectors.shape[-1])

    def scorer(self, table_ND: Tensor) -> Callable[[Tensor], Tensor]:
        """Gives the logits of all items from states of shape (B, D), float32, shape (B, N)."""
        keys_ND = self.compared(table_ND.float())

        def scores(states_BD: Tensor) -> Tensor:
            scores_BN = self.compared(states_BD.float()) @ keys_ND.t()
            return scores_BN.div_(self.config.temperature) if self.cosine else scores_BN

        return scores


def users_at_a_time(n_items: int, device: torch.device) -> int:
    """Users of a batch that is scored against all of N items, so that its scores take bounded memory."""
    return max(1, min(at_a_time(INFERENCE_USERS, device), at_a_time(_SCORES, device) // n_items))


def owned_items(histories: Sequences, users: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """All items that some users have, also those that no model saw: row among `users` and item, int64 each."""
    owned = histories.select(users)
    rows = np.repeat(np.arange(len(users)), np.diff(owned.offsets))
    return torch.from_numpy(rows), torch.from_numpy(owned.items.astype(np.int64))


def mask_history(scores_BN: Tensor, batch: HistoryBatch, histories: Sequences) -> Tensor:
    """Set the scores of all that each user already has to minus infinity, in place."""
    rows, items = owned_items(histories, batch.users_B.cpu().numpy())
    scores_BN[rows.to(scores_BN.device), items.to(scores_BN.device)] = -torch.inf
    return scores_BN


@torch.no_grad()
def target_ranks(
    model: SequentialModel,
    table_ND: Tensor,
    histories: Sequences,
    targets: IntArray,
    max_history: int,
    *,
    masked: bool = True,
) -> IntArray:
    """Rank of each user's target among all items that the user does not have, int32, shape (users,).

    From 1; of items with equal scores the lower index comes first. 0 where the user has the target already. What has
    no number for a score stands before all others, so that a target is never found by it.
    """
    ranks, scores = np.zeros(len(targets), np.int32), model.scorer(table_ND)
    users_a_batch = users_at_a_time(len(table_ND), table_ND.device)
    tokens = at_a_time(INFERENCE_TOKENS, table_ND.device)
    for batch in inference_batches(histories, max_history, tokens, users_a_batch, table_ND.device):
        users = batch.users_B.cpu().numpy()
        scores_BN = scores(batch)
        target_B = torch.from_numpy(targets[users].astype(np.int64)).to(scores_BN.device)[:, None]
        if masked:
            mask_history(scores_BN, batch, histories)
        correct_B = scores_BN.gather(1, target_B)
        earlier_BN = torch.arange(scores_BN.shape[1], device=scores_BN.device) < target_B
        ahead_BN = ~((scores_BN < correct_B) | ((scores_BN == correct_B) & ~earlier_BN))
        rank_B = (ahead_BN.sum(1, dtype=torch.int32) + 1).masked_fill(correct_B[:, 0] == -torch.inf, 0)
        ranks[users] = rank_B.cpu().numpy()
    return ranks
