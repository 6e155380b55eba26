"""Every training in steps of fixed shapes, as on a GPU: the same as without, with nothing to wait for, and replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prorec_core.alignment.adapter import AdaLNAdapter
from prorec_core.alignment.stage import align
from prorec_core.alignment.trained import AlignedModel
from prorec_core.config import AlignConfig, CollaborativeConfig, GeneratorConfig
from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.generation.base import Context
from prorec_core.generation.encoder_decoder import DecoderBlock
from prorec_core.generation.stage import GeneratorInputs, train_generator
from prorec_core.generation.timeline import DepthDecoder
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.transformer import Block, Dropout
from prorec_core.training.runtime import Runtime
from prorec_core.training.steps import Steps, compile_regions
from tests.steps import Rerun, Tape, WaitError

CPU = torch.device("cpu")
PLAIN, FIXED = Runtime(CPU), Runtime(CPU, fixed_shapes=True)
N_ITEMS, DIM, HISTORY = 60, 8, 12
TRAINING = {
    "epochs": 2,
    "tokens_per_batch": 48,
    "precision": "float32",
    "warmup_steps": 3,
    "dropout": 0.0,
    "max_history": HISTORY,
    "patience": 9,
}
ALL_SAMPLED = {"full_softmax_items": 10, "negatives": N_ITEMS}
"""A sample of all items, which is exact."""
Found = tuple[list[dict[str, Any]], dict[str, Tensor]]
"""Records and what was trained."""
Training = Callable[[Runtime], Found]


@cache
def _shop() -> Sequences:
    """Histories of few lengths, so that some shapes come again."""
    random = np.random.default_rng(0)
    lengths = random.choice([3, 5, 9, 10, 14], 60)
    return from_lists([random.integers(0, N_ITEMS, n).astype(np.int32) for n in lengths], N_ITEMS)


def _texts() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(N_ITEMS, 10)).astype(np.float32)


def _shape(**changes: Any) -> CollaborativeConfig:
    return CollaborativeConfig.model_validate({**TRAINING, "dim": DIM, "layers": 1, **changes})


def collaborative(**changes: Any) -> Training:
    def train(runtime: Runtime) -> Found:
        found = train_collaborative(_shape(**changes), _shop(), 0, runtime)
        return found.training, {**found.tensors, "items": torch.from_numpy(found.embeddings)}

    return train


def _aligned(runtime: Runtime, shape: dict[str, Any], changes: dict[str, Any]) -> AlignedModel:
    config = {**TRAINING, "graph": 0.5, "alpha": 0.1, "align_items": N_ITEMS, "graph_neighbours": 9, **changes}
    start = train_collaborative(_shape(**shape, epochs=1), _shop(), 0, PLAIN)
    return align(AlignConfig.model_validate(config), _shop(), start, _texts(), 0, runtime)


def alignment(shape: dict[str, Any] | None = None, **changes: Any) -> Training:
    def train(runtime: Runtime) -> Found:
        found = _aligned(runtime, shape or {}, changes)
        return found.training, {**found.tensors, "items": torch.from_numpy(found.integrated)}

    return train


@cache
def _stage_one(**shape: int) -> AlignedModel:
    return _aligned(PLAIN, dict(shape), {"epochs": 1})


def generator(shape: dict[str, int] | None = None, **changes: Any) -> Training:
    distill = {"beta": 0.3, "soft_targets": 0.3, "share": 1.0, **changes.pop("distill", {})}
    config = {**TRAINING, "dim": DIM, "layers": 1, "decoder_layers": 1, "validation_beams": 10, **changes}

    def train(runtime: Runtime) -> Found:
        aligned, random = _stage_one(**(shape or {})), np.random.default_rng(2)
        # Two levels and a suffix: families of very different sizes.
        pairs = np.sort(random.integers(0, 4, (N_ITEMS, 2)), axis=0)
        suffix = [int((pairs[:item] == pairs[item]).all(1).sum()) for item in range(N_ITEMS)]
        inputs = GeneratorInputs(
            config=GeneratorConfig.model_validate({**config, "distill": distill}),
            fusion_weights=[0.0, 1.0],
            beams=10,
            mask_history=True,
            sequences=_shop(),
            codes=np.concatenate([pairs, np.array(suffix)[:, None]], axis=1).astype(np.uint16),
            codebooks=[None] * 3,
            embeddings=aligned.integrated,
            integrated=True,
            aligned=aligned,
            texts=_texts(),
        )
        found = train_generator(inputs, 0, runtime)
        return found.training, dict(found.tensors)

    return train


PAPERS = {"architecture": "encoder_decoder", "targets_per_user": HISTORY}
EXACT: dict[str, Training] = {
    "sasrec": collaborative(),
    "sasrec, sampled": collaborative(**ALL_SAMPLED),
    "din": collaborative(model="din"),
    "din, sampled": collaborative(model="din", **ALL_SAMPLED),
    "align": alignment(),
    "align, sampled": alignment(ALL_SAMPLED),
    "generator": generator(),
    "generator, sampled": generator(ALL_SAMPLED),
    "generator, no mask": generator(
        trie_mask=False, node_scores=False, label_smoothing=0.1, distill={"soft_targets": 0}
    ),
    "encoder-decoder": generator(**PAPERS, distill={"at": "summary", "teacher": "both"}),
}
"""Where nothing is drawn."""
FEW_SAMPLED = {"full_softmax_items": 10, "negatives": 16}
DRAWN: dict[str, Training] = {
    "sasrec": collaborative(dropout=0.3),
    "sasrec, as published, sampled": collaborative(loss="binary_cross_entropy", **FEW_SAMPLED),
    "din": collaborative(model="din", dropout=0.3, negatives=16),
    "align": alignment(dropout=0.3, align_items=8),
    "align, sampled": alignment(FEW_SAMPLED, dropout=0.3, align_items=8),
    "generator": generator(dropout=0.3, distill={"share": 0.25}),
    "generator, sampled": generator(FEW_SAMPLED, dropout=0.3, distill={"share": 0.25}),
    "encoder-decoder": generator(architecture="encoder_decoder", dropout=0.3),
}


@pytest.mark.parametrize("train", EXACT.values(), ids=EXACT.keys())
def test_padding_changes_nothing_but_roundings(train: Training) -> None:
    (records, tensors), (plain_records, plain_tensors) = train(FIXED), train(PLAIN)
    for record, plain in zip(records, plain_records, strict=True):
        losses = {name: value for name, value in plain.items() if name.startswith("loss")}
        assert {name: record[name] for name in losses} == pytest.approx(losses, rel=1e-3, abs=1e-4)
    for name, tensor in plain_tensors.items():
        # Of two roundings AdamW can make steps in two directions where a gradient is next to nothing.
        if not name.endswith("qkv.bias"):  # Keys have a bias that no loss depends on: roundings alone move it.
            torch.testing.assert_close(tensors[name], tensor, rtol=0.05, atol=0.005, msg=name)


@pytest.mark.parametrize("train", DRAWN.values(), ids=DRAWN.keys())
def test_steps_wait_for_nothing_and_replayed_are_the_same_to_the_bit(train: Training) -> None:
    tape = Tape()
    (records, tensors), (others, rerun) = (
        train(Runtime(CPU, fixed_shapes=True, capture=capture)) for capture in (tape, Rerun())
    )
    assert tape.replayed > 5
    assert records == others
    for name, tensor in rerun.items():
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize(
    "train", [EXACT["sasrec"], EXACT["align"], EXACT["generator"]], ids=["sasrec", "align", "generator"]
)
def test_a_step_whose_shapes_its_batch_decides_is_found_out(train: Training) -> None:
    with pytest.raises(WaitError):
        train(Runtime(CPU, fixed_shapes=False, capture=Rerun()))


def test_what_a_step_reads_of_the_host_is_frozen_once_it_is_recorded() -> None:
    """Why rates and counts of steps are kept in tensors: the tape, as a graph, knows the number of then."""

    class One:
        shape = (1,)

        def kept(self) -> One:
            return self

        def take(self, other: One) -> None: ...

    rate, moved = [1.0], torch.zeros(1)

    def step(_: One) -> dict[str, Tensor]:
        return {"loss": moved.add_(rate[0]).clone()}

    steps = Steps(step, Tape())
    seen = []
    for rate[0] in (1.0, 2.0, 4.0, 8.0):
        seen.append(float(steps(One())["loss"]))
    assert seen == [1.0, 3.0, 5.0, 7.0]


def _parts() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "block": Block(DIM, 2, 0.1),
            "adapter": AdaLNAdapter(10, DIM),
            "timeline": DepthDecoder(DIM, 3, 1, 0.1),
            "decoder": DecoderBlock(DIM, 2, 0.1),
        }
    )


def test_parts_are_compiled_whole_once_for_all_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced alone, which tells what could not be; what a compiler makes of it takes longer than a test may."""
    traced = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        traced.append(graph)
        return graph

    monkeypatch.setattr("prorec_core.training.steps.COMPILER", backend)
    torch._dynamo.reset()
    plain, parts = _parts(), _parts()
    parts.load_state_dict(plain.state_dict())
    assert len([part for part in parts.modules() if getattr(part, "compiled", False)]) == 5, "a decoder has a block"
    compile_regions(parts)
    assert parts.state_dict().keys() == plain.state_dict().keys()
    found = []
    for users, length in ((3, 5), (4, 7), (6, 4)):
        memory = Context(
            torch.randn(users, DIM), torch.randn(users, length, DIM), torch.zeros(users, length, dtype=torch.bool)
        )
        given = {
            "block": (torch.randn(users, length, DIM),),
            "adapter": (torch.randn(users * length, 10),),
            "timeline": (torch.randn(users * length, DIM),),
            "decoder": (torch.randn(users, 2, length, DIM), memory),
        }
        for name, values in given.items():
            before = len(traced)
            for each in (parts, plain):
                each.eval()
            assert torch.equal(parts[name](*values), plain[name](*values)) and len(traced) == before
            for each in (parts, plain):
                for module in each.modules():
                    # Without what dropout draws, which tracing draws otherwise.
                    module.training = not isinstance(module, Dropout)
            torch.testing.assert_close(parts[name](*values), plain[name](*values))
        found.append(len(traced))
    assert found[0] > 0 and found[1] == found[2], "a third shape is nothing new"
