"""Stage I in catalogues of which a step meets a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prorec_core.alignment.adapter import scaled_text
from prorec_core.alignment.graph import ItemGraph
from prorec_core.alignment.model import StageOne
from prorec_core.alignment.stage import align
from prorec_core.config import AlignConfig, CollaborativeConfig
from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.progress import Progress
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel, build_model
from prorec_core.training.batching import training_batches
from prorec_core.training.rows import RowTable
from prorec_core.training.runtime import Runtime
from prorec_core.training.sampling import MetItems, met_in

CPU = Runtime(torch.device("cpu"))
N_ITEMS, TEXT = 60, 10


def _collaborative(**changes: Any) -> CollaborativeConfig:
    settings = {"dim": 8, "layers": 1, "epochs": 2, "tokens_per_batch": 64, "precision": "float32", "negatives": 8}
    return CollaborativeConfig.model_validate({**settings, **changes})


def _align(**changes: Any) -> AlignConfig:
    settings = {"epochs": 3, "tokens_per_batch": 64, "precision": "float32", "graph": 0.5, "warmup_steps": 3}
    return AlignConfig.model_validate({**settings, **changes})


def _shop(users: int = 40, n_items: int = N_ITEMS) -> Sequences:
    random = np.random.default_rng(0)
    return from_lists([random.integers(0, n_items, 9).astype(np.int32) for _ in range(users)], n_items)


def _texts(n_items: int = N_ITEMS) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(n_items, TEXT)).astype(np.float32)


@pytest.mark.parametrize("strongest", [1, 3, 1000])
def test_some_items_are_smoothed_as_in_the_whole_graph(strongest: int) -> None:
    graph, vectors = ItemGraph(_shop().training(), 0.5, strongest), torch.randn(N_ITEMS, 4)
    items = torch.tensor([3, 59, 0])
    neighbours, strengths = graph.neighbours(items)
    assert neighbours.shape[1] <= strongest
    found = graph.smoothed(vectors[items], vectors[neighbours], strengths)
    torch.testing.assert_close(found, graph(vectors)[items])
    assert torch.allclose(graph(vectors), ItemGraph(_shop().training(), 0.5)(vectors)) == (strongest == 1000)


def test_of_the_ties_the_strongest_stay_as_strong_as_they_are() -> None:
    whole, few = ItemGraph(_shop().training(), 1.0), ItemGraph(_shop().training(), 1.0, 2)
    items = torch.arange(N_ITEMS)
    of_whole = whole.neighbours(items)[1].sort(dim=1, descending=True).values[:, :2]
    torch.testing.assert_close(few.neighbours(items)[1].sort(dim=1, descending=True).values, of_whole)


def test_items_without_neighbours_keep_their_vectors() -> None:
    graph = ItemGraph(from_lists([np.array([2], np.int32)], 5), 0.5, 3)
    items, vectors = torch.arange(5), torch.randn(5, 4)
    neighbours, strengths = graph.neighbours(items)
    assert torch.equal(graph.smoothed(vectors, vectors[neighbours], strengths), vectors)


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_sample_of_all_items_has_the_loss_and_the_gradients_of_the_whole_catalogue(
    fusion: str, weight: float
) -> None:
    config = _align(fusion=fusion, dropout=0.0)
    graph = ItemGraph(_shop().training(), weight, 1000) if weight else None
    torch.manual_seed(0)
    stage = StageOne(config, _collaborative(), scaled_text(_texts()), graph, low_precision=False, by_rows=True)
    (batch, *_) = training_batches(_shop().training(), 50, 64, 0, CPU.device)

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        stage.zero_grad()
        loss.backward()
        found = {name: each.grad.clone() for name, each in stage.named_parameters() if each.grad is not None}
        if stage.items.met is not None:
            items, rows, _ = stage.items.met
            assert rows.grad is not None
            found["items.weight"] = torch.zeros(N_ITEMS, 8).index_add(0, items, rows.grad)
        return found

    whole = stage.model.training_loss(stage.embeddings()[0], batch)
    of_whole = gradients(whole)
    met, rows = met_in(batch, N_ITEMS, N_ITEMS)
    part = stage.model.training_loss(stage.embeddings_of(met)[0], rows, met)
    torch.testing.assert_close(part, whole)
    torch.testing.assert_close(gradients(part), of_whole, rtol=1e-4, atol=1e-6)


def test_training_by_rows_with_a_sample_of_all_ends_as_training_whole() -> None:
    """Losses alike and optimizers alike: the row-wise steps add up to what the whole ones do."""
    shop, texts, found = _shop(), _texts(), []
    for threshold in (0, N_ITEMS):
        shape = _collaborative(full_softmax_items=threshold, negatives=N_ITEMS, dropout=0.0)
        start = train_collaborative(shape, shop, 0, CPU)
        config = _align(dropout=0.0, graph_neighbours=1000, align_items=10_000, alpha=0.1)
        found.append((start.embeddings, align(config, shop, start, texts, 0, CPU).integrated))
    for by_rows, whole in zip(*found, strict=True):
        np.testing.assert_allclose(by_rows, whole, rtol=0.02, atol=0.002)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_however_many_items_are_met_products_have_few_shapes(weight: float) -> None:
    """oneDNN makes and keeps a program for every shape."""
    graph = ItemGraph(_shop().training(), weight, 4) if weight else None
    stage = StageOne(_align(), _collaborative(), scaled_text(_texts()), graph, low_precision=False, by_rows=True)
    shapes = set()
    stage.adapter.register_forward_pre_hook(lambda _, given: shapes.add(tuple(given[0].shape)))
    whole = stage.embeddings()[2]
    shapes.clear()
    for count in range(1, N_ITEMS):
        items = torch.arange(count)
        stage.items.met = None
        torch.testing.assert_close(stage.embeddings_of(MetItems(items, count, torch.zeros(count)))[2], whole[:count])
    assert shapes == {(256, TEXT)}


class _CutError(Exception):
    pass


def test_a_training_by_rows_that_was_cut_goes_on_bit_for_bit(tmp_path: Path) -> None:
    shop, texts = _shop(), _texts()
    start = train_collaborative(_collaborative(full_softmax_items=20), shop, 0, CPU)
    whole = align(_align(), shop, start, texts, 0, CPU)

    def cut(progress: Progress) -> None:
        if progress.step == 2:
            raise _CutError

    with pytest.raises(_CutError):
        align(_align(), shop, start, texts, 0, Runtime(CPU.device, cut, tmp_path))
    again = align(_align(), shop, start, texts, 0, Runtime(CPU.device, checkpoints=tmp_path))
    assert again.training == whole.training
    np.testing.assert_array_equal(again.integrated, whole.integrated)


def _peak() -> int:
    """The process's largest memory since it was last forgotten, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not measure a peak of memory anew")


