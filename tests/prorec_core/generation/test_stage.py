from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from prorec_core.alignment.stage import align
from prorec_core.alignment.trained import AlignedModel
from prorec_core.config import GeneratorConfig
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.sequences import Sequences, Split, from_lists
from prorec_core.errors import UserError
from prorec_core.evaluation.lists import Models, lists_after
from prorec_core.generation.candidates import DENSE_CANDIDATES, Candidates, dense_logits, find_candidates, last_context
from prorec_core.generation.choice import best_trial, choose, choose_weight, fusion_trials, recommended_of
from prorec_core.generation.features import EARLIER, FEATURES, OWN
from prorec_core.generation.ranker import FOLDS, Ranker
from prorec_core.generation.ranker_file import GivenRanker
from prorec_core.generation.similar import BESIDE_CANDIDATES
from prorec_core.generation.stage import GeneratorInputs, train_generator
from prorec_core.generation.trained import RANKER, TrainedGenerator, restore_generator
from prorec_core.metrics.measures import ndcg_at_k
from prorec_core.metrics.top import rank_of_target
from prorec_core.progress import Progress
from prorec_core.registry import SEQUENTIAL_MODELS
from prorec_core.sequential.stage import train_collaborative
from prorec_core.training.batching import inference_batches
from prorec_core.training.runtime import Runtime
from tests.toys import looked_at

CPU = Runtime(torch.device("cpu"))
STILL = 1e-12
"""A learning rate at which nothing moves."""

VARIANTS: dict[str, dict[str, Any]] = {
    "timeline": {},
    "timeline, soft targets": {"distill": {"soft_targets": 0.7}},
    "timeline, codes alone": {"history": "codes", "node_scores": False, "warm_start": False},
    "timeline, no mask": {"trie_mask": False, "node_scores": False},
    "timeline, bfloat16": {"precision": "auto"},
    "timeline, no head": {"distill": {"beta": 0}},
    "timeline, its own head": {"dense": "head"},
    "timeline, nothing dense": {"dense": "head", "distill": {"beta": 0}},
    "timeline, what Stage I says": {"stage_one_state": True, "node_scores": False, "warm_start": False},
    "timeline, summary of both": {"distill": {"at": "summary", "teacher": "both"}},
    "encoder-decoder": {"architecture": "encoder_decoder"},
    "encoder-decoder, what Stage I says": {"architecture": "encoder_decoder", "stage_one_state": True},
    "encoder-decoder, the paper's": {
        "architecture": "encoder_decoder",
        "history": "codes",
        "node_scores": False,
        "trie_mask": False,
        "heads_from_codebooks": False,
        "distill": {"at": "summary", "teacher": "both"},
    },
}
every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def _restored(trained: TrainedGenerator, inputs: GeneratorInputs) -> Any:
    return restore_generator(trained, inputs.codes, inputs.embeddings, CPU.device)


def _lists(generator: Any, sequences: Sequences) -> Candidates:
    return find_candidates(generator, sequences.histories(Split.TEST), 10, 10)


def _files(trained: TrainedGenerator, folder: Path) -> dict[str, bytes]:
    trained.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "variant",
    [
        {"epochs": 8},
        {"epochs": 12, "warm_start": False, "distill": {"soft_targets": 0.5}},
        {"epochs": 35, "history": "codes", "node_scores": False, "trie_mask": False, "warm_start": False},
        {"epochs": 20, "architecture": "encoder_decoder"},
    ],
)
def test_learns_a_planted_walk(make_inputs: Any, checkerboard: Sequences, variant: dict[str, Any]) -> None:
    inputs = make_inputs(config={"dropout": 0.0, **variant})
    trained = train_generator(inputs, 0, CPU)
    found = _lists(_restored(trained, inputs), checkerboard)
    targets = checkerboard.targets(Split.TEST)
    assert (found.generative(1)[0][:, 0] == targets).mean() > 0.9
    assert (found.fused(trained.fusion_weight or 0.0, 1)[0][:, 0] == targets).mean() > 0.9


