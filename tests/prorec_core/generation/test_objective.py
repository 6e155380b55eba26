from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.config import CollaborativeConfig
from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.generation.base import Generator
from prorec_core.generation.objective import Objective, some_targets
from prorec_core.generation.soft_teacher import SampledTeacher, SoftTeacher, WholeTeacher
from prorec_core.sequential.sasrec import SASRec
from prorec_core.training.batching import HistoryBatch, Targets, training_batches

DIM, N_ITEMS = 16, 24

Scores = Callable[[HistoryBatch, Targets], Tensor]


def _sequences(*lengths: int) -> Sequences:
    random = np.random.default_rng(2)
    return from_lists([random.integers(0, N_ITEMS, n).astype(np.int32) for n in lengths], N_ITEMS)


def _batch(*lengths: int) -> HistoryBatch:
    (batch,) = training_batches(_sequences(*lengths), 20, 10_000, 0, torch.device("cpu"))
    return batch


def _teacher(
    generator: Generator, score: str = "cosine", temperature: float = 0.2, sample: int | None = None
) -> tuple[SoftTeacher, Scores]:
    """A teacher, and the scores of all items after each position that it has its masses from."""
    torch.manual_seed(7)
    config = CollaborativeConfig.model_validate(
        {"dim": DIM, "heads": 2, "layers": 1, "score": score, "temperature": temperature}
    )
    model = SASRec(config, DIM, 20, 0.0, low_precision=False).eval()
    table = torch.randn(N_ITEMS, DIM)

    def scores(batch: HistoryBatch, targets: Targets) -> Tensor:
        return model.softmax.scorer(table)(model.states(table, batch)[targets.rows_P, targets.columns_P])

    products = model.products(table)
    teacher = WholeTeacher(products, generator) if sample is None else SampledTeacher(products, generator, sample)
    return teacher, scores


@pytest.mark.parametrize(
    ("score", "temperature"), [("cosine", 0.2), ("cosine", 0.06), ("cosine", 0.002), ("dot", 0.06)]
)
def test_masses_are_the_softmax_summed_over_the_items_below(
    make_config: Any, make_generator: Any, score: str, temperature: float
) -> None:
    generator = make_generator(make_config())
    trie, batch = generator.trie, _batch(2, 6, 9)
    targets = batch.targets()
    teacher, scores = _teacher(generator, score, temperature)
    with torch.no_grad():
        cumulative = teacher.seen(batch, targets.rows_P, targets.columns_P)
        softmax = scores(batch, targets).softmax(1)
    assert cumulative.dtype == torch.float32
    for level in range(trie.depth):
        parents = torch.arange(len(targets.items_P)) % trie.n_nodes[level]
        children = trie.children_of(level, parents)
        masses = teacher.masses(level, cumulative, children)
        expected = torch.zeros(children.shape)
        for row, column in (children >= 0).nonzero().tolist():
            below = trie.item_nodes(level + 1) == children[row, column]
            expected[row, column] = softmax[row, below].sum()
        torch.testing.assert_close(masses, expected, rtol=1e-3, atol=2e-6)
    whole = teacher.masses(0, cumulative, trie.children_of(0, torch.zeros(len(cumulative), dtype=torch.int64))).sum(1)
    torch.testing.assert_close(whole, torch.ones(len(cumulative)))


def _levels(generator: Generator, positions: int) -> list[Tensor]:
    """For each level the children of some node a position."""
    trie = generator.trie
    return [trie.children_of(level, torch.arange(positions) % trie.n_nodes[level]) for level in range(trie.depth)]


@pytest.mark.parametrize(("score", "temperature"), [("cosine", 0.2), ("cosine", 0.002), ("dot", 0.06)])
def test_a_sampled_teacher_that_looks_at_all_leaves_is_the_whole_one(
    make_config: Any, make_generator: Any, score: str, temperature: float
) -> None:
    generator, batch = make_generator(make_config()), _batch(2, 6, 9)
    where = batch.targets()
    whole, sampled = (_teacher(generator, score, temperature, sample)[0] for sample in (None, N_ITEMS))
    seen = [teacher.seen(batch, where.rows_P, where.columns_P) for teacher in (whole, sampled)]
    for level, children in enumerate(_levels(generator, len(where.items_P))):
        masses = [each.masses(level, told, children) for each, told in zip((whole, sampled), seen, strict=True)]
        torch.testing.assert_close(masses[1], masses[0], rtol=1e-3, atol=2e-6)


