"""Two generators with code tables of their own, judged together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.errors import UserError
from prorec_core.generation.candidates import find_candidates, item_log_probabilities, last_context
from prorec_core.generation.late_fusion import joint_candidates
from prorec_core.progress import Progress
from prorec_core.training.batching import inference_batches

N_ITEMS = 24
CPU = torch.device("cpu")


def _histories(users: int = 9) -> Sequences:
    random = np.random.default_rng(8)
    return from_lists([random.permutation(N_ITEMS)[: random.integers(1, 9)].astype(np.int32) for _ in range(users)], 24)


@pytest.fixture
def both(make_config: Any, make_generator: Any) -> tuple[Any, Any]:
    """One with three code levels and one with two, so that their searches differ."""
    two_levels = np.stack([np.arange(N_ITEMS) % 6, np.arange(N_ITEMS) // 6], axis=1).astype(np.uint16)
    first = make_generator(make_config(max_history=8))
    second = make_generator(make_config(max_history=8, architecture="encoder_decoder"), two_levels)
    return first, second


def _exact(generator: Any, histories: Sequences) -> np.ndarray[Any, Any]:
    """Log-probability of every item for every user."""
    found = np.zeros((histories.n_users, N_ITEMS), np.float32)
    everything = torch.arange(N_ITEMS)
    with torch.no_grad():
        for batch in inference_batches(histories, 8, 1000, 100, CPU):
            asked = everything.expand(len(batch.users_B), -1)
            found[batch.users_B] = item_log_probabilities(generator, last_context(generator, batch), asked).numpy()
    return found


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 4.0])
def test_with_every_item_as_beam_the_list_is_that_of_the_exact_sum(both: tuple[Any, Any], weight: float) -> None:
    histories = _histories()
    found = joint_candidates(*both, histories, N_ITEMS)
    exact = _exact(both[0], histories) + weight * _exact(both[1], histories)
    items, scores = found.fused(weight, 10)
    for user in range(histories.n_users):
        exact[user, histories.of_user(user)] = -np.inf
        best = np.argsort(-exact[user], kind="stable")[:10]
        assert items[user].tolist() == best.tolist()
        np.testing.assert_allclose(scores[user], exact[user, best], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masked", [True, False])
def test_candidates_are_the_union_of_both_searches(both: tuple[Any, Any], masked: bool) -> None:
    histories, heard = _histories(), []
    found = joint_candidates(*both, histories, 4, masked=masked, report=heard.append)
    alone = [find_candidates(each, histories, 4, 4, masked=masked, with_dense=False).items_UC for each in both]
    for user in range(histories.n_users):
        items = found.items_UC[user][found.items_UC[user] >= 0].tolist()
        assert len(items) == len(set(items))
        own = set() if masked else set(histories.of_user(user).tolist())
        assert set(items) == {item for each in alone for item in each[user].tolist() if item >= 0} | own
        present = found.items_UC[user] >= 0
        assert np.isfinite(found.generative_UC[user][present]).all()
        assert np.isfinite(found.dense_UC[user][present]).all()
    assert heard.count(Progress(histories.n_users, histories.n_users, "user")) == 3, (
        "two searches, and what both say of all"
    )
    assert heard[-1].step == histories.n_users


@pytest.mark.parametrize("masked", [True, False])
def test_what_only_a_ranker_finds_stands_last(
    monkeypatch: pytest.MonkeyPatch, both: tuple[Any, Any], masked: bool
) -> None:
    for module in ("late_fusion", "similar"):
        monkeypatch.setattr(f"prorec_core.generation.{module}.BESIDE_CANDIDATES", 3)
    histories = _histories()
    strength_N = np.linspace(1, 0.1, N_ITEMS, dtype=np.float32)
    plain = joint_candidates(*both, histories, 4, masked=masked)
    found = joint_candidates(
        *both, histories, 4, masked=masked, near=lambda some: sparse.csr_matrix(np.tile(strength_N, (some.n_users, 1)))
    )
    assert found.beside == 3 and np.array_equal(found.items_UC[:, :-3], plain.items_UC)
    assert np.array_equal(found.fused(1.0, 10)[0], plain.fused(1.0, 10)[0])
    for user in range(histories.n_users):
        taken = {*plain.items_UC[user].tolist(), *(histories.of_user(user).tolist() if masked else ())}
        assert found.items_UC[user, -3:].tolist() == [item for item in range(N_ITEMS) if item not in taken][:3]
    assert np.isfinite(found.dense_UC[:, -3:]).all() and np.isfinite(found.generative_UC[:, -3:]).all()


def test_histories_of_two_lengths_are_refused(make_config: Any, make_generator: Any) -> None:
    generators = [make_generator(make_config(max_history=length)) for length in (4, 8)]
    with pytest.raises(UserError, match="histories of 4 and 8 items"):
        joint_candidates(*generators, _histories(), 4)