@every_variant
def test_a_restored_generator_recommends_the_same(
    make_inputs: Any, checkerboard: Sequences, variant: dict[str, Any], tmp_path: Path
) -> None:
    inputs = make_inputs(config={"epochs": 1, **variant})
    trained = train_generator(inputs, 0, CPU)
    trained.save(tmp_path)
    again = TrainedGenerator.load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "training.json"]
    assert again.training == trained.training
    assert again.fusion_weight == trained.fusion_weight
    nothing_dense = variant.get("dense") == "head" and variant.get("distill", {}).get("beta") == 0
    assert (again.fusion_weight is None) == nothing_dense
    first, second = (_lists(_restored(each, inputs), checkerboard) for each in (trained, again))
    assert np.array_equal(first.items_UC, second.items_UC)
    assert np.array_equal(first.generative_UC, second.generative_UC)
    assert np.array_equal(first.dense_UC, second.dense_UC)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, []),
        ({"config": {"layers": 2}}, ["warm_start"]),
        ({"config": {"architecture": "encoder_decoder"}}, ["warm_start"]),
        ({"config": {"warm_start": False, "dim": 8}}, ["heads_from_codebooks"]),
        ({"config": {"warm_start": False, "max_history": 5}}, ["dense=stage_one"]),
        ({"config": {"warm_start": False, "dense": "head", "stage_one_state": True}}, ["stage_one_state"]),
        (
            {"config": {"distill": {"beta": None, "at": "summary", "share": 1.0}}},
            ["distill.at=summary", "distill.share=1.0"],
        ),
        ({"config": {"distill": {"beta": None, "at": "summary"}, "dense": "head"}}, []),
        ({"config": {"distill": {"beta": 0.0, "at": "summary"}}}, []),
        (
            {"integrated": False, "config": {"distill": {"teacher": "both", "soft_targets": 0.5}}},
            ["warm_start", "distill.teacher=both", "distill.soft_targets"],
        ),
    ],
)
def test_options_without_ground_are_told(make_inputs: Any, changes: dict[str, Any], options: list[str]) -> None:
    trained = train_generator(make_inputs(**{"config": {"epochs": 1}, **changes}), 0, CPU)
    told = [text.partition(" ")[0].removeprefix("generator.") for text in trained.config["not_applied"]]
    assert told == options


@pytest.mark.parametrize(
    ("changes", "beta"),
    [({}, 0.0), ({"dense": "head"}, 0.3), ({"max_history": 5}, 0.3), ({"distill": {"beta": 0.7}}, 0.7)],
)
def test_it_distils_for_the_dense_score_s_sake_alone(make_inputs: Any, changes: dict[str, Any], beta: float) -> None:
    inputs = make_inputs(config={"epochs": 1, "warm_start": False, "distill": {"beta": None}, **changes})
    trained = train_generator(inputs, 0, CPU)
    assert trained.config["generator"]["distill"]["beta"] == beta
    assert trained.fusion_weight is not None
    assert ("loss_distill" in trained.training[0]) == (beta > 0)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_dense_score_is_that_of_stage_one(make_inputs: Any, stage_one: AlignedModel, beta: float) -> None:
    inputs = make_inputs(config={"epochs": 1, "warm_start": False, "distill": {"beta": beta}})
    trained = train_generator(inputs, 0, CPU)
    generator = _restored(trained, inputs)
    model, table = stage_one.sequential_model(CPU.device)
    histories = inputs.sequences.histories(Split.TEST)
    found = find_candidates(generator, histories, 10, 10)
    (batch,) = inference_batches(histories, inputs.config.max_history, 10_000, 1000, CPU.device)
    with torch.no_grad():
        expected_UN = torch.empty(histories.n_users, inputs.sequences.n_items)
        expected_UN[batch.users_B] = model.scores(table, batch).log_softmax(-1)
    items_UC = torch.from_numpy(found.items_UC.astype(np.int64))
    real_UC = items_UC >= 0
    expected_UC = expected_UN.gather(1, items_UC.clamp(min=0))
    torch.testing.assert_close(torch.from_numpy(found.dense_UC)[real_UC], expected_UC[real_UC], rtol=1e-4, atol=1e-4)
    # Training moved the generator alone.
    for name, tensor in stage_one.tensors.items():
        assert torch.equal(trained.tensors[f"stage_one.{name}"], tensor)