def test_a_sampled_teacher_s_masses_are_unbiased_up_to_the_normaliser(
    make_config: Any, make_generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One normaliser for all draws, so that what is left is the sums below nodes."""
    monkeypatch.setattr("prorec_core.generation.soft_teacher.LEAVES", 3)
    generator, batch = make_generator(make_config()), _batch(5)
    where = batch.targets()
    exact, few = (_teacher(generator, sample=sample)[0] for sample in (N_ITEMS, 7))
    seen = exact.seen(batch, where.rows_P, where.columns_P)
    # Far from the clamp, which is for normalisers that are too small.
    seen[:, -1] += 5
    torch.manual_seed(0)
    for level, children in enumerate(_levels(generator, len(where.items_P))):
        draws = torch.stack([few.masses(level, seen, children) for _ in range(4000)])
        monkeypatch.setattr("prorec_core.generation.soft_teacher.LEAVES", N_ITEMS)
        wanted = exact.masses(level, seen, children)
        monkeypatch.setattr("prorec_core.generation.soft_teacher.LEAVES", 3)
        error = draws.std(0) / 4000**0.5
        assert ((draws.mean(0) - wanted).abs() <= 5 * error + 1e-6).all()
        assert (level == 2) or (error > 0).any()


@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("architecture", ["timeline", "encoder_decoder"])
def test_soft_targets_mix_the_teacher_s_choice_among_the_children(
    make_config: Any, make_generator: Any, architecture: str, weight: float
) -> None:
    generator = make_generator(make_config(architecture=architecture, distill={"beta": 0, "soft_targets": weight}))
    trie, batch = generator.trie, _batch(3, 5)
    targets = batch.targets()
    teacher, scores = _teacher(generator)
    expected = torch.zeros(len(targets.items_P))
    with torch.no_grad():
        loss = Objective(generator, teacher)(batch, targets)["loss"]
        softmax = scores(batch, targets).softmax(1)
        context = generator.contexts(batch, targets.rows_P, targets.columns_P)
        codes = trie.codes[targets.items_P][:, None]
        for level in range(trie.depth):
            parents = trie.item_nodes(level)[targets.items_P]
            states = generator.next_hidden(context, codes[..., :level])
            log_p = generator.child_log_probabilities(level, context, states, parents[:, None])[:, 0]
            for row, item in enumerate(targets.items_P.tolist()):
                children = [child for child in trie.children_of(level, parents[row]).tolist() if child >= 0]
                masses = torch.stack([softmax[row, trie.item_nodes(level + 1) == child].sum() for child in children])
                hard = torch.tensor([float(child == trie.item_nodes(level + 1)[item]) for child in children])
                wanted = (1 - weight) * hard + weight * masses / masses.sum()
                expected[row] -= (wanted * log_p[row, : len(children)]).sum()
    torch.testing.assert_close(loss, expected.mean(), rtol=1e-4, atol=1e-4)


def test_where_the_teacher_sees_nothing_the_target_s_own_codes_count(make_config: Any, make_generator: Any) -> None:
    """A sharp teacher gives the target's siblings no mass at all: its choice among them is noise, not knowledge."""
    generator = make_generator(make_config(distill={"beta": 0, "soft_targets": 1.0}))
    batch = _batch(6, 6)
    sharp, _ = _teacher(generator, "cosine", 0.002)
    with torch.no_grad():
        found = Objective(generator, sharp)(batch, batch.targets())["loss"]
    assert found.isfinite()
    assert found > 0


def test_all_targets_are_every_place_with_a_next_item() -> None:
    batch = _batch(2, 5, 4)
    targets = batch.targets()
    sequences = _sequences(2, 5, 4)
    found = [
        (int(batch.users_B[row]), column, item)
        for row, column, item in zip(
            targets.rows_P.tolist(), targets.columns_P.tolist(), targets.items_P.tolist(), strict=True
        )
    ]
    expected = [(user, place, int(item)) for user in range(3) for place, item in enumerate(sequences.of_user(user)[1:])]
    assert sorted(found) == sorted(expected)


def _places(targets: Targets) -> list[tuple[int, ...]]:
    parts = (targets.rows_P, targets.columns_P, targets.items_P)
    return list(zip(*(part.tolist() for part in parts), strict=True))


@pytest.mark.parametrize("per_user", [1, 2, 4, 50])
def test_some_targets_are_distinct_real_and_all_get_their_turn(per_user: int) -> None:
    batch = _batch(2, 9, 5, 3)
    torch.manual_seed(0)
    seen = set()
    every = set(_places(batch.targets()))
    for _ in range(60):
        drawn = some_targets(batch, per_user)
        places = _places(drawn)
        assert len(places) == len(set(places))
        assert set(places) <= every
        counts = torch.bincount(drawn.rows_P, minlength=4)
        assert torch.equal(counts, batch.lengths_B.clamp(max=per_user))
        seen |= set(places)
    assert seen == every


def test_the_summary_sees_the_target_and_the_context_does_not(make_config: Any, make_generator: Any) -> None:
    """At `summary` the distilled state comes after the target's codes; at `context` before them."""
    batch = _batch(5, 6)
    targets = batch.targets()
    for at, told in (("summary", True), ("context", False)):
        generator = make_generator(make_config(distill={"at": at}))
        other = type(targets)(targets.rows_P, targets.columns_P, (targets.items_P + 1) % N_ITEMS)
        with torch.no_grad():
            context = generator.contexts(batch, targets.rows_P, targets.columns_P)
            states = []
            for each in (targets, other):
                codes = generator.trie.codes[each.items_P][:, None]
                hidden = generator.hidden(context, codes, summaries=at == "summary")[:, 0]
                states.append(hidden[:, -1] if at == "summary" else context.vector_PD)
            queries = [generator.dense_queries_of([state])["integrated"] for state in states]
        assert torch.allclose(*queries) != told
        torch.testing.assert_close(queries[0].norm(dim=1), torch.ones(len(queries[0])))
        torch.testing.assert_close(F.normalize(generator.teacher("integrated"), dim=1), generator.teacher("integrated"))
