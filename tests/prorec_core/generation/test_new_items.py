"""A trained generator over a catalogue that has grown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from prorec_core.alignment.trained import AlignedModel, NewEmbeddings
from prorec_core.data.sequences import Sequences, Split
from prorec_core.generation.candidates import dense_logits, find_candidates, item_log_probabilities, last_context
from prorec_core.generation.stage import train_generator
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.training.batching import inference_batches
from prorec_core.training.runtime import Runtime

CPU = torch.device("cpu")
N_ITEMS, NEW = 24, 3


@pytest.fixture(scope="module")
def grown(stage_one: AlignedModel) -> AlignedModel:
    """Stage I with three new items, each nearly like an old one."""
    near = np.float32(1.01)
    return replace(
        stage_one,
        new_items=NewEmbeddings(
            *(table[[3, 8, 20]] * near for table in (stage_one.integrated, stage_one.collaborative, stage_one.semantic))
        ),
    )


def with_new_codes(codes: Any) -> Any:
    """The table and behind it the codes of three items: a suffix, a path and a code that training had not."""
    new = codes[[3, 8, 20]].copy()
    new[0, 2] = codes[:, 2].max() + 2
    new[1, 1] = codes[:, 1].max() + 1
    new[2, 0] = codes[:, 0].max() + 1
    return np.concatenate([codes, new])


@pytest.fixture(scope="module", params=["integrated", "both"])
def trained(request: pytest.FixtureRequest, make_inputs: Any, grown: AlignedModel) -> tuple[Any, TrainedGenerator]:
    inputs = make_inputs(aligned=grown, config={"epochs": 1, "distill": {"temperature": 0.2, "teacher": request.param}})
    return inputs, train_generator(inputs, 0, Runtime(CPU))


def restored(trained: tuple[Any, TrainedGenerator]) -> tuple[Any, Any]:
    inputs, result = trained
    everything = inputs.aligned.with_new().integrated
    return (
        restore_generator(result, inputs.codes, inputs.embeddings, CPU),
        restore_generator(result, with_new_codes(inputs.codes), everything, CPU),
    )


def test_training_knows_nothing_of_new_items(trained: tuple[Any, TrainedGenerator], make_inputs: Any) -> None:
    inputs, result = trained
    plain = train_generator(replace(inputs, aligned=replace(inputs.aligned, new_items=None)), 0, Runtime(CPU))
    for name, tensor in plain.tensors.items():
        assert torch.equal(result.tensors[name][: len(tensor)] if tensor.ndim else result.tensors[name], tensor), name
        grew = name.startswith("teacher.")
        assert result.tensors[name].shape[:1] == tensor.shape[:1] or grew


def test_old_codes_keep_their_weights_and_new_ones_get_the_mean(trained: tuple[Any, TrainedGenerator]) -> None:
    small, large = restored(trained)
    for old, new in [
        *zip(small.heads, large.heads, strict=True),
        *zip(small.code_vectors, large.code_vectors, strict=True),
    ]:
        assert len(new) > len(old)
        assert torch.equal(new[: len(old)], old)
        assert torch.allclose(new[len(old) :], old.mean(0, keepdim=True))


@torch.no_grad()
def test_all_items_can_be_generated(trained: tuple[Any, TrainedGenerator], checkerboard: Sequences) -> None:
    _, large = restored(trained)
    histories = replace(checkerboard.histories(Split.TEST), n_items=N_ITEMS + NEW)
    found = find_candidates(large, histories, 40, N_ITEMS + NEW, masked=False)
    items, scores = found.generative(N_ITEMS + NEW)
    assert (np.sort(items, axis=1) == np.arange(N_ITEMS + NEW)).all()
    assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-4)
    # A twin points where its elder does, so the dense score cannot tell them apart.
    dense = dense_logits(large, last_context(large, inference_batches(histories, 6, 10_000, 200, CPU)[0]))
    assert torch.allclose(dense[:, [3, 8, 20]], dense[:, N_ITEMS:], atol=1e-4)


def test_an_offset_moves_its_items_and_nothing_else(
    trained: tuple[Any, TrainedGenerator], checkerboard: Sequences
) -> None:
    _, large = restored(trained)
    everything = torch.arange(N_ITEMS + NEW)
    batch = inference_batches(checkerboard.histories(Split.TEST), 6, 10_000, 200, CPU)[0]
    offsets = torch.zeros(N_ITEMS + NEW)
    offsets[N_ITEMS:] = 1.5

    @torch.no_grad()
    def scores() -> tuple[torch.Tensor, torch.Tensor]:
        context = last_context(large, batch)
        asked = everything.expand(len(batch.users_B), -1)
        return item_log_probabilities(large, context, asked), dense_logits(large, context)

    generative, dense = scores()
    large.offset_items(torch.full_like(offsets, 2.0))
    same, _ = scores()
    assert torch.allclose(same, generative, atol=1e-4), "what is added to all moves none"
    large.offset_items(offsets)
    moved, dense_moved = scores()
    assert torch.allclose(dense_moved - dense, offsets.expand_as(dense), atol=1e-5)
    assert torch.allclose(moved.exp().sum(1), torch.ones(len(moved)), atol=1e-4)
    assert (moved[:, N_ITEMS:].exp().sum(1) > generative[:, N_ITEMS:].exp().sum(1)).all()


def test_without_normalisation_an_offset_is_added_once(make_config: Any, make_generator: Any) -> None:
    """Along each path the levels' shares add up to the item's own offset, less what the root has."""
    generator = make_generator(make_config(node_scores=False, trie_mask=False))
    offsets = torch.linspace(-1, 2, N_ITEMS)
    generator.offset_items(offsets)
    trie = generator.trie
    total = sum(generator.node_offsets[level][trie.path[:, level]] for level in range(trie.depth))
    assert torch.allclose(total, offsets - offsets.exp().mean().log(), atol=1e-5)