def test_choices_are_made_as_evaluation_measures(make_inputs: Any, checkerboard: Sequences) -> None:
    """Where the history is not masked, validation and the choice of λ do not mask it either."""
    items = checkerboard.items.copy()
    last = checkerboard.offsets[1:] - 1
    items[last - 1] = items[last - 2]  # the validation item is one that the user has already
    again = Sequences(items, checkerboard.offsets, checkerboard.n_items)
    for masked in (True, False):
        trained = train_generator(make_inputs(sequences=again, mask_history=masked), 0, CPU)
        found = [record["validation_recall_at_10"] for record in trained.training]
        chosen = [value for _, value in trained.config["fusion_trials"]]
        assert (max(found) > 0) != masked
        assert (max(chosen) > 0) != masked


@every_variant
def test_two_trainings_leave_the_same_bytes_also_after_a_crash(
    make_inputs: Any, variant: dict[str, Any], tmp_path: Path
) -> None:
    inputs = make_inputs(config={"epochs": 3, **variant})

    def crash(progress: Progress) -> None:
        if progress.unit == "epoch" and progress.step == 2:
            raise InterruptedError

    torch.manual_seed(1)
    whole = _files(train_generator(inputs, 5, CPU), tmp_path / "whole")
    torch.manual_seed(2)
    with pytest.raises(InterruptedError):
        train_generator(inputs, 5, Runtime(CPU.device, crash, tmp_path / "state"))
    resumed = train_generator(inputs, 5, Runtime(CPU.device, checkpoints=tmp_path / "state"))
    assert _files(resumed, tmp_path / "again") == whole


def test_a_crash_after_the_last_epoch_changes_nothing_either(make_inputs: Any, tmp_path: Path) -> None:
    inputs = make_inputs()

    def crash(progress: Progress) -> None:
        if progress.unit == "user":
            raise InterruptedError

    whole = _files(train_generator(inputs, 5, CPU), tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train_generator(inputs, 5, Runtime(CPU.device, crash, tmp_path / "state"))
    resumed = train_generator(inputs, 5, Runtime(CPU.device, checkpoints=tmp_path / "state"))
    assert _files(resumed, tmp_path / "again") == whole


def test_another_seed_gives_another_generator(make_inputs: Any) -> None:
    inputs = make_inputs(config={"epochs": 1})
    first, second = (train_generator(inputs, seed, CPU).tensors for seed in (0, 1))
    assert not torch.equal(first["decoder.levels"], second["decoder.levels"])


def test_test_items_are_not_looked_at(make_inputs: Any, checkerboard: Sequences, tmp_path: Path) -> None:
    items = checkerboard.items.copy()
    items[checkerboard.offsets[1:] - 1] = 3
    changed = Sequences(items, checkerboard.offsets, checkerboard.n_items)
    first = _files(train_generator(make_inputs(), 0, CPU), tmp_path / "1")
    assert _files(train_generator(make_inputs(sequences=changed), 0, CPU), tmp_path / "2") == first


def _correlation(generator: Any, stage_one: AlignedModel, inputs: GeneratorInputs) -> tuple[float, float]:
    """How the dense head agrees with Stage I before training: correlation of all scores, share of equal best items."""
    model, table = stage_one.sequential_model(CPU.device)
    (batch,) = inference_batches(inputs.sequences.histories(Split.TEST), 6, 10_000, 1000, CPU.device)
    with torch.no_grad():
        ours = dense_logits(generator, last_context(generator, batch))
        theirs = model.scores(table, batch)
    together = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]
    return float(together), float((ours.argmax(1) == theirs.argmax(1)).float().mean())


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_a_warm_start_ranks_as_stage_one_does(
    make_inputs: Any, checkerboard: Sequences, stage_one: AlignedModel, fusion: str
) -> None:
    base = make_inputs()
    if fusion == "concat":
        texts = np.random.default_rng(0).normal(size=(24, 10)).astype(np.float32)
        start = train_collaborative(base.aligned.collaborative_config, checkerboard, 0, CPU)
        config = base.aligned.config.model_copy(update={"fusion": "concat"})
        stage_one = align(config, checkerboard, start, texts, 0, CPU)
        base = make_inputs(embeddings=stage_one.integrated, aligned=stage_one)
    still = base.config.model_copy(update={"learning_rate": STILL, "epochs": 1})
    warm = _restored(train_generator(replace(base, config=still), 0, CPU), base)
    near, best = _correlation(warm, stage_one, base)
    # The codes' own vectors, small and new, are all that differs.
    assert near > 0.99
    assert best > 0.9
    with torch.no_grad():
        for table in warm.code_vectors:
            table.zero_()
    near, best = _correlation(warm, stage_one, base)
    assert near > 1 - 1e-5
    assert best == 1
    cold = still.model_copy(update={"warm_start": False})
    near, _ = _correlation(_restored(train_generator(replace(base, config=cold), 0, CPU), base), stage_one, base)
    assert abs(near) < 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"layers": 2}},
        {"config": {"dim": 8}},
        {"config": {"history": "codes"}},
        {"config": {"max_history": 5}},
        {"config": {"architecture": "encoder_decoder"}},
        {"integrated": False},
    ],
)
def test_where_stage_one_does_not_fit_training_starts_anew(make_inputs: Any, change: dict[str, Any]) -> None:
    options = {"epochs": 1, **change.get("config", {})}
    inputs = make_inputs(**{**change, "config": options})
    trained = train_generator(inputs, 0, CPU)
    plain = replace(inputs, config=inputs.config.model_copy(update={"warm_start": False}))
    other = train_generator(plain, 0, CPU)
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in trained.tensors.items())


