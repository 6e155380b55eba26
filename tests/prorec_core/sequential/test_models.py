"""One contract for every sequential model, and what is particular to each."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig
from prorec_core.data.sequences import Sequences, Split, from_lists
from prorec_core.progress import Progress
from prorec_core.registry import SEQUENTIAL_MODELS
from prorec_core.sequential.base import INFERENCE_TOKENS, SequentialModel, target_ranks
from prorec_core.sequential.din import DIN
from prorec_core.sequential.sasrec import SASRec
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel, build_model
from prorec_core.sequential.transformer import CausalTransformer
from prorec_core.training.batching import HistoryBatch, inference_batches, training_batches
from prorec_core.training.runtime import Runtime
from prorec_core.training.sampling import met_in

CPU = torch.device("cpu")
DIM, ITEMS = 8, 11
Score = Literal["cosine", "dot"]
SCORES: list[Score] = ["cosine", "dot"]


def histories_of(*lengths: int, n_items: int = ITEMS, seed: int = 0) -> Sequences:
    random = np.random.default_rng(seed)
    return from_lists([random.integers(0, n_items, n).astype(np.int32) for n in lengths], n_items)


def whole_batch(sequences: Sequences, *, training: bool) -> HistoryBatch:
    if training:
        (batch,) = training_batches(sequences, 50, 10_000, 0, CPU)
    else:
        (batch,) = inference_batches(sequences, 50, 10_000, 1000, CPU)
    return batch


class SequentialContract:
    """What holds of every model."""

    name: ClassVar[Literal["sasrec", "din"]]
    learning: ClassVar[dict[str, Any]]
    offers: ClassVar[set[str]]
    """Which of the methods that not every model has it has."""

    def config(self, **changes: Any) -> CollaborativeConfig:
        settings: dict[str, Any] = {
            "model": self.name,
            "dim": DIM,
            "layers": 1,
            "heads": 2,
            "attention_units": 5,
            "epochs": 3,
            "tokens_per_batch": 64,
            "warmup_steps": 5,
            "max_history": 50,
            "precision": "float32",
            "temperature": 0.5,
        }
        return CollaborativeConfig.model_validate({**settings, **changes})

    @staticmethod
    def loss(model: SequentialModel, table: Tensor, batch: HistoryBatch, sample: int | None) -> Tensor:
        """Over the whole catalogue, or over what the batch and a sample meet of it."""
        if sample is None:
            return model.training_loss(table, batch)
        met, rows = met_in(batch, len(table), sample)
        return model.training_loss(F.embedding(met.items_R, table), rows, met)

    def model(
        self, low_precision: bool = False, table_dim: int = DIM, seed: int = 0, **changes: Any
    ) -> SequentialModel:
        torch.manual_seed(seed)
        config = self.config(**changes)
        return build_model(config, config, table_dim, low_precision)

    def table(self, n_items: int = ITEMS, dim: int = DIM) -> Tensor:
        torch.manual_seed(5)
        return torch.randn(n_items, dim, requires_grad=True)

    @pytest.mark.parametrize("score", SCORES)
    @pytest.mark.parametrize("whole", [True, False])
    def test_the_loss_is_finite_and_its_gradient_reaches_table_and_weights(self, score: Score, whole: bool) -> None:
        model, table = self.model(score=score, negatives=40), self.table()
        batch = whole_batch(histories_of(2, 5, 9), training=True)
        loss = self.loss(model, table, batch, None if whole else 3)
        assert loss.isfinite()
        assert loss.shape == ()
        loss.backward()
        assert table.grad is not None
        assert table.grad.isfinite().all()
        used = torch.cat([batch.items_BL[batch.is_item_BL], batch.targets_BL[batch.is_item_BL]]).unique()  # type: ignore[index]
        assert (table.grad[used].abs().sum(1) > 0).all()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()
        assert sum(int(p.grad.any()) for p in model.parameters() if p.grad is not None) > 3

    @pytest.mark.parametrize("score", SCORES)
    def test_training_logits_are_the_scores(self, score: Score) -> None:
        """The loss at each position is the cross-entropy of the scores that a user with just that prefix gets."""
        model, table = self.model(score=score).eval(), self.table()
        sequences = histories_of(2, 6, 4, 9)
        expected = []
        for user in range(sequences.n_users):
            items = sequences.of_user(user)
            for end in range(1, len(items)):
                batch = whole_batch(from_lists([items[:end]], ITEMS), training=False)
                expected.append(F.cross_entropy(model.scores(table, batch), torch.tensor([int(items[end])])))
        loss = model.training_loss(table, whole_batch(sequences, training=True))
        torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("score", SCORES)
    def test_a_sample_of_all_stands_for_the_whole_catalogue(self, score: Score) -> None:
        table, batch = self.table(), whole_batch(histories_of(5, 5), training=True)
        model = self.model(score=score).eval()
        losses = [self.loss(model, table, batch, sample) for sample in (None, ITEMS)]
        torch.testing.assert_close(losses[1], losses[0])
        of_whole, of_rows = (torch.autograd.grad(loss, [table, *model.parameters()]) for loss in losses)
        torch.testing.assert_close(of_rows, of_whole, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("n_items", [1, 2, 3])
    def test_catalogues_smaller_than_the_sample(self, n_items: int) -> None:
        model, table = self.model(), self.table(n_items)
        loss = self.loss(model, table, whole_batch(histories_of(2, 4, n_items=n_items), training=True), 4)
        loss.backward()
        assert loss.isfinite()
        assert table.grad is not None
        assert table.grad.isfinite().all()

    @pytest.mark.parametrize("score", SCORES)
    def test_padding_and_company_never_matter(self, score: Score) -> None:
        model, table = self.model(score=score).eval(), self.table()
        sequences = histories_of(3, 0, 1, 8, 0, 20)
        together = whole_batch(sequences, training=False)
        scores = model.scores(table, together)
        assert scores.shape == (6, ITEMS)
        assert scores.dtype == torch.float32
        # An empty history is read as item 0, so its first place stays.
        padding = ~together.is_item_BL & (torch.arange(together.items_BL.shape[1]) > 0)
        filled = HistoryBatch(together.users_B, together.items_BL.masked_fill(padding, 7), together.lengths_B)
        torch.testing.assert_close(model.scores(table, filled), scores)
        for row, user in enumerate(together.users_B.tolist()):
            alone = whole_batch(from_lists([sequences.of_user(user)], ITEMS), training=False)
            torch.testing.assert_close(model.scores(table, alone)[0], scores[row], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("score", SCORES)
    def test_many_batches_are_scored_as_one(self, score: Score) -> None:
        model, table = self.model(score=score).eval(), self.table()
        scorer = model.scorer(table)
        for lengths in ((3, 0, 1), (8, 20)):
            batch = whole_batch(histories_of(*lengths), training=False)
            torch.testing.assert_close(scorer(batch), model.scores(table, batch))

    @pytest.mark.parametrize("score", SCORES)
    def test_products_are_the_scores_after_every_position(self, score: Score) -> None:
        model, table = self.model(score=score).eval(), self.table()
        products = model.products(table)
        assert (products is not None) is ("products" in self.offers)
        if products is None:
            return
        sequences = histories_of(2, 6, 9)
        batch = whole_batch(sequences, training=False)
        rows_P, columns_P = batch.is_item_BL.nonzero(as_tuple=True)
        found_PN = products.queries(batch, rows_P, columns_P) @ products.keys_ND.t()
        for row, column, found_N in zip(rows_P.tolist(), columns_P.tolist(), found_PN, strict=True):
            items = sequences.of_user(int(batch.users_B[row]))[: column + 1]
            alone = whole_batch(from_lists([items], ITEMS), training=False)
            torch.testing.assert_close(found_N, model.scores(table, alone)[0], rtol=1e-4, atol=1e-4)
        assert found_PN.dtype == torch.float32 and found_PN.max() <= products.bound * 1.0001

    @pytest.mark.parametrize("table_dim", [DIM, 2 * DIM])
    @pytest.mark.parametrize("other", [{}, {"heads": 1}, {"layers": 2}, {"max_length": 49}, {"dim": 4}])
    def test_an_encoder_that_it_is_copied_into_ranks_as_it_does(self, table_dim: int, other: dict[str, int]) -> None:
        shape = {"dim": DIM, "layers": 1, "heads": 2, "max_length": 50, **other}
        encoder = CausalTransformer(**shape, dropout=0.0).eval()
        inputs, *outputs = nn.Linear(table_dim, shape["dim"]), *(nn.Linear(shape["dim"], table_dim) for _ in range(2))
        parts = nn.ModuleList([encoder, inputs, *outputs])
        before = {name: tensor.clone() for name, tensor in parts.state_dict().items()}
        model, table = self.model(table_dim=table_dim).eval(), self.table(dim=table_dim).detach()
        copied = model.copy_into(encoder, inputs, outputs)
        assert copied is ("copy_into" in self.offers and not other)
        if not copied:
            assert all(torch.equal(tensor, before[name]) for name, tensor in parts.state_dict().items())
            return
        batch = whole_batch(histories_of(2, 6, 9), training=False)
        vectors_ND = F.normalize(table, dim=-1)
        states_BD = batch.last(encoder(inputs(F.embedding(batch.items_BL, vectors_ND) * math.sqrt(table_dim))))
        for output in outputs:
            scores_BN = F.normalize(output(states_BD), dim=-1) @ vectors_ND.t() / model.softmax.config.temperature
            torch.testing.assert_close(scores_BN, model.scores(table, batch), rtol=1e-4, atol=1e-4)

    def test_only_what_compares_directions_is_copied(self) -> None:
        encoder = CausalTransformer(DIM, 1, 2, 50, 0.0)
        assert not self.model(score="dot").copy_into(encoder, nn.Linear(DIM, DIM), [nn.Linear(DIM, DIM)])

    def test_a_longer_history_than_the_model_reads_counts_by_its_end(self) -> None:
        model, table = self.model(max_history=4).eval(), self.table()
        sequences = histories_of(9)
        (cut,) = inference_batches(sequences, 4, 100, 10, CPU)
        end = whole_batch(from_lists([sequences.of_user(0)[-4:]], ITEMS), training=False)
        torch.testing.assert_close(model.scores(table, cut), model.scores(table, end))

    def test_a_batch_of_one_history_of_one_item(self) -> None:
        model, table = self.model(), self.table()
        assert model.training_loss(table, whole_batch(histories_of(2), training=True)).isfinite()
        assert model.scores(table, whole_batch(histories_of(1), training=False)).shape == (1, ITEMS)

    def test_dropout_acts_in_training_alone(self) -> None:
        model, table = self.model(dropout=0.5), self.table()
        batch = whole_batch(histories_of(6, 6), training=True)
        losses = {model.training_loss(table, batch).item() for _ in range(3)}
        assert len(losses) == 3
        for quiet in (model.eval(), self.model(dropout=0.0).train()):
            assert len({quiet.training_loss(table, batch).item() for _ in range(3)}) == 1

    @pytest.mark.parametrize("whole", [True, False])
    def test_bfloat16_stays_near(self, whole: bool) -> None:
        batch, losses = whole_batch(histories_of(5, 9), training=True), []
        for low in (False, True):
            model = self.model(low).eval()
            torch.manual_seed(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                losses.append(self.loss(model, self.table(), batch, None if whole else 3))
        torch.testing.assert_close(losses[1].float(), losses[0], rtol=0.03, atol=0.03)

    def test_wider_tables_are_read_too(self) -> None:
        model, table = self.model(table_dim=2 * DIM), self.table(dim=2 * DIM)
        loss = model.training_loss(table, whole_batch(histories_of(4, 5), training=True))
        loss.backward()
        assert table.grad is not None
        assert table.grad.any()
        assert model.scores(table, whole_batch(histories_of(3), training=False)).shape == (1, ITEMS)

    def test_ranking_keeps_nothing_for_a_gradient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, table, kept = self.model().eval(), self.table(), []
        scorer = model.scorer

        def watched(table_ND: Tensor) -> Any:
            scores = scorer(table_ND)

            def watch(batch: HistoryBatch) -> Tensor:
                kept.append(scores(batch).requires_grad)
                return scores(batch)

            return watch

        monkeypatch.setattr(model, "scorer", watched)
        assert table.requires_grad and torch.is_grad_enabled()
        target_ranks(model, table, histories_of(4, 5), np.zeros(2, np.int32), 50)
        assert kept and not any(kept)

    @pytest.mark.parametrize("score", SCORES)
    @pytest.mark.parametrize("whole", [True, False])
    def test_learns_a_planted_walk(self, checkerboard: Sequences, score: Score, whole: bool) -> None:
        config = self.config(
            score=score,
            full_softmax_items=100 if whole else 0,
            negatives=48,
            # Short enough that training meets every position that the test histories end at.
            max_history=6,
            **self.learning[score],
        )
        found = train_collaborative(config, checkerboard, 0, Runtime(CPU))
        model = build_model(config, config, config.dim, False)
        model.load_state_dict(dict(found.tensors))
        with torch.no_grad():
            ranks = target_ranks(
                model.eval(),
                torch.from_numpy(found.embeddings),
                checkerboard.histories(Split.TEST),
                checkerboard.targets(Split.TEST),
                config.max_history,
            )
        assert (ranks == 1).mean() > 0.9

    def test_the_same_seed_gives_the_same_files_and_a_crash_changes_nothing(
        self, checkerboard: Sequences, tmp_path: Path
    ) -> None:
        config = self.config()

        def crash(progress: Progress) -> None:
            if progress.step == 2:
                raise InterruptedError

        train_collaborative(config, checkerboard, 3, Runtime(CPU)).save(tmp_path / "whole")
        with pytest.raises(InterruptedError):
            train_collaborative(config, checkerboard, 3, Runtime(CPU, crash, tmp_path / "state"))
        train_collaborative(config, checkerboard, 3, Runtime(CPU, checkpoints=tmp_path / "state")).save(
            tmp_path / "again"
        )
        names = sorted(path.name for path in (tmp_path / "whole").iterdir())
        assert names == ["config.json", "embeddings.parquet", "model.safetensors", "training.json"]
        for name in names:
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        other = train_collaborative(config, checkerboard, 4, Runtime(CPU))
        loaded = CollaborativeModel.load(tmp_path / "whole")
        assert not np.array_equal(other.embeddings, loaded.embeddings)

    def test_what_is_held_back_is_not_looked_at(self, checkerboard: Sequences) -> None:
        """Other test items give the same model; other validation items the same training loss."""
        config = self.config()
        results = []
        for test, validation in ((0, 0), (1, 0), (0, 1)):
            items = checkerboard.items.copy()
            items[checkerboard.offsets[1:] - 1] = (items[checkerboard.offsets[1:] - 1] + test) % 24
            items[checkerboard.offsets[1:] - 2] = (items[checkerboard.offsets[1:] - 2] + validation) % 24
            changed = Sequences(items, checkerboard.offsets, 24)
            results.append(train_collaborative(config, changed, 0, Runtime(CPU)))
        assert np.array_equal(results[0].embeddings, results[1].embeddings)
        assert results[0].training == results[1].training
        losses = [[record["loss"] for record in result.training] for result in results]
        assert losses[0] == losses[2]

    def test_users_with_one_training_item_are_no_obstacle(self) -> None:
        sequences = histories_of(3, 3, 6, 4)
        found = train_collaborative(self.config(), sequences, 0, Runtime(CPU))
        assert found.embeddings.shape == (ITEMS, DIM)
        assert np.isfinite(found.embeddings).all()

    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        found = train_collaborative(self.config(), histories_of(5, 6, 7), 0, Runtime(CPU))
        found.save(tmp_path)
        again = CollaborativeModel.load(tmp_path)
        assert found.embeddings.dtype == np.float32
        assert np.array_equal(found.embeddings, again.embeddings)
        assert found.training == again.training
        assert found.tensors.keys() == again.tensors.keys()
        assert all(torch.equal(found.tensors[name], again.tensors[name]) for name in found.tensors)


class TestSASRec(SequentialContract):
    name = "sasrec"
    offers: ClassVar[set[str]] = {"products", "copy_into"}
    learning: ClassVar[dict[str, Any]] = {
        "cosine": {"dim": 16, "epochs": 15, "learning_rate": 0.02, "temperature": 0.1, "dropout": 0.0, "patience": 15},
        "dot": {"dim": 16, "epochs": 15, "learning_rate": 0.02, "dropout": 0.0, "patience": 15},
    }

    @pytest.mark.parametrize("score", SCORES)
    def test_binary_cross_entropy_is_that_of_the_target_and_one_item_that_the_user_lacks(self, score: Score) -> None:
        model, table = self.model(score=score, loss="binary_cross_entropy").eval(), self.table()
        items = np.array([1, 4, 2, 9], np.int32)
        batch = whole_batch(from_lists([items], ITEMS), training=True)
        torch.manual_seed(3)
        drawn = torch.randint(ITEMS, (3,)).tolist()
        assert set(drawn) & set(items.tolist()) and set(drawn) - set(items.tolist()), "one of each kind"
        expected = []
        for end, negative in enumerate(drawn, start=1):
            prefix = whole_batch(from_lists([items[:end]], ITEMS), training=False)
            logits = model.scores(table, prefix)[0]
            loss = -F.logsigmoid(logits[int(items[end])])
            expected.append(loss if negative in items else loss - F.logsigmoid(-logits[negative]))
        torch.manual_seed(3)
        torch.testing.assert_close(model.training_loss(table, batch), torch.stack(expected).mean())

    def test_learns_a_planted_walk_from_sampled_negatives(self, checkerboard: Sequences) -> None:
        config = self.config(
            loss="binary_cross_entropy", score="dot", dim=16, epochs=40, learning_rate=0.02, dropout=0.0, patience=40,
            max_history=6,
        )  # fmt: skip
        found = train_collaborative(config, checkerboard, 0, Runtime(CPU))
        assert found.training[-1]["validation_recall_at_10"] == 1.0
        assert max(record["validation_ndcg_at_10"] for record in found.training) > 0.9

    def test_a_wide_table_passes_a_layer_in_and_out(self) -> None:
        model = self.model(table_dim=2 * DIM)
        assert isinstance(model, SASRec)
        states = model.states(self.table(dim=2 * DIM), whole_batch(histories_of(4), training=False))
        assert states.shape == (1, 4, 2 * DIM)

    def test_under_the_cosine_only_directions_count(self) -> None:
        model, batch = self.model(score="cosine").eval(), whole_batch(histories_of(4, 7), training=False)
        table = self.table()
        lengths = torch.linspace(0.1, 9, ITEMS)[:, None]
        torch.testing.assert_close(model.scores(table, batch), model.scores(table * lengths, batch))
        assert (model.scores(table, batch).abs() <= 1 / 0.5 + 1e-5).all()


class TestDIN(SequentialContract):
    name = "din"
    offers: ClassVar[set[str]] = set()
    learning: ClassVar[dict[str, Any]] = {
        "cosine": {
            "dim": 16,
            "attention_units": 16,
            "epochs": 25,
            "learning_rate": 0.02,
            "temperature": 0.2,
            "dropout": 0.0,
            "patience": 25,
        },
        "dot": {
            "dim": 16,
            "attention_units": 16,
            "epochs": 25,
            "learning_rate": 0.02,
            "dropout": 0.0,
            "patience": 25,
        },
    }

    @pytest.mark.parametrize("score", SCORES)
    def test_scores_are_those_of_the_double_loop(self, score: Score) -> None:
        """`Σ_h a(h, t) ⟨h, t⟩`, one candidate and one item of history at a time."""
        model, table = self.model(score=score).eval(), self.table().detach()
        assert isinstance(model, DIN)
        sequences = histories_of(4, 1, 7)
        batch = whole_batch(sequences, training=False)
        vectors = F.normalize(table, dim=-1) if score == "cosine" else table
        expected = torch.zeros(3, ITEMS)
        for row, user in enumerate(batch.users_B.tolist()):
            for candidate in range(ITEMS):
                for item in sequences.of_user(user).tolist():
                    h, t = vectors[item], vectors[candidate]
                    hidden = model.from_history(h) + model.from_candidate(t) + model.from_product @ (h * t)
                    active = torch.where(hidden > 0, hidden, model.slope * hidden)
                    expected[row, candidate] += (model.weigh(active) * (h @ t)).item()
        scale = 1 / model.config.temperature if score == "cosine" else 1.0
        torch.testing.assert_close(model.scores(table, batch), expected * scale, rtol=1e-4, atol=1e-5)

    def test_chunks_of_the_catalogue_leave_no_seam(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, table, batch = self.model().eval(), self.table(), whole_batch(histories_of(4, 6), training=False)
        whole = model.scores(table, batch)
        monkeypatch.setattr("prorec_core.sequential.din._BLOCK", {"cpu": (2, 3)})
        torch.testing.assert_close(model.scores(table, batch), whole)

    @pytest.mark.parametrize("kept", [0, 1, 7, ITEMS])
    def test_items_whose_pairs_are_not_kept_are_scored_alike(self, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
        model, table = self.model().eval(), self.table()
        batches = [whole_batch(histories_of(*lengths), training=False) for lengths in ((4, 1), (6, 9), (3, 6, 5))]
        expected = [model.scores(table, batch) for batch in batches]
        monkeypatch.setattr("prorec_core.sequential.din._PAIRS_KEPT", kept * ITEMS)
        scorer = model.scorer(table)
        for _ in range(2):
            torch.testing.assert_close([scorer(batch) for batch in batches], expected)

    def test_pairs_that_are_kept_are_made_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of users one by one as of users all at once, in a catalogue that is kept whole and in a larger one."""
        made: list[int] = []
        write = DIN._write_pairs

        def counted(self: DIN, pairs_UC: Tensor, history_UD: Tensor, candidates_CD: Tensor) -> Tensor:
            made.append(len(history_UD))
            return write(self, pairs_UC, history_UD, candidates_CD)

        monkeypatch.setattr(DIN, "_write_pairs", counted)
        model, table, sequences = self.model().eval(), self.table(), from_lists([[0, 1], [1, 2, 2], [0, 2]], ITEMS)
        for kept, rows in ((ITEMS, 3), (2, 2 + 1 + 1)):
            monkeypatch.setattr("prorec_core.sequential.din._PAIRS_KEPT", kept * ITEMS)
            made.clear()
            scorer = model.scorer(table)
            for user in range(3):
                scorer(whole_batch(sequences.select(np.array([user])), training=False))
            assert sum(made) == rows

    def test_threads_that_share_a_scorer_find_what_one_alone_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """None reads pairs that another has named and not written yet, nor writes where another does."""
        model, table, sequences = (
            self.model().eval(),
            self.table(),
            from_lists([[item] for item in range(ITEMS)], ITEMS),
        )
        batches = [whole_batch(sequences.select(np.array([user])), training=False) for user in range(ITEMS)]
        expected = [model.scores(table, batch) for batch in batches]
        write = DIN._write_pairs

        def slow(self: DIN, pairs_UC: Tensor, history_UD: Tensor, candidates_CD: Tensor) -> Tensor:
            time.sleep(0.001)
            return write(self, pairs_UC, history_UD, candidates_CD)

        monkeypatch.setattr(DIN, "_write_pairs", slow)
        scorer = model.scorer(table)
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(scorer, batches * 6))
        torch.testing.assert_close(found, expected * 6)

    def test_an_item_twice_in_a_history_counts_twice(self) -> None:
        model, table = self.model().eval(), self.table()
        once, twice = (
            model.scores(table, whole_batch(from_lists([np.array(items, np.int32)], ITEMS), training=False))
            for items in ([3], [3, 3])
        )
        torch.testing.assert_close(twice, 2 * once)


def test_inference_batches_hold_long_histories_too() -> None:
    sequences = histories_of(*[40] * 3)
    batches = inference_batches(sequences, 50, INFERENCE_TOKENS, 2, CPU)
    assert [len(batch.users_B) for batch in batches] == [2, 1]


def test_every_model_is_held_to_the_contract() -> None:
    assert sorted(kind.name for kind in SequentialContract.__subclasses__()) == sorted(SEQUENTIAL_MODELS)
