from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prorec_core.alignment.adapter import scaled_text
from prorec_core.alignment.model import StageOne
from prorec_core.alignment.new_items import by_similar_text
from prorec_core.alignment.stage import align
from prorec_core.alignment.trained import AlignedModel
from prorec_core.config import AlignConfig, CollaborativeConfig
from prorec_core.data.sequences import IntArray, Sequences, Split, from_lists
from prorec_core.progress import Progress
from prorec_core.sequential.base import target_ranks
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel, Floats, build_model
from prorec_core.training.loop import validation_measures
from prorec_core.training.runtime import Runtime

CPU = Runtime(torch.device("cpu"))
CATEGORIES, PER_CATEGORY = 6, 12
N_ITEMS, TEXT_DIM = CATEGORIES * PER_CATEGORY, 10
STILL = 1e-12
"""A learning rate at which nothing moves."""


def collaborative_config(**changes: Any) -> CollaborativeConfig:
    settings: dict[str, Any] = {
        "dim": 16,
        "layers": 1,
        "epochs": 4,
        "tokens_per_batch": 256,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "max_history": 20,
        "precision": "float32",
        "temperature": 0.1,
        "dropout": 0.1,
    }
    return CollaborativeConfig.model_validate({**settings, **changes})


def align_config(**changes: Any) -> AlignConfig:
    settings: dict[str, Any] = {
        "epochs": 2,
        "tokens_per_batch": 256,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "max_history": 20,
        "precision": "float32",
        "dropout": 0.1,
    }
    return AlignConfig.model_validate({**settings, **changes})