@pytest.mark.parametrize("width", [10, 16, 40])
def test_codes_of_another_embedding(make_inputs: Any, checkerboard: Sequences, width: int, tmp_path: Path) -> None:
    """Semantic-only or concatenated embeddings have a width of their own and no Stage-I model that reads them."""
    embeddings = np.random.default_rng(1).normal(size=(24, width)).astype(np.float32)
    options = {"epochs": 1, "distill": {"teacher": "both", "soft_targets": 0.5}}
    inputs = make_inputs(embeddings=embeddings, integrated=False, config=options)
    trained = train_generator(inputs, 0, CPU)
    trained.save(tmp_path)
    found = _lists(_restored(TrainedGenerator.load(tmp_path), inputs), checkerboard)
    assert (found.generative(10)[0] >= 0).all()
    assert trained.config["teachers"] == ["integrated"]


def test_a_din_stage_one_leaves_out_what_needs_a_transformer(make_inputs: Any, checkerboard: Sequences) -> None:
    base = make_inputs()
    shape = base.aligned.collaborative_config.model_copy(update={"model": "din", "epochs": 1})
    texts = np.random.default_rng(0).normal(size=(24, 10)).astype(np.float32)
    start = train_collaborative(shape, checkerboard, 0, CPU)
    config = base.aligned.config.model_copy(update={"epochs": 1})
    aligned = align(config, checkerboard, start, texts, 0, CPU)
    options = {"epochs": 1, "stage_one_state": True, "distill": {"soft_targets": 0.7}}
    inputs = make_inputs(aligned=aligned, embeddings=aligned.integrated, config=options)
    trained = train_generator(inputs, 0, CPU)
    assert len(trained.training) == 1
    told = [text.partition(" ")[0].removeprefix("generator.") for text in trained.config["not_applied"]]
    assert told == ["stage_one_state", "warm_start", "distill.soft_targets"]


def test_codes_are_ranked_by_what_stage_one_says_from_the_first_step_on(
    make_inputs: Any, stage_one: AlignedModel
) -> None:
    """The first code of the item that Stage I finds best, by codes alone that have learnt nothing yet."""
    model, table = stage_one.sequential_model(CPU.device)
    agree = {}
    for told in (True, False):
        options = {"learning_rate": STILL, "epochs": 1, "node_scores": False, "warm_start": False}
        inputs = make_inputs(config={**options, "stage_one_state": told})
        generator = _restored(train_generator(inputs, 0, CPU), inputs)
        (batch,) = inference_batches(inputs.sequences.histories(Split.TEST), 6, 10_000, 1000, CPU.device)
        with torch.no_grad():
            best = generator.trie.codes[model.scores(table, batch).argmax(1), 0]
            context = last_context(generator, batch)
            nothing = torch.zeros(len(best), 1, 0, dtype=torch.int64)
            logits = generator.code_logits(0, generator.next_hidden(context, nothing))[:, 0]
        agree[told] = float((logits.argmax(1) == best).float().mean())
    assert agree[True] > 0.4 > 1.5 * agree[False], agree


