"""Training and inference on a device that is not the CPU, without having one.

The pretended device keeps real values in ordinary tensors but claims to be elsewhere: an operation that mixes its
tensors with the CPU's fails, and so does reading them as NumPy arrays, as on an accelerator.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from prorec_core.alignment.stage import align
from prorec_core.data.sequences import Sequences, Split
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.stage import train_generator
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.sequential.stage import train_collaborative
from prorec_core.training.rows import RowAdamW
from prorec_core.training.runtime import Runtime

ELSEWHERE = torch.device("meta")
"""The one device that every build of torch knows and that has no values of its own."""


class Away(torch.Tensor):
    """A tensor of the pretended device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a tensor of another device cannot be read as a NumPy array")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Pretend(TorchDispatchMode):
    """Lets tensors be made on the pretended device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Away) else value


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, Away)}
    asked, name = kwargs.get("device"), func.overloadpacket._qualified_op_name
    plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
    if name == "aten::copy_":
        func(*plain_args, **plain_kwargs)
        return args[0]
    if asked is not None:
        plain_kwargs["device"] = torch.device("cpu")
    if name == "aten::_to_copy":
        out = func(*plain_args, **plain_kwargs)
        return Away(out) if (bool(away) if asked is None else torch.device(asked) == ELSEWHERE) else out
    if away and any(tensor.ndim for tensor in tensors if not isinstance(tensor, Away)):
        raise RuntimeError(f"{name} mixes devices")
    out = func(*plain_args, **plain_kwargs)
    if not away and (asked is None or torch.device(asked) != ELSEWHERE):
        return out

    def sent_away(leaf: Any) -> Any:
        # What works in place gives back the very tensor that it was given.
        return away[id(leaf)] if id(leaf) in away else Away(leaf) if isinstance(leaf, Tensor) else leaf

    return tree_map(sent_away, out)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The pretended device, with what has a list of devices of its own told that this is the CPU."""
    autocast, adamw = torch.autocast, torch.optim.AdamW
    monkeypatch.setattr(torch, "autocast", lambda _, *args, **kwargs: autocast("cpu", *args, **kwargs))
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda groups, fused=None, capturable=None, **rest: adamw(groups, **rest, foreach=False)
    )
    by_rows = RowAdamW.__init__
    monkeypatch.setattr(RowAdamW, "__init__", lambda self, *args, capturable: by_rows(self, *args, fused=False))
    with Pretend():
        yield ELSEWHERE


def test_the_pretended_device_tells_mixing(elsewhere: torch.device) -> None:
    there = torch.ones(3, device=elsewhere)
    assert (there + 1).device == elsewhere
    assert (there + 1).sum().item() == 6
    with pytest.raises(RuntimeError, match="mixes devices"):
        there + torch.ones(3)
    with pytest.raises(TypeError):
        there.numpy()
    assert there.cpu().numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("model", "whole", "fusion"),
    [("sasrec", True, "sum"), ("sasrec", False, "concat"), ("din", True, "concat"), ("din", False, "sum")],
)
def test_stage_one_anywhere(
    make_inputs: Any,
    checkerboard: Sequences,
    elsewhere: torch.device,
    model: str,
    whole: bool,
    fusion: str,
    tmp_path: Path,
) -> None:
    inputs, sequences = make_inputs(), checkerboard.select(np.arange(0, 96, 5))
    sizes = {"full_softmax_items": 100} if whole else {"full_softmax_items": 0, "negatives": 20}
    shape = inputs.aligned.collaborative_config.model_copy(update={"model": model, "epochs": 1, **sizes})
    config = inputs.aligned.config.model_copy(update={"fusion": fusion, "epochs": 1, "align_items": 6})
    start = train_collaborative(shape, sequences, 0, Runtime(elsewhere, checkpoints=tmp_path / "state"))
    start.save(tmp_path)
    texts = np.random.default_rng(0).normal(size=(24, 10)).astype(np.float32)
    found = align(config, sequences, start, texts, 0, Runtime(elsewhere))
    found.save(tmp_path)
    assert np.isfinite(found.integrated).all()


@pytest.mark.parametrize(
    ("architecture", "at", "teacher", "full"),
    [
        ("timeline", "context", "integrated", True),
        ("timeline", "summary", "both", False),
        ("encoder_decoder", "summary", "integrated", True),
        ("encoder_decoder", "context", "both", False),
    ],
)
def test_the_generator_anywhere(
    make_inputs: Any,
    checkerboard: Sequences,
    elsewhere: torch.device,
    tmp_path: Path,
    architecture: str,
    at: str,
    teacher: str,
    full: bool,
) -> None:
    options = {"history": "codes", "node_scores": False, "trie_mask": False, "label_smoothing": 0.1}
    distill = {"at": at, "teacher": teacher, "soft_targets": 0.5 if full else 0.0}
    config = {"architecture": architecture, "epochs": 1, "distill": distill, **({} if full else options)}
    inputs = make_inputs(config=config, sequences=checkerboard.select(np.arange(0, 96, 5)))
    runtime = Runtime(elsewhere, checkpoints=tmp_path / "state")
    trained = train_generator(inputs, 0, runtime)
    # Once more, from the checkpoint.
    assert train_generator(inputs, 0, runtime).training == trained.training
    trained.save(tmp_path / "files")
    again = restore_generator(TrainedGenerator.load(tmp_path / "files"), inputs.codes, inputs.embeddings, elsewhere)
    found = find_candidates(again, inputs.sequences.histories(Split.TEST), 10, 10)
    assert (found.fused(1.0, 10)[0] >= 0).all()