@pytest.fixture(scope="module")
def shop() -> Sequences:
    """400 users who go from category to category, in a circle, and take an item of each by its popularity.

    Item i is of category `i % CATEGORIES`; the later half of the items is rarely taken.
    """
    random = np.random.default_rng(0)
    popularity = np.repeat([1.0, 0.08], N_ITEMS // 2)
    lists: list[IntArray] = []
    for _ in range(400):
        start, items = random.integers(CATEGORIES), []
        for step in range(random.integers(6, 10)):
            weight = popularity * (np.arange(N_ITEMS) % CATEGORIES == (start + step) % CATEGORIES)
            weight[items] = 0
            items.append(random.choice(N_ITEMS, p=weight / weight.sum()))
        lists.append(np.array(items, np.int32))
    return from_lists(lists, N_ITEMS)


@pytest.fixture(scope="module")
def texts() -> Floats:
    """Embeddings that tell the category, with noise."""
    random = np.random.default_rng(1)
    meaning = random.normal(size=(CATEGORIES, TEXT_DIM))
    noise = random.normal(size=(N_ITEMS, TEXT_DIM)) * 0.3
    return (meaning[np.arange(N_ITEMS) % CATEGORIES] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def start(shop: Sequences) -> CollaborativeModel:
    return train_collaborative(collaborative_config(), shop, 0, CPU)


@pytest.fixture(scope="module")
def aligned(shop: Sequences, texts: Floats, start: CollaborativeModel) -> AlignedModel:
    return align(align_config(), shop, start, texts, 0, CPU)


@pytest.mark.parametrize("seed", [0, 1])
def test_text_helps_with_rare_items(shop: Sequences, texts: Floats, seed: int) -> None:
    """What follows is told by the category, which the text gives away and few interactions cannot."""
    shape, config = collaborative_config(epochs=6), align_config(epochs=6)
    ids = train_collaborative(shape, shop, seed, CPU)
    both = align(config, shop, ids, texts, seed, CPU)
    histories, targets = shop.histories(Split.TEST), shop.targets(Split.TEST)
    rare = targets >= N_ITEMS // 2
    assert rare.sum() > 20
    alone = build_model(shape, shape, shape.dim, False)
    alone.load_state_dict(dict(ids.tensors))
    with torch.no_grad():
        before = target_ranks(alone.eval(), torch.from_numpy(ids.embeddings), histories, targets, 20)[rare]
        after = target_ranks(*both.sequential_model(CPU.device), histories, targets, 20)[rare]
    # A category has 12 items of 72: knowing it alone puts the target among the first 12.
    assert after.mean() <= PER_CATEGORY
    assert after.mean() < 0.7 * before.mean()


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("model", ["sasrec", "din"])
def test_the_integrated_embedding_is_the_fusion_of_both(
    shop: Sequences, texts: Floats, fusion: str, model: str
) -> None:
    shape, config = collaborative_config(model=model, epochs=1), align_config(fusion=fusion, epochs=1)
    start = train_collaborative(shape, shop, 0, CPU)
    found = align(config, shop, start, texts, 0, CPU)
    joined = np.concatenate([found.collaborative, found.semantic], axis=1)
    assert np.array_equal(found.integrated, joined if fusion == "concat" else found.collaborative + found.semantic)
    for array in (found.integrated, found.collaborative, found.semantic):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert np.isfinite(array).all()
    assert np.std(found.semantic, axis=1) == pytest.approx(1, abs=0.3)
    assert {"integrated", "naive_concatenation"} <= set(found.domination)


def test_the_loss_is_the_sum_of_both(aligned: AlignedModel) -> None:
    for record in aligned.training:
        assert record["loss"] == pytest.approx(record["loss_next_item"] + 0.01 * record["loss_align"], abs=1e-5)
    assert aligned.training[-1]["loss_next_item"] < aligned.training[0]["loss_next_item"]


def test_without_weight_there_is_no_alignment(shop: Sequences, texts: Floats, start: CollaborativeModel) -> None:
    found = align(align_config(alpha=0, epochs=1), shop, start, texts, 0, CPU)
    assert set(found.training[0]) == {"epoch", "loss", "validation_ndcg_at_10", "validation_recall_at_10"}


def test_alignment_brings_the_modalities_together(
    shop: Sequences, texts: Floats, start: CollaborativeModel, aligned: AlignedModel
) -> None:
    def agreement(model: AlignedModel) -> float:
        first, second = (
            array / np.linalg.norm(array, axis=1, keepdims=True) for array in (model.collaborative, model.semantic)
        )
        return float(np.mean(np.diag(first @ second.T) - (first @ second.T).mean(1)))

    strong = align(align_config(alpha=1), shop, start, texts, 0, CPU)
    assert agreement(strong) > agreement(aligned) + 0.2
    few = align(align_config(align_items=2, epochs=1), shop, start, texts, 0, CPU)
    assert few.training[0]["loss_align"] < strong.training[0]["loss_align"]


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("model", ["sasrec", "din"])
@pytest.mark.parametrize("max_history", [20, 7])
def test_it_starts_from_the_collaborative_stage(
    shop: Sequences, texts: Floats, fusion: str, model: str, max_history: int
) -> None:
    shape = collaborative_config(model=model, epochs=1)
    start = train_collaborative(shape, shop, 0, CPU)
    config = align_config(learning_rate=STILL, epochs=1, fusion=fusion, max_history=max_history)
    found = align(config, shop, start, texts, 0, CPU)
    assert np.allclose(found.collaborative, start.embeddings, atol=1e-6)
    same = [name for name, tensor in start.tensors.items() if found.tensors[name].shape == tensor.shape]
    assert len(same) >= 3
    for name in same:
        torch.testing.assert_close(found.tensors[name], start.tensors[name], rtol=0, atol=1e-6)


def test_or_from_scratch(shop: Sequences, texts: Floats, start: CollaborativeModel) -> None:
    config = align_config(learning_rate=STILL, epochs=1, start="scratch")
    found = align(config, shop, start, texts, 0, CPU)
    assert abs(np.corrcoef(found.collaborative.ravel(), start.embeddings.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("begins", ["collaborative", "scratch"])
def test_or_stretched_to_the_length_of_the_texts(
    shop: Sequences, texts: Floats, start: CollaborativeModel, begins: str
) -> None:
    config = align_config(learning_rate=STILL, epochs=1, start=begins)
    as_it_comes = align(config, shop, start, texts, 0, CPU).collaborative
    stretched = align(config.model_copy(update={"start_norm": 0.5}), shop, start, texts, 0, CPU).collaborative
    assert np.linalg.norm(stretched, axis=1).mean() == pytest.approx(0.5 * math.sqrt(stretched.shape[1]), rel=1e-4)
    assert np.corrcoef(stretched.ravel(), as_it_comes.ravel())[0, 1] > 1 - 1e-4


def test_the_text_embeddings_stay_frozen_and_are_no_part_of_the_weights(texts: Floats) -> None:
    stage = StageOne(align_config(), collaborative_config(), scaled_text(texts), None, low_precision=False)
    assert "text_NS" not in stage.state_dict()
    assert not any(parameter.shape == texts.shape for parameter in stage.parameters())


def test_texts_that_are_rounded_once_make_what_those_rounded_each_time_do(texts: Floats) -> None:
    stage = StageOne(align_config(), collaborative_config(), scaled_text(texts), None, low_precision=True)
    assert "low_NS" not in stage.state_dict()
    made = []
    for low in (stage.low_NS, None):
        stage.low_NS = low
        stage.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            integrated = stage.embeddings()[0]
        integrated.pow(2).sum().backward()
        gradient = stage.adapter.linear.weight.grad
        assert gradient is not None
        with torch.no_grad():
            made.append((integrated, gradient.clone(), stage.embeddings()[0]))
    assert all(torch.equal(once, each) for once, each in zip(*made, strict=True))


def test_the_restored_model_ranks_as_in_training(shop: Sequences, aligned: AlignedModel) -> None:
    model, table = aligned.sequential_model(CPU.device)
    assert not model.training
    with torch.no_grad():
        ranks = target_ranks(model, table, shop.histories(Split.VALIDATION), shop.targets(Split.VALIDATION), 20)
    best = max(record["validation_ndcg_at_10"] for record in aligned.training)
    assert validation_measures(ranks)["validation_ndcg_at_10"] == pytest.approx(best, abs=2e-3)


def test_saved_and_loaded(aligned: AlignedModel, tmp_path: Path) -> None:
    aligned.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter.safetensors",
        "collaborative.parquet",
        "config.json",
        "domination.json",
        "embeddings.parquet",
        "model.safetensors",
        "semantic.parquet",
        "training.json",
    ]
    again = AlignedModel.load(tmp_path)
    for name in ("integrated", "collaborative", "semantic"):
        assert np.array_equal(getattr(aligned, name), getattr(again, name))
    assert again.domination == aligned.domination
    assert again.training == aligned.training
    assert (again.config, again.collaborative_config) == (aligned.config, aligned.collaborative_config)
    for read, written in ((again.tensors, aligned.tensors), (again.adapter, aligned.adapter)):
        assert all(torch.equal(read[name], tensor) for name, tensor in written.items())


def test_a_crash_changes_nothing(
    shop: Sequences, texts: Floats, start: CollaborativeModel, aligned: AlignedModel, tmp_path: Path
) -> None:
    def crash(_: Progress) -> None:
        raise InterruptedError

    arguments = (align_config(), shop, start, texts, 0)
    with pytest.raises(InterruptedError):
        align(*arguments, Runtime(CPU.device, crash, tmp_path / "state"))
    align(*arguments, Runtime(CPU.device, checkpoints=tmp_path / "state")).save(tmp_path / "again")
    aligned.save(tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_items_without_text_are_no_obstacle(shop: Sequences, texts: Floats, start: CollaborativeModel) -> None:
    some = texts.copy()
    some[::3] = 0
    found = align(align_config(epochs=1), shop, start, some, 0, CPU)
    assert np.isfinite(found.integrated).all()


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_new_items_are_embedded_by_their_text_and_change_nothing(
    shop: Sequences, texts: Floats, start: CollaborativeModel, fusion: str, tmp_path: Path
) -> None:
    config, new = align_config(epochs=1, fusion=fusion), texts[:5] + np.float32(0.01)
    plain = align(config, shop, start, texts, 0, CPU)
    found = align(config, shop, start, texts, 0, CPU, new_semantic=new)
    assert plain.new_items is None
    assert found.new_items is not None
    for name in ("integrated", "collaborative", "semantic"):
        assert np.array_equal(getattr(plain, name), getattr(found, name))
    # A text nearly that of a known item gives nearly its E_T, and of what users do nothing is known.
    assert np.allclose(found.new_items.semantic, found.semantic[:5], atol=0.1)
    assert not found.new_items.collaborative.any()
    # Between its own text and where the items of nearest text are, and as long as items are.
    both = [found.new_items.collaborative, found.new_items.semantic]
    own = _directions(np.concatenate(both, axis=1) if fusion == "concat" else sum(both))
    near = _directions(by_similar_text(_directions(found.integrated), texts, new, 5))
    assert np.allclose(_directions(found.new_items.integrated), _directions(0.4 * own + 0.6 * near), atol=1e-5)
    lengths = np.linalg.norm(found.new_items.integrated, axis=1)
    assert np.allclose(lengths, np.linalg.norm(found.integrated, axis=1).mean(), rtol=1e-4)
    joined = found.with_new()
    assert np.array_equal(joined.integrated, np.concatenate([found.integrated, found.new_items.integrated]))
    assert plain.with_new() is plain
    found.save(tmp_path)
    again = AlignedModel.load(tmp_path)
    assert again.new_items is not None
    assert np.array_equal(again.new_items.integrated, found.new_items.integrated)


def _directions(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_an_item_without_text_stops_no_bias(shop: Sequences, texts: Floats, start: CollaborativeModel) -> None:
    """A cosine with a zero row has a slope of any size, after which no bias moves any more."""
    texts = texts.copy()
    texts[3] = 0
    bias = align(align_config(alpha=0.5), shop, start, texts, 0, CPU).adapter["linear.bias"].numpy()
    shift = np.abs(bias[2 * start.config.dim :])
    assert shift.std() > 0.1 * shift.mean()


@pytest.mark.parametrize("length", [8, 30])
def test_it_starts_with_the_positions_that_both_have(
    shop: Sequences, texts: Floats, start: CollaborativeModel, length: int
) -> None:
    config = align_config(max_history=length, epochs=1, learning_rate=STILL)
    found = align(config, shop, start, texts, 0, CPU).tensors["transformer.positions"]
    known = start.tensors["transformer.positions"]
    both = min(len(found), len(known))
    assert both in {8, 20} and len(found) == length
    torch.testing.assert_close(found[:both], known[:both])
