from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.generation import candidates as candidates_module
from prorec_core.generation import similar as similar_module
from prorec_core.generation.base import Items
from prorec_core.generation.candidates import (
    Candidates,
    dense_logits,
    find_candidates,
    item_log_probabilities,
    last_context,
)
from prorec_core.generation.scoring import Dense, Fused, Generative
from prorec_core.generation.trained import build_generator
from prorec_core.generation.trie import CodeTrie
from prorec_core.progress import Progress
from prorec_core.quantization.collisions import add_suffix
from prorec_core.training.batching import inference_batches

CPU = torch.device("cpu")
N_ITEMS = 24
NONE = -np.inf
ARCHITECTURES = ["timeline", "encoder_decoder"]


def _histories(n_items: int = N_ITEMS, users: int = 12) -> Sequences:
    random = np.random.default_rng(8)
    return from_lists(
        [random.integers(0, n_items, random.integers(0, 12)).astype(np.int32) for _ in range(users)], n_items
    )


def _hand_made() -> Candidates:
    """Two beams and two items that only the dense score found; the second user has one item of each."""
    return Candidates(
        items_UC=np.array([[7, 3, 5, 1], [2, -1, 9, -1]], np.int32),
        generative_UC=np.array([[-1, -2, -6, -3], [-1, NONE, -2, NONE]], np.float32),
        dense_UC=np.array([[-4, -1, -1, -9], [-3, NONE, -1, NONE]], np.float32),
        beams=2,
    )


def test_lists_of_known_candidates() -> None:
    found = _hand_made()
    items, scores = found.generative(3)
    assert items.tolist() == [[7, 3, -1], [2, -1, -1]]
    assert scores.tolist() == [[-1, -2, NONE], [-1, NONE, NONE]]
    # Items 3 and 5 are equal: the lower index comes first.
    assert found.dense(4)[0].tolist() == [[3, 5, 7, 1], [9, 2, -1, -1]]
    items, scores = found.fused(1.0, 5)
    assert items.tolist() == [[3, 7, 5, 1, -1], [9, 2, -1, -1, -1]]
    assert scores.tolist() == [[-3, -5, -7, -12, NONE], [-3, -4, NONE, NONE, NONE]]
    assert items.dtype == np.int32
    assert scores.dtype == np.float32


