"""One contract for both generators: what they tell of codes, and how they are trained on it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.generation.base import Context, Generator, SharedMemory
from prorec_core.generation.candidates import dense_logits, find_candidates, item_log_probabilities, last_context
from prorec_core.generation.causal_encoder_decoder import CausalEncoderDecoder
from prorec_core.generation.encoder_decoder import EncoderDecoder
from prorec_core.generation.objective import Objective, some_targets
from prorec_core.generation.timeline import Timeline
from prorec_core.registry import GENERATORS
from prorec_core.training.batching import HistoryBatch, inference_batches, training_batches

CPU = torch.device("cpu")
N_ITEMS = 24
ONE_LEVEL = np.arange(7, dtype=np.uint16)[:, None]
ONE_ITEM = np.array([[3, 1, 0]], np.uint16)
CHAIN = np.array([[0, 0], [1, 0], [2, 0]], np.uint16)
OPTIONS = [
    {"trie_mask": mask, "node_scores": nodes, "history": history, "heads_from_codebooks": books}
    for mask, nodes, (history, books) in itertools.product(
        [True, False], [True, False], [("codes", True), ("codes_and_embedding", False)]
    )
]


def _histories(n_items: int = N_ITEMS, *, empty: bool = True) -> Sequences:
    random = np.random.default_rng(4)
    lengths = [1, 5, 3, 9, *([0] if empty else [2])]
    return from_lists([random.integers(0, n_items, n).astype(np.int32) for n in lengths], n_items)


def _batch(sequences: Sequences, *, training: bool = False) -> HistoryBatch:
    if training:
        (batch,) = training_batches(sequences, 20, 10_000, 0, CPU)
    else:
        (batch,) = inference_batches(sequences, 20, 10_000, 1000, CPU)
    return batch


def _every_item(generator: Generator, users: int) -> Tensor:
    return torch.arange(generator.trie.n_items).expand(users, -1)


class GeneratorContract:
    """What holds of every architecture."""

    architecture: ClassVar[str]
    kind: ClassVar[type[Generator]]

    @pytest.fixture
    def generator(self, make_config: Any, make_generator: Any) -> Any:
        """Makes a generator of this architecture with these options."""

        def make(codes: Any = None, low_precision: bool = False, shaken: float = 0.4, **options: Any) -> Generator:
            config = make_config(architecture=self.architecture, **options)
            found = make_generator(config, codes, low_precision=low_precision, shaken=shaken)
            assert type(found) is self.kind
            return found

        return make

    @pytest.mark.parametrize("options", OPTIONS)
    @pytest.mark.parametrize("codes", [None, ONE_LEVEL, ONE_ITEM, CHAIN], ids=["three", "one", "item", "chain"])
    def test_the_probabilities_of_all_items_sum_to_one(self, generator: Any, options: Any, codes: Any) -> None:
        model = generator(codes, **options)
        context = last_context(model, _batch(_histories(model.trie.n_items)))
        with torch.no_grad():
            total = item_log_probabilities(model, context, _every_item(model, 5)).exp().sum(1)
        if options["trie_mask"] or options["node_scores"]:
            torch.testing.assert_close(total, torch.ones(5))
        else:
            # Some of the mass is on codes that name nothing; with one level every code names an item.
            assert (total <= 1 + 1e-5).all()
            if codes is None:
                assert total.min() < 0.99

    @pytest.mark.parametrize("options", OPTIONS)
    def test_the_training_loss_is_minus_the_log_probability_of_inference(self, generator: Any, options: Any) -> None:
        model = generator(**options, distill={"beta": 0, "soft_targets": 0})
        batch = _batch(_histories(), training=True)
        targets = batch.targets()
        with torch.no_grad():
            losses = Objective(model, None)(batch, targets)
            context = model.contexts(batch, targets.rows_P, targets.columns_P)
            log_p = item_log_probabilities(model, context, targets.items_P[:, None])
        assert set(losses) == {"loss", "loss_generate"}
        torch.testing.assert_close(losses["loss"], -log_p.mean(), rtol=1e-4, atol=1e-5)

    def test_the_first_code_of_a_users_items_is_scored_once(self, generator: Any, monkeypatch: Any) -> None:
        model, asked = generator(), []
        plain = type(model).child_log_probabilities

        def counted(self: Any, level: int, context: Any, hidden_PHD: Tensor, nodes_PH: Tensor) -> Tensor:
            asked.append(nodes_PH.shape[1])
            found: Tensor = plain(self, level, context, hidden_PHD, nodes_PH)
            return found

        monkeypatch.setattr(type(model), "child_log_probabilities", counted)
        batch = _batch(_histories())
        with torch.no_grad():
            item_log_probabilities(model, last_context(model, batch), _every_item(model, 5))
        assert asked == [1, *[model.trie.n_items] * (model.trie.depth - 1)]

    @pytest.mark.parametrize("options", OPTIONS)
    @pytest.mark.parametrize("codes", [None, ONE_LEVEL, ONE_ITEM, CHAIN], ids=["three", "one", "item", "chain"])
    def test_beam_search_over_the_whole_catalogue_is_exact(self, generator: Any, options: Any, codes: Any) -> None:
        model = generator(codes, **options)
        sequences, n_items = _histories(model.trie.n_items), model.trie.n_items
        found = find_candidates(model, sequences, beams=n_items, k=3, masked=False)
        batch = _batch(sequences)
        with torch.no_grad():
            exact = item_log_probabilities(model, last_context(model, batch), _every_item(model, 5))
        items, scores = found.generative(n_items)
        for row, user in enumerate(batch.users_B.tolist()):
            assert sorted(items[user].tolist()) == list(range(n_items))
            torch.testing.assert_close(torch.from_numpy(scores[user]), exact[row][items[user]], rtol=1e-4, atol=1e-4)
            assert (np.diff(scores[user]) <= 0).all()

    def test_what_is_learnt_within_a_history_is_asked_of_one_that_ends_there(self, generator: Any) -> None:
        model, histories = generator(node_scores=False), _histories(empty=False)
        batch = _batch(histories, training=True)
        targets = batch.targets()
        prefixes = [
            batch.items_BL[row, : column + 1].numpy().astype(np.int32)
            for row, column in zip(targets.rows_P, targets.columns_P, strict=True)
        ]
        (asked,) = inference_batches(from_lists(prefixes, N_ITEMS), 20, 10_000, 1000, CPU)
        with torch.no_grad():
            context = model.contexts(batch, targets.rows_P, targets.columns_P)
            learnt = item_log_probabilities(model, context, _every_item(model, len(prefixes)))
            found = item_log_probabilities(model, last_context(model, asked), _every_item(model, len(prefixes)))
        torch.testing.assert_close(found, learnt[asked.users_B], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("node_scores", [True, False])
    def test_padding_and_company_never_matter(self, generator: Any, node_scores: bool) -> None:
        model, sequences = generator(node_scores=node_scores), _histories()
        batch = _batch(sequences)
        beyond = torch.arange(batch.items_BL.shape[1]) > 0
        filled = HistoryBatch(batch.users_B, batch.items_BL.masked_fill(~batch.is_item_BL & beyond, 7), batch.lengths_B)
        together = find_candidates(model, sequences, beams=4, k=5)
        with torch.no_grad():
            exact = item_log_probabilities(model, last_context(model, batch), _every_item(model, 5))
            other = item_log_probabilities(model, last_context(model, filled), _every_item(model, 5))
        torch.testing.assert_close(exact, other, rtol=1e-4, atol=1e-4)
        for user in range(sequences.n_users):
            alone = find_candidates(model, from_lists([sequences.of_user(user)], N_ITEMS), beams=4, k=5)
            assert alone.items_UC[0].tolist() == together.items_UC[user].tolist()
            for name in ("generative_UC", "dense_UC"):
                mine, theirs = getattr(alone, name)[0], getattr(together, name)[user]
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)

    def test_a_context_knows_nothing_of_what_comes_after_it(self, generator: Any) -> None:
        model, batch = generator(), _batch(_histories(), training=True)
        targets = batch.targets()
        place = 2
        later = torch.arange(batch.items_BL.shape[1]) > place
        changed = HistoryBatch(
            batch.users_B, torch.where(later, (batch.items_BL + 5) % N_ITEMS, batch.items_BL), batch.lengths_B
        )
        at = targets.columns_P <= place
        assert 0 < at.sum() < len(at)
        with torch.no_grad():
            before, after = (
                model.contexts(each, targets.rows_P, targets.columns_P).vector_PD for each in (batch, changed)
            )
        torch.testing.assert_close(before[at], after[at], rtol=1e-4, atol=1e-5)
        assert not torch.isclose(before[~at], after[~at]).all(1).any()

    def test_a_code_s_state_knows_nothing_of_the_codes_after_it(self, generator: Any) -> None:
        model = generator()
        with torch.no_grad():
            context = last_context(model, _batch(_histories()))
            codes = model.trie.codes[torch.tensor([[0, 5, 9]] * 5)]
            whole = model.hidden(context, codes)
            assert whole.shape == (5, 3, 4, 16)
            for level in range(4):
                part = model.hidden(context, codes[..., :level])
                torch.testing.assert_close(part, whole[:, :, : level + 1], rtol=1e-4, atol=1e-5)
            # Beams of a user do not disturb each other either.
            alone = model.hidden(context, codes[:, 1:2])
            torch.testing.assert_close(alone[:, 0], whole[:, 1], rtol=1e-4, atol=1e-5)
            assert not torch.allclose(whole[:, 0, 3], whole[:, 1, 3])

    def test_beams_that_grow_have_the_states_of_beams_read_whole(self, generator: Any) -> None:
        model = generator()
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            context = last_context(model, _batch(_histories()))
            hidden = model.growing(context)
            codes, parents = torch.zeros((5, 1, 0), dtype=torch.int64), torch.zeros((5, 1), dtype=torch.int64)
            for beams, count in zip((3, 4, 2), model.code_vectors, strict=False):
                whole = model.hidden(context, codes)[:, :, -1]
                torch.testing.assert_close(hidden(codes, parents), whole, rtol=1e-4, atol=1e-5)
                parents = torch.randint(0, codes.shape[1], (5, beams), generator=random)
                chosen = torch.randint(0, len(count), (5, beams, 1), generator=random)
                before = codes.gather(1, parents[..., None].expand(-1, -1, codes.shape[2]))
                codes = torch.cat([before, chosen], dim=-1)
            whole = model.hidden(context, codes)[:, :, -1]
            torch.testing.assert_close(hidden(codes, parents), whole, rtol=1e-4, atol=1e-5)

    def test_states_of_some_rows_a_level_are_those_of_all(self, generator: Any) -> None:
        model = generator()
        with torch.no_grad():
            context, codes = last_context(model, _batch(_histories())), model.trie.codes[:5]
            rows = [torch.tensor([4, 0, 1]), torch.arange(5), torch.tensor([], dtype=torch.int64), torch.tensor([2])]
            found = model.hidden_of(context, codes, rows)
            whole = model.hidden(context, codes[:, None])[:, 0]
        for level, (at, states) in enumerate(zip(rows, found, strict=True)):
            torch.testing.assert_close(states, whole[at, level], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("at", ["context", "summary"])
    @pytest.mark.parametrize("teacher", ["integrated", "both"])
    @pytest.mark.parametrize("options", OPTIONS[:4])
    def test_all_that_is_trained_gets_a_gradient(self, generator: Any, at: str, teacher: str, options: Any) -> None:
        model = generator(distill={"at": at, "teacher": teacher}, **options).train()
        batch = _batch(_histories(), training=True)
        losses = Objective(model, None)(batch, some_targets(batch, 3))
        assert set(losses) == {"loss", "loss_generate", "loss_distill"}
        losses["loss"].backward()
        expected = losses["loss_generate"] + 0.3 * losses["loss_distill"]
        torch.testing.assert_close(losses["loss"].detach(), expected)
        idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        if options["history"] == "codes":
            idle -= {"embed.weight", "embed.bias"}
        # A level with one code below every node teaches its head nothing; this table has no such level.
        assert not idle, idle
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    @pytest.mark.parametrize("teacher", ["integrated", "both"])
    @pytest.mark.parametrize("at", ["context", "summary"])
    def test_distillation_is_a_cross_entropy_over_the_teacher_s_items(
        self, generator: Any, at: str, teacher: str
    ) -> None:
        model = generator(distill={"at": at, "teacher": teacher, "temperature": 0.5, "share": 1})
        batch = _batch(_histories(), training=True)
        targets = batch.targets()
        with torch.no_grad():
            loss = Objective(model, None)(batch, targets)["loss_distill"]
            of_all = Objective(model, None, sample=model.trie.n_items)(batch, targets)["loss_distill"]
            context = model.contexts(batch, targets.rows_P, targets.columns_P)
            teachers = len(model.teacher_names)
            states = [context.vector_PD] * teachers
            if at == "summary":
                codes = model.trie.codes[targets.items_P][:, None]
                states = list(model.hidden(context, codes, summaries=True)[:, 0, -teachers:].unbind(1))
            parts = [
                F.cross_entropy(F.normalize(query(state), dim=-1) @ model.teacher(name).t() / 0.5, targets.items_P)
                for (name, query), state in zip(model.dense_queries.items(), states, strict=True)
            ]
        assert len(parts) == (2 if teacher == "both" else 1)
        torch.testing.assert_close(loss, torch.stack(parts).mean(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(of_all, loss, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("at", ["context", "summary"])
    def test_distilling_at_a_share_of_the_targets_means_the_same_on_average(self, generator: Any, at: str) -> None:
        batch = _batch(_histories(), training=True)
        targets = batch.targets()

        def losses(share: float, draws: int) -> torch.Tensor:
            model = generator(distill={"at": at, "share": share})
            with torch.no_grad():
                return torch.stack([Objective(model, None)(batch, targets)["loss_distill"] for _ in range(draws)])

        (whole,), drawn = losses(1, 1), losses(0.25, 400)
        assert len(drawn.unique()) > 100
        assert abs(drawn.mean() - whole) < 4 * drawn.std() / 20

    @pytest.mark.parametrize("teacher", ["integrated", "both"])
    def test_each_teacher_has_a_summary_token_of_its_own(self, generator: Any, teacher: str) -> None:
        model = generator(distill={"at": "summary", "teacher": teacher})
        context = last_context(model, _batch(_histories(empty=False)))
        codes = model.trie.codes[:5][:, None]
        with torch.no_grad():
            plain, told = model.hidden(context, codes), model.hidden(context, codes, summaries=True)
            # What the tokens are does not reach the codes before them.
            torch.testing.assert_close(told[:, :, : plain.shape[2]], plain, rtol=1e-4, atol=1e-5)
            summaries = told[:, :, plain.shape[2] :]
            assert summaries.shape == (5, 1, 2 if teacher == "both" else 1, 16)
            if teacher == "both":
                assert not torch.allclose(summaries[:, :, 0], summaries[:, :, 1])
            other = model.hidden(context, model.trie.codes[5:10][:, None], summaries=True)
            assert not torch.allclose(other[:, :, -1], summaries[:, :, -1])

    @pytest.mark.parametrize("options", OPTIONS)
    def test_label_smoothing_spreads_over_the_codes_that_compete(self, generator: Any, options: Any) -> None:
        share = 0.2
        model = generator(**options, label_smoothing=share, distill={"beta": 0})
        batch = _batch(_histories(), training=True)
        targets = batch.targets()
        expected = torch.zeros(len(targets.items_P))
        with torch.no_grad():
            loss = Objective(model, None)(batch, targets)["loss"]
            context = model.contexts(batch, targets.rows_P, targets.columns_P)
            masked = options["trie_mask"] or options["node_scores"]
            for row, item in enumerate(targets.items_P.tolist()):
                one = _only(context, row)
                for level, code in enumerate(model.trie.codes[item].tolist()):
                    before = model.trie.codes[item, :level]
                    place = code
                    state = model.hidden(one, before[None, None])[0, 0, -1]
                    logits = model.code_logits(level, state)
                    if masked:
                        rows = (model.trie.codes[:, :level] == before).all(1)
                        alive = model.trie.codes[rows, level].unique()
                        parent = model.trie.item_nodes(level)[item]
                        children = model.trie.children_of(level, parent)
                        scores = model.level_scores(level, one.vector_PD, state[None, None])
                        logits = model.child_logits(level, scores, children[None, None])[0, 0]
                        logits = logits[: len(alive)]
                        place = int((alive == code).nonzero())
                    log_p = logits.log_softmax(0)
                    expected[row] -= (1 - share) * log_p[place] + share * log_p.mean()
        torch.testing.assert_close(loss, expected.mean(), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("options", OPTIONS)
    def test_only_children_and_groups_by_width_change_no_loss_and_no_gradient(
        self, generator: Any, options: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, batch = generator(**options), _batch(_histories(), training=True)
        targets = batch.targets()

        def found() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
            model.zero_grad()
            torch.manual_seed(0)
            losses = Objective(model, None)(batch, targets)
            losses["loss"].backward()
            return losses["loss_generate"], [
                None if each.grad is None else each.grad.clone() for each in model.parameters()
            ]

        loss, gradients = found()
        everything = torch.arange(len(targets.items_P))
        assert any(
            len(Objective(model, None)._learnt(level, targets)) < len(everything) for level in range(model.trie.depth)
        ) == (options["trie_mask"] or options["node_scores"])
        for name, value in (("_WIDE", 0), ("_WIDTHS", 2)):
            monkeypatch.setattr(f"prorec_core.generation.objective.{name}", value)
        monkeypatch.setattr(Objective, "_learnt", lambda *_: everything)
        other_loss, other_gradients = found()
        torch.testing.assert_close(loss, other_loss, rtol=1e-4, atol=1e-5)
        for gradient, other in zip(gradients, other_gradients, strict=True):
            torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)

    def test_node_scores_are_those_of_the_mean_embedding_below(self, generator: Any) -> None:
        with_scores = generator(node_scores=True, node_temperature=0.5)
        trie, batch = with_scores.trie, _batch(_histories())
        assert any(2 * trie.widest[level] < trie.n_nodes[level + 1] for level in range(3))
        with torch.no_grad():
            context = last_context(with_scores, batch)
            for level in range(3):
                of_all = trie.children_of(level, torch.arange(trie.n_nodes[level]))
                children = of_all.expand(5, -1, -1)
                hidden = torch.zeros(5, children.shape[1], 16)
                scores = with_scores.level_scores(level, context.vector_PD, hidden)
                given = with_scores.child_logits(level, scores, children)
                plain = with_scores.code_logits(level, hidden)
                query = F.normalize(with_scores.node_queries[level](context.vector_PD), dim=-1) / 0.5
                embeddings = F.normalize(with_scores.inputs_NE, dim=-1)
                for node, child in (of_all >= 0).nonzero().tolist():
                    below = of_all[node, child]
                    mean = embeddings[with_scores.trie.item_nodes(level + 1) == below].mean(0)
                    code = with_scores.trie.node_code[level + 1][below]
                    torch.testing.assert_close(
                        given[:, node, child], plain[:, node, code] + query @ mean, rtol=1e-4, atol=1e-4
                    )
                    # One node a row takes another way through the tables.
                    scores = with_scores.level_scores(level, context.vector_PD, hidden[:, :1])
                    single = with_scores.child_logits(level, scores, children[:, node : node + 1])
                    torch.testing.assert_close(single[:, 0, child], given[:, node, child], rtol=1e-4, atol=1e-4)

    def test_bfloat16_stays_near(self, generator: Any) -> None:
        batch, losses = _batch(_histories(), training=True), []
        for low in (False, True):
            model = generator(low_precision=low, shaken=0.05, dropout=0.0).train()
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                losses.append(Objective(model, None)(batch, batch.targets())["loss"])
            losses[-1].backward()
        torch.testing.assert_close(losses[1], losses[0], rtol=0.03, atol=0.03)

    def test_codebooks_start_the_heads(self, generator: Any) -> None:
        model = generator(shaken=0.0, heads_from_codebooks=True, history="codes")
        plain = generator(shaken=0.0, heads_from_codebooks=False, history="codes")
        embeddings = model.inputs_NE
        for level in range(2):
            for code in range(len(model.heads[level])):
                mean = embeddings[model.trie.codes[:, level] == code].mean(0)
                assert F.cosine_similarity(model.heads[level][code], mean, dim=0) > 0.8
                torch.testing.assert_close(
                    F.normalize(model.heads[level][code], dim=0), F.normalize(model.code_vectors[level][code], dim=0)
                )
        assert plain.heads[0].std() < 0.05
        assert model.heads[2].std() < 0.05

    def test_stage_one_teaches_without_dropout(self, generator: Any, stage_one: Any) -> None:
        model = generator()
        model.attach_stage_one(stage_one.sequential_model(CPU)[0])
        model.train()
        assert model.training and model.stage_one is not None
        assert not any(module.training for module in model.stage_one.modules())

    def test_dense_logits_are_the_mean_over_teachers(self, generator: Any) -> None:
        model = generator(distill={"teacher": "both", "temperature": 0.5})
        context = Context(torch.randn(3, 16))
        with torch.no_grad():
            expected = sum(
                F.normalize(model.dense_queries[name](context.vector_PD), dim=-1) @ model.teacher(name).t()
                for name in ("semantic", "collaborative")
            )
            torch.testing.assert_close(dense_logits(model, context), expected / 2 / 0.5)


def _only(context: Context, row: int) -> Context:
    """The context of one target."""
    parts = (context.vector_PD, context.memory_PMD, context.padding_PM)
    own = Context(*(None if part is None else part[row : row + 1] for part in parts))  # type: ignore[arg-type]
    if (shared := context.shared) is None:
        return own
    place = shared.rows_P[row : row + 1], shared.columns_P[row : row + 1]
    return replace(own, shared=SharedMemory(shared.states_BMD, *place, shared.visible_LM))


class TestTimeline(GeneratorContract):
    architecture = "timeline"
    kind = Timeline


class TestEncoderDecoder(GeneratorContract):
    architecture = "encoder_decoder"
    kind = EncoderDecoder


class TestCausalEncoderDecoder(GeneratorContract):
    architecture = "causal_encoder_decoder"
    kind = CausalEncoderDecoder


def test_every_generator_is_held_to_the_contract() -> None:
    assert sorted(kind.architecture for kind in GeneratorContract.__subclasses__()) == sorted(GENERATORS)
