"""The gradients of a first step of each training, by one process or by several: run as a program, by one of several.

python -m tests.prorec_core.training.gradients RANK COUNT FILE OUT
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from prorec_core.alignment.stage import align
from prorec_core.alignment.trained import AlignedModel
from prorec_core.artifacts import written_whole
from prorec_core.config import AlignConfig, CollaborativeConfig, GeneratorConfig
from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.generation.stage import GeneratorInputs, train_generator
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel
from prorec_core.training.checkpoint import save_tensors
from prorec_core.training.meeting import meet
from prorec_core.training.rows import RowAdamW
from prorec_core.training.runtime import Runtime
from prorec_core.training.workers import Workers

CPU = torch.device("cpu")
N_ITEMS, DIM = 60, 8
SHARED: dict[str, Any] = {
    "epochs": 1,
    "tokens_per_batch": 96,
    "precision": "float32",
    "dropout": 0.0,
    "max_history": 12,
    "warmup_steps": 1,
    "learning_rate": 0.01,
}


class _SeenError(Exception):
    """The first step is about to be made."""


def _shop() -> Sequences:
    random = np.random.default_rng(0)
    lengths = random.integers(4, 14, 40)
    return from_lists([random.integers(0, N_ITEMS, length).astype(np.int32) for length in lengths], N_ITEMS)


def _shape(**changes: Any) -> CollaborativeConfig:
    own = {"dim": DIM, "layers": 1, "heads": 2, "negatives": 16}
    return CollaborativeConfig.model_validate({**SHARED, **own, **changes})


def _collaborative(**changes: Any) -> Callable[[Runtime], CollaborativeModel]:
    return lambda runtime: train_collaborative(_shape(**changes), _shop(), 0, runtime)


def _align(shape: dict[str, Any] | None = None, **changes: Any) -> Callable[[Runtime], AlignedModel]:
    start = _collaborative(**(shape or {}))(Runtime(CPU))
    own = {"graph": 0.5, "alpha": 0.5, "align_items": 24}
    texts = np.random.default_rng(1).normal(size=(N_ITEMS, 10)).astype(np.float32)
    config = AlignConfig.model_validate({**SHARED, **own, **changes})
    return lambda runtime: align(config, _shop(), start, texts, 0, runtime)


def _generator(shape: dict[str, Any] | None = None, **changes: Any) -> Callable[[Runtime], object]:
    aligned = _align(shape)(Runtime(CPU))
    own = {"dim": DIM, "layers": 1, "decoder_layers": 1, "heads": 2, "validation_beams": 10, "ranker": False}
    random = np.random.default_rng(2)
    codes = np.stack([np.arange(N_ITEMS) // 15, np.arange(N_ITEMS) % 15 // 4, np.arange(N_ITEMS) % 15 % 4], axis=1)
    distill = {"beta": 0.3, **changes.pop("distill", {})}
    inputs = GeneratorInputs(
        config=GeneratorConfig.model_validate({**SHARED, **own, **changes, "distill": distill}),
        fusion_weights=[1.0],
        beams=10,
        mask_history=True,
        sequences=_shop(),
        codes=random.permutation(codes).astype(np.uint16),
        codebooks=[None, None, None],
        embeddings=aligned.integrated,
        integrated=True,
        aligned=aligned,
        texts=random.normal(size=(N_ITEMS, 10)).astype(np.float32),
    )
    return lambda runtime: train_generator(inputs, 0, runtime)


LARGE = {"full_softmax_items": 10}
Training = Callable[[Runtime], object]
CASES: dict[str, Callable[[], Training]] = {
    "sasrec": _collaborative,
    "din": lambda: _collaborative(model="din", negatives=N_ITEMS),
    "sasrec, a large catalogue": lambda: _collaborative(**LARGE),
    "fewer users in a batch than workers": lambda: _collaborative(tokens_per_batch=16, **LARGE),
    "align": _align,
    "align, a large catalogue": lambda: _align(LARGE),
    "generator": lambda: _generator(distill={"soft_targets": 0.3}),
    "generator, all targets": lambda: _generator(distill={"share": 1.0, "at": "summary"}),
    "generator, a large catalogue": lambda: _generator(LARGE),
    "generator, fewer users in a batch than workers": lambda: _generator(tokens_per_batch=16),
    "encoder and decoder": lambda: _generator(architecture="encoder_decoder"),
}
"""By name, how a training is prepared by one process alone, and then begun."""


def gradients(case: str, workers: Workers) -> dict[str, Tensor]:
    """The gradients with which the first step is made, in the optimizer's order, and then those of rows."""
    found: dict[str, Tensor] = {}
    training = CASES[case]()

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        tables = [each.table for each in optimizer._pending] if isinstance(optimizer, RowAdamW) else []
        rows = [table.met[1] for table in tables if table.met is not None]
        for index, each in enumerate([*parameters, *rows]):
            if each.grad is not None:
                found[str(index)] = each.grad.clone()
        raise _SeenError

    hook = register_optimizer_step_pre_hook(look)
    try:
        training(Runtime(CPU, workers=workers))
    except _SeenError:
        return found
    finally:
        hook.remove()
    raise AssertionError("no step was made")


def whole(workers: Workers, *, still: bool = False) -> dict[str, Tensor]:
    """What a whole training comes to: the weights, and the losses and measures of its epochs.

    Args:
        workers: who train together.
        still: whether nothing is drawn, neither dropout nor a sample of the catalogue.
    """
    config = _shape(epochs=3) if still else _shape(epochs=3, dropout=0.2, **LARGE)
    found = train_collaborative(config, _shop(), 0, Runtime(CPU, workers=workers))
    records = [[value for _, value in sorted(record.items())] for record in found.training]
    return {"embeddings": torch.from_numpy(found.embeddings), "records": torch.tensor(records), **found.tensors}


def main() -> None:
    """Write this worker's gradients of all cases, and what a whole training by all workers comes to."""
    rank, count, file, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)

    def told(own: tuple[str, int] | None) -> tuple[str, int]:
        """Gives the first worker's address to all, by way of a file."""
        if own is not None:
            with written_whole(file) as draft:
                draft.path.write_text(json.dumps(own))
        end = time.monotonic() + 120
        while not file.exists():
            assert time.monotonic() < end, "the first worker is not there"
            time.sleep(0.01)
        host, port = json.loads(file.read_text())
        return host, port

    with meet(rank, count, "127.0.0.1", told, device="cpu", seconds=120) as workers:
        tensors = {f"{case}/{name}": each for case in CASES for name, each in gradients(case, workers).items()}
        tensors |= {f"whole/{name}": each for name, each in whole(workers).items()}
        tensors |= {f"still/{name}": each for name, each in whole(workers, still=True).items()}
        tensors |= {f"again/{name}": each for name, each in whole(workers).items()}
        save_tensors(out, tensors)


if __name__ == "__main__":
    main()