def _large(n_items: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """A few steps of Stage I: the most rows that one has read, and how much memory was taken besides, in MiB."""
    read = []
    original = RowTable.forward

    def counted(self: RowTable, items_R: Tensor, *, repeated: bool = False) -> Tensor:
        read.append(len(items_R))
        return original(self, items_R, repeated=repeated)

    monkeypatch.setattr(RowTable, "forward", counted)
    shape = _collaborative(dim=32, full_softmax_items=50_000, negatives=128)
    weights = build_model(shape, shape, shape.dim, low_precision=False).state_dict()
    start = CollaborativeModel(np.zeros((n_items, 32), np.float32), weights, [], shape)
    texts = np.zeros((n_items, TEXT), np.float32)
    texts[:, 0] = np.arange(n_items) % 97
    monkeypatch.setattr("prorec_core.alignment.stage.domination", lambda *_, **__: {})
    _forget_peak()
    before = _peak()
    config = _align(epochs=1, start="scratch", validation_users=20)
    align(config, _shop(60, n_items), start, texts, 0, CPU)
    return max(read), _peak() - before


def test_a_step_reads_as_many_rows_whatever_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = _large(60_000, monkeypatch)
    more, grown = _large(200_000, monkeypatch)
    assert more <= 1.1 * rows
    # The table, its moments, its best copy, and at the end what is returned: 26 MB each. Made whole in each step, it
    # takes 660.
    assert grown < 400
