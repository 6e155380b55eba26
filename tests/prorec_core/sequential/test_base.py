from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prorec_core.config import CollaborativeConfig, Training
from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.metrics.top import padded_histories, rank_of_target, top_from_scores
from prorec_core.sequential.base import (
    SequentialModel,
    mask_history,
    owned_items,
    target_ranks,
)
from prorec_core.training.batching import HistoryBatch, inference_batches
from prorec_core.training.sampling import MetItems


class Fixed(SequentialModel):
    """A model whose scores are known: a row of the table a user."""

    @classmethod
    def build(cls, config: CollaborativeConfig, training: Training, table_dim: int, low_precision: bool) -> Self:
        raise NotImplementedError

    def training_loss(self, table_ND: Tensor, batch: HistoryBatch, met: MetItems | None = None) -> Tensor:
        raise NotImplementedError

    def scores(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        return table_ND[batch.users_B].clone()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Sequences, npt.NDArray[np.int32], Tensor]:
    n_items = draw(st.integers(1, 8))
    users = draw(st.lists(st.lists(st.integers(0, n_items - 1), max_size=6), min_size=1, max_size=6))
    targets = draw(st.lists(st.integers(0, n_items - 1), min_size=len(users), max_size=len(users)))
    scores = draw(
        st.lists(
            st.lists(st.integers(-2, 2), min_size=n_items, max_size=n_items), min_size=len(users), max_size=len(users)
        )
    )
    histories = from_lists([np.array(items, np.int32) for items in users], n_items)
    return histories, np.array(targets, np.int32), torch.tensor(scores, dtype=torch.float32)


@given(cases(), st.integers(1, 4), st.booleans())
@settings(max_examples=100)
def test_ranks_are_those_of_the_list_that_is_recommended(
    case: tuple[Sequences, npt.NDArray[np.int32], Tensor], max_history: int, masked: bool
) -> None:
    """Validation and evaluation must agree: also in ties, and where the target is masked as already owned."""
    histories, targets, scores = case
    before = scores.clone()
    ranks = target_ranks(Fixed(), scores, histories, targets, max_history, masked=masked)
    forbidden = torch.from_numpy(padded_histories(histories)) if masked else None
    lists = top_from_scores(scores, histories.n_items, forbidden)
    assert ranks.dtype == np.int32
    assert ranks.tolist() == rank_of_target(lists.items_UK, targets).tolist()
    assert torch.equal(scores, before)


@given(cases())
@settings(max_examples=50)
def test_all_that_a_user_has_is_masked_also_what_no_model_sees(
    case: tuple[Sequences, npt.NDArray[np.int32], Tensor],
) -> None:
    histories, _, scores = case
    for batch in inference_batches(histories, 1, 100, 2, torch.device("cpu")):
        users = batch.users_B.tolist()
        masked = mask_history(scores[users].clone(), batch, histories)
        for row, user in enumerate(users):
            owned = set(histories.of_user(user).tolist())
            for item in range(histories.n_items):
                assert masked[row, item] == (-torch.inf if item in owned else scores[user, item])


def test_owned_items_of_users_in_any_order() -> None:
    histories = from_lists([np.array(items, np.int32) for items in ([5, 6], [], [7], [8, 9, 8])], 10)
    rows, items = owned_items(histories, np.array([3, 1, 0]))
    assert rows.tolist() == [0, 0, 0, 2, 2]
    assert items.tolist() == [8, 9, 8, 5, 6]
    assert rows.dtype == items.dtype == torch.int64


@pytest.mark.parametrize("what", ["everything", "the target", "another item"])
def test_scores_that_are_no_numbers_find_nothing(what: str) -> None:
    histories, target = from_lists([np.array([0], np.int32)], 30), np.array([20], np.int32)
    scores = torch.zeros(1, 30).index_fill(1, torch.tensor([20]), 1.0)
    assert target_ranks(Fixed(), scores, histories, target, 5).tolist() == [1]
    scores[0, {"everything": slice(None), "the target": 20, "another item": 25}[what]] = torch.nan
    assert target_ranks(Fixed(), scores, histories, target, 5)[0] == (2 if what == "another item" else 31)


def test_a_model_that_scores_all_alike_does_not_look_perfect() -> None:
    histories = from_lists([np.array([0], np.int32)] * 20, 100)
    ranks = target_ranks(Fixed(), torch.zeros(20, 100), histories, np.full(20, 60, np.int32), 5)
    assert ranks.tolist() == [60] * 20