def test_any_model_teaches_what_it_offers(
    make_inputs: Any, checkerboard: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is known by its name in the registry alone has products, but no encoder of histories."""
    monkeypatch.setitem(SEQUENTIAL_MODELS.places, "last_item", "tests.toys:LastItem")
    base = make_inputs()
    shape = base.aligned.collaborative_config.model_copy(update={"model": "last_item", "epochs": 1})
    texts = np.random.default_rng(0).normal(size=(24, 10)).astype(np.float32)
    start = train_collaborative(shape, checkerboard, 0, CPU)
    aligned = align(base.aligned.config.model_copy(update={"epochs": 1}), checkerboard, start, texts, 0, CPU)
    taught, untaught = (
        make_inputs(aligned=aligned, embeddings=aligned.integrated, config={"epochs": 1, "distill": distill})
        for distill in ({"soft_targets": 0.7}, {})
    )
    trained, other = train_generator(taught, 0, CPU), train_generator(untaught, 0, CPU)
    assert trained.training[0]["loss_generate"] != other.training[0]["loss_generate"]
    assert [text.partition(" ")[0] for text in trained.config["not_applied"]] == ["generator.warm_start"]
    generator = _restored(trained, taught)
    assert type(generator.stage_one).__name__ == "LastItem" and trained.fusion_weight is not None
    assert (_lists(generator, checkerboard).items_UC >= 0).any()


def test_histories_longer_than_the_teacher_s_are_refused_with_a_cure(make_inputs: Any) -> None:
    inputs = make_inputs(config={"max_history": 30, "distill": {"soft_targets": 0.5}})
    with pytest.raises(UserError, match=r"generator.max_history: histories of 30 .* 6 that .*soft_targets=0"):
        train_generator(inputs, 0, CPU)
    assert train_generator(make_inputs(config={"max_history": 30, "epochs": 1}), 0, CPU).training


def test_items_that_share_their_codes_are_named(make_inputs: Any) -> None:
    inputs = make_inputs()
    codes = inputs.codes.copy()
    codes[5] = codes[2]
    with pytest.raises(UserError, match="items 2 and 5 share the codes"):
        train_generator(replace(inputs, codes=codes), 0, CPU)


def test_validation_asks_a_sample_of_users(make_inputs: Any) -> None:
    few, all_ = (train_generator(make_inputs(config={"validation_users": n}), 0, CPU) for n in (7, 96))
    recalls = [record["validation_recall_at_10"] * 7 for record in few.training]
    assert recalls == pytest.approx([round(recall) for recall in recalls], abs=1e-4)
    assert few.training[0]["loss"] == all_.training[0]["loss"]


def test_of_many_users_some_choose(make_inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, asked = make_inputs(config={"validation_users": 5}), []

    def found(*arguments: Any, **named: Any) -> Candidates:
        asked.append(arguments[1].n_users)
        return find_candidates(*arguments, **named)

    monkeypatch.setattr("prorec_core.generation.stage.find_candidates", found)
    everyone = train_generator(inputs, 0, CPU)
    monkeypatch.setattr("prorec_core.generation.stage.CHOSEN_BY", 40)
    some = train_generator(inputs, 0, CPU)
    assert asked == [5, 5, inputs.sequences.n_users, 5, 5, 40]
    assert some.training == everyone.training
    assert some.config["fusion_trials"] != everyone.config["fusion_trials"]
    again = train_generator(inputs, 0, CPU)
    assert again.config == some.config, "drawn with the seed"


def test_lists_of_many_users_are_made_block_by_block(
    make_inputs: Any, checkerboard: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, told = make_inputs(), []
    trained = train_generator(inputs, 0, CPU)
    models = Models(_restored(trained, inputs), trained.fusion_weight, trained.ranker, inputs.aligned)
    config, histories = EvaluateConfig(list_length=10), checkerboard.histories(Split.VALIDATION)
    whole = lists_after(config, models, histories, held_out=True)
    monkeypatch.setattr("prorec_core.evaluation.lists.USERS_AT_ONCE", 7)
    parts = lists_after(config, models, histories, told.append, held_out=True)
    assert list(parts) == list(whole)
    for scorer, found in whole.items():
        assert np.array_equal(parts[scorer].items_UK, found.items_UK), scorer
        np.testing.assert_allclose(parts[scorer].scores_UK, found.scores_UK, rtol=1e-4, atol=1e-5)
    assert told[-1].step == histories.n_users and {each.total for each in told} == {histories.n_users}


def test_a_ranker_is_fitted_and_measured_over_what_only_it_finds_too(
    make_inputs: Any, checkerboard: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs()
    fitted = looked_at(monkeypatch, "prorec_core.generation.choice")
    trained = train_generator(inputs, 0, CPU)
    assert [each.beside for each in fitted] == [BESIDE_CANDIDATES]
    assert trained.ranker is not None
    ranked, rank = [], Ranker.rank

    def note(self: Ranker, candidates: Candidates, *arguments: Any) -> Any:
        ranked.append(candidates.beside)
        return rank(self, candidates, *arguments)

    monkeypatch.setattr(Ranker, "rank", note)
    models = Models(_restored(trained, inputs), trained.fusion_weight, trained.ranker, inputs.aligned)
    lists_after(EvaluateConfig(list_length=10), models, checkerboard.histories(Split.TEST), held_out=False)
    assert ranked == [BESIDE_CANDIDATES]


@pytest.mark.parametrize("better", ["generative", "dense"])
def test_the_fusion_weight_follows_the_better_scorer(better: str) -> None:
    """One scorer knows every target, the other ranks it last."""
    users, items = 30, 12
    random = np.random.default_rng(0)
    catalogue = np.tile(np.arange(items, dtype=np.int32), (users, 1))
    targets = random.integers(0, items, users).astype(np.int32)
    right = (np.where(catalogue == targets[:, None], -0.1, -3.0) + random.normal(size=(users, items)) / 10).astype(
        np.float32
    )
    wrong = (np.where(catalogue == targets[:, None], -9.0, -3.0) + random.normal(size=(users, items)) / 10).astype(
        np.float32
    )
    pair = (right, wrong) if better == "generative" else (wrong, right)
    weights = [0.0, 0.3, 1.0, 8.0]
    trials = fusion_trials(Candidates(catalogue, *pair, beams=items), targets, weights)
    assert [weight for weight, _ in trials] == weights
    scores = [score for _, score in trials]
    assert scores.index(max(scores)) == (0 if better == "generative" else 3)
    assert max(scores) == 1


def test_with_a_weight_of_nothing_alone_nothing_is_fused(make_inputs: Any) -> None:
    inputs = make_inputs(fusion_weights=[0.0], config={"ranker": False, "epochs": 1})
    trained = train_generator(inputs, 0, CPU)
    assert _restored(trained, inputs).has_dense_score
    assert trained.fusion_weight is None and trained.config["recommended"] == "generative"


def test_a_weight_is_judged_by_users_who_did_not_choose_it() -> None:
    """Both scores are chance, so that whatever weight some users choose is worth nothing more to others."""
    users, items, weights = 400, 200, [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    random = np.random.default_rng(3)
    catalogue = np.tile(np.arange(items, dtype=np.int32), (users, 1))
    scores = random.normal(size=(2, users, items)).astype(np.float32)
    targets = random.integers(0, items, users).astype(np.int32)
    found = Candidates(catalogue, *scores, beams=items)
    histories = from_lists([np.zeros(1, np.int32)] * users, items)
    choice, _ = choose(lambda: found, weights, None, histories, targets)
    trials = dict(choice["fusion_trials"])
    assert choice["fusion_weight"] == max(trials, key=lambda weight: trials[weight])
    by_fold = []
    for fold, weight in enumerate(choice["fusion_folds"]):
        others = np.arange(users) % FOLDS != fold
        tried = dict(fusion_trials(found.select(np.flatnonzero(others)), targets[others], weights))
        assert weight == max(tried, key=lambda each: tried[each])
        by_fold.append(rank_of_target(found.fused(weight, 10)[0], targets)[~others])
    held_out = ndcg_at_k(np.concatenate(by_fold), 10)
    *chosen, reached = choose_weight(found, targets, weights, histories.owners)
    assert chosen == [choice["fusion_weight"], choice["fusion_trials"], choice["fusion_folds"]]
    assert reached == pytest.approx(held_out)
    assert held_out < max(trials.values())
    generative = ndcg_at_k(rank_of_target(found.generative(10)[0], targets), 10)
    assert choice["recommended"] == ("fused" if held_out > generative else "generative")


def test_validation_lists_are_fused_by_the_other_folds_and_served_ones_by_all(
    make_inputs: Any, checkerboard: Sequences
) -> None:
    inputs = make_inputs(config={"epochs": 1, "ranker": False})
    trained = train_generator(inputs, 0, CPU)
    assert len(trained.fusion_folds) == FOLDS
    folds, histories = [0.0, 16.0], checkerboard.histories(Split.VALIDATION)
    models = Models(_restored(trained, inputs), 2.0, None, inputs.aligned, folds)
    config = EvaluateConfig(list_length=10)
    lists = {held_out: lists_after(config, models, histories, held_out=held_out)["fused"] for held_out in (True, False)}
    found = find_candidates(models.generator, histories, config.beams, DENSE_CANDIDATES)
    for user in range(histories.n_users):
        row = found.select(np.array([user]))
        assert lists[True].items_UK[user].tolist() == row.fused(folds[user % 2], 10)[0][0].tolist()
        assert lists[False].items_UK[user].tolist() == row.fused(2.0, 10)[0][0].tolist()
    assert not np.array_equal(lists[True].items_UK, lists[False].items_UK)


def test_the_weight_in_use_is_the_best_tried_and_of_equal_ones_the_first(make_inputs: Any) -> None:
    trained = train_generator(make_inputs(fusion_weights=[0.5, 4.0, 0.25, 0.5]), 0, CPU)
    trials = [tuple(trial) for trial in trained.config["fusion_trials"]]
    assert [weight for weight, _ in trials] == [0.5, 4.0, 0.25, 0.5]
    best = max(score for _, score in trials)
    assert trained.fusion_weight == next(weight for weight, score in trials if score == best)


def test_the_ranker_leaves_the_generator_alone_and_comes_back(make_inputs: Any, tmp_path: Path) -> None:
    with_it, without = (
        train_generator(make_inputs(config={"epochs": 1, "ranker": on}), 0, CPU) for on in (True, False)
    )
    assert without.ranker is None and without.config["ranker"] is None and without.recommended == "fused"
    assert set(without.tensors) == {name for name in with_it.tensors if not name.startswith("ranker.")}
    assert all(torch.equal(tensor, with_it.tensors[name]) for name, tensor in without.tensors.items())
    assert with_it.fusion_weight == without.fusion_weight
    with_it.save(tmp_path)
    first, second = with_it.ranker, TrainedGenerator.load(tmp_path).ranker
    assert first is not None and second is not None
    assert np.array_equal(first.weights_F, second.weights_F) and np.array_equal(first.folds_PF, second.folds_PF)
    assert np.array_equal(first.relations.texts_NT, second.relations.texts_NT)


def test_counts_of_the_ranker_are_of_training_alone(make_inputs: Any, checkerboard: Sequences) -> None:
    ranker = train_generator(make_inputs(config={"epochs": 1}), 0, CPU).ranker
    assert ranker is not None and np.array_equal(ranker.relations.counts_N, checkerboard.train_counts())


@pytest.mark.parametrize(
    ("reached", "recommended"),
    [
        ({"generative": 0.3}, "generative"),
        ({"generative": 0.3, "fused": 0.2, "ranked": 0.25}, "generative"),
        ({"ranked": 0.2, "fused": 0.2, "generative": 0.1}, "fused"),
        ({"generative": 0.1, "fused": 0.2, "ranked": 0.3}, "ranked"),
        ({"generative": 0.1, "ranked": 0.3}, "ranked"),
        ({"generative": 0.0, "ranked": 0.0, "fused": 0.0}, "fused"),
        ({"generative": 0.0, "ranked": 0.0}, "generative"),
        ({"generative": 0.0, "ranked": 0.1, "fused": 0.0}, "ranked"),
    ],
)
def test_the_best_on_validation_recommends_and_of_equal_ones_the_simplest(
    reached: dict[str, float], recommended: str
) -> None:
    assert recommended_of(reached) == recommended


def test_a_weight_that_is_given_alone_is_taken_and_nothing_is_tried(make_inputs: Any, checkerboard: Sequences) -> None:
    """So a generator that trains on the validation items chooses nothing by them."""
    more = checkerboard.with_validation_in_training()
    trained = train_generator(make_inputs(sequences=more, fusion_weights=[2.0], config={"patience": 1}), 0, CPU)
    assert trained.fusion_weight == 2.0 and trained.config["fusion_trials"] == []
    assert trained.ranker is None and trained.recommended == "fused"
    assert any(text.startswith("generator.ranker (") for text in trained.config["not_applied"])
    assert not any("validation" in name for record in trained.training for name in record)
    other = train_generator(make_inputs(fusion_weights=[2.0]), 0, CPU)
    assert trained.training[0]["loss"] != other.training[0]["loss"]


def test_a_ranker_whose_weights_are_given_is_not_fitted(make_inputs: Any, checkerboard: Sequences) -> None:
    given = [1.0, 2.0, 0.5, 0.25, -0.5, 0.125, 0.0]
    more = checkerboard.with_validation_in_training()
    ranker = GivenRanker(features=list(FEATURES), weights=given)
    inputs = make_inputs(sequences=more, fusion_weights=[2.0], config={"epochs": 1, "ranker_file": "x"}, ranker=ranker)
    trained = train_generator(inputs, 0, CPU)
    assert trained.config["generator"]["ranker_file"] is None, "no place of this machine"
    assert trained.ranker is not None and trained.recommended == "ranked" and trained.fusion_weight == 2.0
    assert trained.ranker.weights_F.tolist() == given and trained.ranker.folds_PF.tolist() == [given]
    assert np.array_equal(trained.ranker.relations.counts_N, more.train_counts()), "of all that is trained on"
    told = {"features": list(FEATURES), "weights": given, "folds": [given], "network": False}
    assert trained.config["ranker"] == told
    assert not any(text.startswith("generator.ranker") for text in trained.config["not_applied"])


def test_as_many_weights_can_be_given_as_there_are_features() -> None:
    whole = len(FEATURES) + len(OWN)
    for count, told in ((len(EARLIER) - 1, "5 items"), (whole + 1, "9 items")):
        with pytest.raises(ValidationError, match=told):
            GeneratorConfig.model_validate({"ranker_weights": [1.0] * count})
    for count in (len(EARLIER), len(FEATURES), whole):
        GeneratorConfig.model_validate({"ranker_weights": [1.0] * count})
    words = GeneratorConfig.model_fields["ranker_weights"].description
    assert words is not None and ", ".join(FEATURES) in words, "told in their order"


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (2.0, 0.0)], 1.0),
        ([(0.0, 0.0), (8.0, 0.0), (2.0, 0.0)], 2.0),
        ([(0.0, 0.0)], 0.0),
        ([(0.0, 0.1), (1.0, 0.2), (2.0, 0.2)], 1.0),
        ([(4.0, 0.0)], 4.0),
    ],
)
def test_among_zeros_the_weight_nearest_to_one_is_taken(trials: list[tuple[float, float]], best: float) -> None:
    assert best_trial(trials)[0] == best


def test_validation_chooses_nothing_where_it_finds_nothing(make_inputs: Any, checkerboard: Sequences) -> None:
    """Who walks round a ring of four items again and again has every target in the history."""
    walks = [(np.arange(9, dtype=np.int32) + start) % 4 + 4 * (start % 6) for start in range(24)]
    again = from_lists(walks, checkerboard.n_items)
    assert again.taken_before(Split.VALIDATION).all()
    trained = train_generator(
        make_inputs(sequences=again, config={"epochs": 3, "patience": 1}, fusion_weights=[0, 4, 1]), 0, CPU
    )
    assert len(trained.training) == 3, "no patience over zeros"
    assert not any(record["validation_ndcg_at_10"] for record in trained.training)
    assert trained.config["validation_tells"] is False
    assert trained.ranker is None and not any(name.startswith(RANKER) for name in trained.tensors)
    assert trained.fusion_weight == 1.0 and trained.recommended == "fused"
    free = train_generator(make_inputs(sequences=again, mask_history=False, config={"epochs": 1}), 0, CPU)
    assert free.config["validation_tells"] is True and free.ranker is not None