def test_weight_zero_is_the_generator_over_all_candidates_and_a_large_one_the_dense_score() -> None:
    found = _hand_made()
    assert found.fused(0.0, 4)[0].tolist() == [[7, 3, 1, 5], [2, 9, -1, -1]]
    assert found.fused(1e4, 4)[0].tolist() == [[3, 5, 7, 1], [9, 2, -1, -1]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("at", ["context", "summary"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("beams", [1, 3, 40])
def test_every_candidate_exists_once_and_is_new_to_the_user(
    make_config: Any, make_generator: Any, architecture: str, at: str, masked: bool, beams: int
) -> None:
    generator = make_generator(make_config(architecture=architecture, max_history=4, distill={"at": at}))
    histories = _histories()
    found = find_candidates(generator, histories, beams, 5, masked=masked)
    assert found.items_UC.dtype == np.int32
    for user in range(histories.n_users):
        owned = set(histories.of_user(user).tolist()) if masked else set()
        items = found.items_UC[user]
        real = items[items >= 0].tolist()
        assert len(set(real)) == len(real)
        assert set(real) <= set(range(N_ITEMS)) - owned
        assert np.isfinite(found.generative_UC[user][items >= 0]).all()
        assert np.isfinite(found.dense_UC[user][items >= 0]).all()
        assert (found.generative_UC[user][items < 0] == NONE).all()
        assert (found.dense_UC[user][items < 0] == NONE).all()
        for k in (3, 10, 60):
            for list_, scores in (found.generative(k), found.dense(k), found.fused(0.7, k)):
                assert list_.shape == scores.shape == (histories.n_users, k)
                filled = list_[user] >= 0
                assert (np.diff(filled.astype(int)) <= 0).all()
                assert (np.diff(scores[user][filled]) <= 0).all()
        assert (found.generative(beams)[0][user] >= 0).sum() == min(beams, N_ITEMS - len(owned))


@pytest.mark.parametrize("dense", ["context", "summary", "none"])
def test_own_items_are_candidates_where_they_may_come_back(
    monkeypatch: pytest.MonkeyPatch, make_config: Any, make_generator: Any, dense: str
) -> None:
    """However few the beams: the latest ones, each once and with the scores that they have."""
    monkeypatch.setattr(candidates_module, "OWN_CANDIDATES", 3)
    distill = {"beta": 0.0} if dense == "none" else {"at": dense}
    generator, histories = make_generator(make_config(distill=distill)), _histories()
    found = find_candidates(generator, histories, beams=2, k=2, masked=False)
    whole = find_candidates(generator, histories, beams=N_ITEMS, k=2, masked=False)
    assert find_candidates(generator, histories, beams=2, k=2).items_UC.shape[1] <= 4, "and nowhere else"
    for user in range(histories.n_users):
        latest = list(dict.fromkeys(histories.of_user(user).tolist()[::-1]))[:3]
        items = found.items_UC[user].tolist()
        assert set(latest) <= set(items)
        scores = dict(zip(whole.items_UC[user].tolist(), whole.generative_UC[user], strict=True))
        for item, score in zip(items, found.generative_UC[user], strict=True):
            assert item < 0 or score == pytest.approx(scores[item], abs=1e-4)
        if dense == "context":
            known = dict(zip(whole.items_UC[user].tolist(), whole.dense_UC[user], strict=True))
            told = {item: known[item] for item in items if item >= 0}
            assert told == pytest.approx({item: found.dense_UC[user][items.index(item)] for item in told}, abs=1e-4)


@pytest.mark.parametrize("masked", [True, False])
def test_what_only_a_ranker_finds_stands_last_and_counts_for_no_other_score(
    monkeypatch: pytest.MonkeyPatch, make_config: Any, make_generator: Any, masked: bool
) -> None:
    for module in (candidates_module, similar_module):
        monkeypatch.setattr(module, "BESIDE_CANDIDATES", 4)
    generator, histories = make_generator(make_config()), _histories()
    order = np.random.default_rng(3).permutation(N_ITEMS + 5)

    def near(some: Sequences) -> sparse.csr_matrix:
        """Of a catalogue that is larger than the generator's; an item less of it for every item of a history."""
        strength = np.linspace(1, 0.1, N_ITEMS + 5, dtype=np.float32)[np.argsort(order)]
        known = np.arange(N_ITEMS + 5) >= np.diff(some.offsets)[:, None]
        return sparse.csr_matrix(known * strength)

    plain = find_candidates(generator, histories, 3, 2, masked=masked)
    found = find_candidates(generator, histories, 3, 2, masked=masked, near=near)
    whole = find_candidates(generator, histories, N_ITEMS, 2, masked=False)
    assert found.beside == 4 and np.array_equal(found.items_UC[:, :-4], plain.items_UC)
    for k in (2, 10, 40):
        for mine, theirs in (
            (found.generative(k), plain.generative(k)),
            (found.dense(k), plain.dense(k)),
            (found.fused(0.7, k), plain.fused(0.7, k)),
        ):
            assert np.array_equal(mine[0], theirs[0]) and np.array_equal(mine[1], theirs[1])
    places = np.zeros((histories.n_users, 1), np.int64)
    for scoring in (Dense(), Fused(0.7), Generative()):
        for mine, theirs in zip(
            scoring.contributions(found, histories, places),
            scoring.contributions(plain, histories, places),
            strict=True,
        ):
            np.testing.assert_allclose(mine, theirs)
    for user in range(histories.n_users):
        own = histories.of_user(user).tolist()
        left_out = {*plain.items_UC[user].tolist(), *(own if masked else ())}
        wanted = [item for item in order.tolist() if len(own) <= item < N_ITEMS and item not in left_out][:4]
        items = found.items_UC[user, -4:]
        assert items[items >= 0].tolist() == wanted
        scores = dict(zip(whole.items_UC[user].tolist(), whole.generative_UC[user], strict=True))
        for place, item in enumerate(items):
            if item >= 0:
                assert found.generative_UC[user, -4 + place] == pytest.approx(scores[int(item)], abs=1e-4)
    summary = make_generator(make_config(distill={"at": "summary"}))
    assert find_candidates(summary, histories, 3, 2, near=near).beside == 0, "no dense score of all items"
    some = found.select(np.array([1, 0]))
    assert some.beside == 4 and np.array_equal(some.dense(3)[0], found.dense(3)[0][[1, 0]])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_dense_list_is_that_of_the_whole_catalogue(
    make_config: Any, make_generator: Any, architecture: str
) -> None:
    """Whatever the beams: the best k by the distillation head, each with both log-probabilities."""
    generator = make_generator(make_config(architecture=architecture))
    histories = _histories()
    found = find_candidates(generator, histories, beams=2, k=6)
    items, scores = found.dense(6)
    for batch in inference_batches(histories, 20, 1000, 1000, CPU):
        with torch.no_grad():
            context = last_context(generator, batch)
            dense = dense_logits(generator, context).log_softmax(1)
            exact = item_log_probabilities(generator, context, torch.arange(N_ITEMS).expand(len(batch.users_B), -1))
        for row, user in enumerate(batch.users_B.tolist()):
            open_ = dense[row].clone()
            open_[histories.of_user(user).tolist()] = NONE
            best = open_.topk(6)
            assert items[user].tolist() == best.indices.tolist()
            np.testing.assert_allclose(scores[user], best.values, rtol=1e-4, atol=1e-4)
            real = found.items_UC[user] >= 0
            np.testing.assert_allclose(
                found.generative_UC[user][real], exact[row][found.items_UC[user][real]], rtol=1e-4, atol=1e-4
            )
            np.testing.assert_allclose(
                found.dense_UC[user][real], dense[row][found.items_UC[user][real]], rtol=1e-4, atol=1e-4
            )


def test_the_summary_tells_the_beams_apart(make_config: Any, make_generator: Any) -> None:
    generator = make_generator(make_config(distill={"at": "summary"}))
    found = find_candidates(generator, _histories(), beams=5, k=10)
    assert found.items_UC.shape[1] == 5
    np.testing.assert_allclose(np.exp(found.dense_UC).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("options", [{"distill": {"beta": 0}}, {}])
def test_without_a_dense_score_there_are_the_beams_alone(make_config: Any, make_generator: Any, options: Any) -> None:
    generator = make_generator(make_config(**options))
    found = find_candidates(generator, _histories(), beams=5, k=10, with_dense=False)
    assert found.items_UC.shape[1] == 5
    assert (found.dense_UC == NONE).all()
    assert (found.generative(5)[0] >= 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("at", ["context", "summary"])
@pytest.mark.parametrize("n_items", [1, 2, 3])
def test_catalogues_smaller_than_every_list(
    make_config: Any, make_generator: Any, architecture: str, at: str, n_items: int
) -> None:
    codes = np.arange(n_items, dtype=np.uint16)[:, None].repeat(2, 1)
    generator = make_generator(make_config(architecture=architecture, distill={"at": at}), codes)
    histories = _histories(n_items)
    found = find_candidates(generator, histories, beams=10, k=50)
    for list_, _ in (found.generative(50), found.dense(50), found.fused(2.0, 50)):
        for user in range(histories.n_users):
            left = set(range(n_items)) - set(histories.of_user(user).tolist())
            assert {item for item in list_[user].tolist() if item >= 0} == left
            assert (list_[user] >= 0).sum() == len(left)


def test_small_batches_find_the_same(make_config: Any, make_generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, histories, seen = make_generator(make_config()), _histories(), list[Progress]()
    whole = find_candidates(generator, histories, 4, 6, report=seen.append)
    assert [(p.step, p.total, p.unit) for p in seen] == [(12, 12, "user")]
    seen.clear()
    monkeypatch.setattr("prorec_core.generation.candidates.SEARCH_CELLS", 40)
    parts = find_candidates(generator, histories, 4, 6, report=seen.append)
    assert len(seen) > 5
    assert seen[-1].step == seen[-1].total == 12
    for k in (4, 6):
        for first, second in zip(
            (whole.generative(k), whole.dense(k), whole.fused(1.0, k)),
            (parts.generative(k), parts.dense(k), parts.fused(1.0, k)),
            strict=True,
        ):
            assert np.array_equal(first[0], second[0])
            np.testing.assert_allclose(first[1], second[1], rtol=1e-4, atol=1e-4)


def test_nobody_to_recommend_to(make_config: Any, make_generator: Any) -> None:
    found = find_candidates(make_generator(make_config()), from_lists([], N_ITEMS), 4, 6)
    assert found.generative(3)[0].shape == (0, 3)
    assert found.fused(1.0, 3)[0].shape == (0, 3)


@pytest.mark.parametrize("node_scores", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_search_in_a_large_catalogue_finds_what_tables_of_all_nodes_give(
    make_config: Any, make_generator: Any, architecture: str, node_scores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = make_generator(make_config(architecture=architecture, max_history=4, node_scores=node_scores))
    generator.offset_items(torch.linspace(-1, 1, N_ITEMS))
    whole = find_candidates(generator, _histories(), 5, 6)
    for module in ("trie", "base"):
        monkeypatch.setattr(f"prorec_core.generation.{module}.WHOLE_TABLES", 0)
    for gathered, scores in ((0, 1), (0, 10**9), (10**9, 1), (10**9, 10**9)):
        monkeypatch.setattr("prorec_core.generation.base._GATHERED", gathered)
        monkeypatch.setattr("prorec_core.generation.base._SCORES", scores)
        monkeypatch.setattr("prorec_core.generation.base._ROWS", 7)
        found = find_candidates(generator, _histories(), 5, 6)
        assert np.array_equal(found.items_UC, whole.items_UC)
        np.testing.assert_allclose(found.generative_UC, whole.generative_UC, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.dense_UC, whole.dense_UC, rtol=1e-5, atol=1e-5)


def test_few_users_at_a_time_find_the_same(
    make_config: Any, make_generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = make_generator(make_config(max_history=4))
    together = find_candidates(generator, _histories(), 5, 6)
    monkeypatch.setattr("prorec_core.generation.candidates.DENSE_CELLS", 3 * N_ITEMS)
    told: list[Progress] = []
    found = find_candidates(generator, _histories(), 5, 6, report=told.append)
    assert [each.step for each in told] == [3, 6, 9, 12]
    assert np.array_equal(found.items_UC, together.items_UC)


class _Largest(TorchDispatchMode):
    """Remembers the elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        views = {each.untyped_storage().data_ptr() for each in given}
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in views:
                self.elements = max(self.elements, tensor.numel())
        return result


def test_search_in_a_large_catalogue_makes_no_table_of_it(make_config: Any) -> None:
    """250,000 items, among them a family of 500: neither a row for each node nor a number for each item."""
    random, users, beams, dim = np.random.default_rng(0), 8, 10, 16
    codes = random.integers(0, 64, (250_000, 3))
    codes[:500] = codes[0]
    codes = add_suffix(codes.astype(np.uint16))
    trie = CodeTrie.from_codes(codes)
    tensors = [*trie.first_child, *trie.n_children, *trie.node_code, *trie.first_leaf, *trie.last_leaf]
    tensors += [trie.leaf_item, trie.item_leaf, trie.path, trie.codes]
    assert sum(tensor.numel() for tensor in tensors) < 25 * trie.n_items
    assert trie.widest[-1] >= 500
    embeddings = torch.from_numpy(random.normal(size=(250_000, dim)).astype(np.float32))
    books = [None] * trie.depth
    generator = build_generator(make_config(dim=dim), Items(trie, embeddings, {}, books), False).eval()
    with _Largest() as largest, torch.no_grad():
        found = find_candidates(generator, _histories(250_000, users), beams, beams, with_dense=False)
    assert (found.items_UC >= 0).all()
    assert largest.elements <= users * beams * max(trie.widest[:-1]) * dim < trie.n_items
