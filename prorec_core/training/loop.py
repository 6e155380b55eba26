"""The one training loop: AdamW with warm-up and cosine, early stopping, a checkpoint an epoch, exact resumption.

Knows modules, losses and batches, and how the next item of sequences is trained on and validated; knows nothing of
how a model finds it. All randomness of an epoch comes from the seed and the epoch's number, so that a training that
goes on from a checkpoint ends as if it had never stopped.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prorec_core.config import Training
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.errors import UserError
from prorec_core.metrics.measures import ndcg_at_k, recall_at_k
from prorec_core.progress import Progress
from prorec_core.training.batching import HistoryBatch, training_batches
from prorec_core.training.checkpoint import Checkpoint
from prorec_core.training.rows import RowAdamW, RowTable
from prorec_core.training.runtime import Runtime, derive_seed, deterministic
from prorec_core.training.steps import Steps, compile_regions
from prorec_core.training.trouble import DeviceFullError, asked, is_full

Batch = TypeVar("Batch")
TARGET = "validation_ndcg_at_10"
"""The measure that early stopping follows."""


def fit_next_item(
    model: nn.Module,
    losses: Callable[[HistoryBatch], Mapping[str, Tensor]],
    ranks: Callable[[Sequences, IntArray], IntArray],
    sequences: Sequences,
    config: Training,
    seed: int,
    runtime: Runtime,
    shares: Mapping[nn.Parameter, float] | None = None,
    *,
    asked: npt.NDArray[np.int64] | None = None,
) -> list[dict[str, Any]]:
    """Train a model to predict the next items of users; all else is as in `train`.

    Args:
        model: on the runtime's device.
        losses: as in `train`; called in bfloat16 where configuration and device say so.
        ranks: given histories and the item that comes next in each, shape (targets,), the ranks of these items among
            what the model recommends, from 1, 0 for one that is not found. Not asked where the validation items are
            trained on.
        sequences: all users' items; what they hold back from training is held back here.
        config: also of the batches and their precision.
        seed: of the whole training.
        runtime: device, progress and checkpoints.
        shares: as in `train`.
        asked: the targets that validation asks about (see `validation_targets`); None: all.
    """
    low, training = runtime.low_precision(config.precision), sequences.training()
    histories, targets = sequences.histories(Split.VALIDATION), sequences.targets(Split.VALIDATION)
    if asked is not None:
        histories, targets = histories.select(asked), targets[asked]
    workers = runtime.workers
    mine = workers.mine(len(targets))
    # Who has none of few targets stands in with the first: all take the same steps together.
    asked_here = None if mine is None else mine if len(mine) else np.zeros(1, np.int64)
    own = (histories, targets) if asked_here is None else (histories.owned().select(asked_here), targets[asked_here])

    def validate() -> Mapping[str, float]:
        found = ranks(*own)
        found = workers.put_together(found if mine is None else found[: len(mine)], len(targets), runtime.device)
        return validation_measures(found, histories.owner)

    def losses_of(batch: HistoryBatch) -> Mapping[str, Tensor]:
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=low):
            return losses(batch)

    return train(
        model,
        losses_of,
        lambda order: training_batches(
            training,
            config.max_history,
            config.tokens_per_batch,
            order,
            runtime.device,
            fixed=runtime.fixed_shapes,
        ),
        validate if sequences.validates else None,
        config,
        seed,
        runtime,
        shares,
    )


def validation_targets(sequences: Sequences, most: int, seed: int) -> npt.NDArray[np.int64] | None:
    """Of very many targets so many, drawn evenly, ascending, int64; None: all, which are few enough.

    Those that no model can be asked for are left out: they would tell no epoch from another.
    """
    asked = sequences.answerable(Split.VALIDATION)
    if len(asked) <= most:
        return None if sequences.borders is None else asked
    drawn = np.random.default_rng(seed).choice(len(asked), most, replace=False)
    return asked[np.sort(drawn)]


def validation_measures(ranks: IntArray, owners: IntArray | None = None) -> dict[str, float]:
    """Recall and NDCG at 10 from ranks (0: not found), under the names that training follows."""
    return {"validation_recall_at_10": recall_at_k(ranks, 10, owners), TARGET: ndcg_at_k(ranks, 10, owners)}


def train(
    model: nn.Module,
    losses: Callable[[Batch], Mapping[str, Tensor]],
    batches: Callable[[int], Sequence[Batch]],
    validate: Callable[[], Mapping[str, float]] | None,
    config: Training,
    seed: int,
    runtime: Runtime,
    shares: Mapping[nn.Parameter, float] | None = None,
) -> list[dict[str, Any]]:
    """Train until the epochs are over or validation no longer improves; leaves the best epoch's weights in `model`.

    Without a validation, or where it measures nothing but zeros, all epochs are trained, and the last one's weights
    stay.

    Args:
        model: holds every parameter to train.
        losses: named losses of a batch, of several workers this one's part of them; the one called "loss" is
            minimised.
        batches: the batches of an epoch (from 0), given a seed of that epoch.
        validate: measures after each epoch; must hold `validation_ndcg_at_10`. None: nothing is held back to measure.
        config: epochs, learning rate and so on.
        seed: of the whole training.
        runtime: device, progress, checkpoints, and the workers that train together.
        shares: of the learning rate, for the parameters that have a part of it alone.

    Returns:
        One record an epoch: mean losses and validation measures.

    Raises:
        UserError: the loss or a weight is no longer a number, or there is nothing to train on.
        DeviceFullError: a batch does not fit the device.
    """
    workers = runtime.workers
    optimizer = _optimizer(model, config, shares or {}, capturable=runtime.capture is not None)
    rates = [group["rate"] for group in optimizer.param_groups]
    if runtime.compiled:
        compile_regions(model)

    def one_step(batch: Batch) -> Mapping[str, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        found = losses(batch)
        found["loss"].backward()
        if workers.count > 1:
            workers.sum_gradients(_leaves(model))
        optimizer.step()
        return {name: value.detach() for name, value in found.items()}

    steps = Steps(one_step, runtime.capture)
    checkpoint = Checkpoint(runtime.checkpoints)
    records: list[dict[str, Any]] = []
    best, step = _copy(model), 0
    if found := checkpoint.load(model, optimizer, runtime.device, workers):
        best, notes = found
        records, step = notes["records"], notes["step"]

    with deterministic():
        while len(records) < config.epochs and not _exhausted(records, config.patience):
            epoch = len(records)
            workers.seed(derive_seed(seed, "epoch", epoch), derive_seed(seed, "epoch", epoch, "worker", workers.rank))
            model.train()
            record, step = _one_epoch(
                steps, batches(derive_seed(seed, "order", epoch)), optimizer, rates, config, epoch, step, runtime
            )
            _expect_numbers(model, epoch)
            model.eval()
            if validate is not None:
                with torch.no_grad():
                    record |= validate()
            records.append(record)
            if validate is None or record[TARGET] == max(r[TARGET] for r in records):
                best = _copy(model)
            if workers.first:
                checkpoint.save(model, best, optimizer, {"records": records, "step": step}, epoch + 1)
            numbers = {name: value for name, value in record.items() if name != "epoch"}
            runtime.report(Progress(epoch + 1, config.epochs, "epoch", numbers))
    model.load_state_dict(best)
    model.eval()
    return records


def _one_epoch(
    steps: Steps[Batch],
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    config: Training,
    epoch: int,
    step: int,
    runtime: Runtime,
) -> tuple[dict[str, Any], int]:
    if not batches:
        raise UserError(
            "there is nothing to train on: no history has two items apart from those held back",
            place="training",
            cure="Use data with longer histories",
        )
    if isinstance(optimizer, RowAdamW) and optimizer.reserve(len(batches)):
        steps.forget()
    totals: dict[str, Tensor | float] = defaultdict(float)
    for index, batch in enumerate(batches):
        step += 1
        done = (epoch + index / len(batches)) / config.epochs
        factor = min(1.0, step / max(config.warmup_steps, 1)) * 0.5 * (1 + math.cos(math.pi * done))
        _set_rates(optimizer, [rate * factor for rate in rates])
        with _told_of(batch, config):
            for name, value in steps(batch).items():
                totals[name] = totals[name] + value
    if isinstance(optimizer, RowAdamW):
        optimizer.settle()
    record: dict[str, Any] = {"epoch": epoch + 1}
    summed = zip(totals, runtime.workers.total(list(totals.values()), runtime.device), strict=True)
    record |= {name: round(value / len(batches), 6) for name, value in summed}
    if not all(math.isfinite(value) for value in record.values()):
        raise _diverged("the loss is no longer a number", epoch)
    return record, step


def _expect_numbers(model: nn.Module, epoch: int) -> None:
    """Refuse weights that the last step spoiled: no loss tells of that step, and no epoch's weights are to be these."""
    sums = torch.stack([each.detach().sum() for each in model.parameters()])
    if not bool(sums.isfinite().all()):
        raise _diverged("a weight is no longer a number", epoch)


def _diverged(what: str, epoch: int) -> UserError:
    return UserError(
        f"{what} in epoch {epoch + 1}", place="training", cure="Lower learning_rate or raise the temperature"
    )


def _leaves(model: nn.Module) -> list[Tensor]:
    """What gets a gradient in a step: of tables the rows that were read, the same ones at all workers."""
    tables = [module for module in model.modules() if isinstance(module, RowTable) and module.by_rows]
    whole = {id(table.weight) for table in tables}
    rows = [table.met[1] for table in tables if table.met is not None]
    return [*(each for each in model.parameters() if id(each) not in whole), *rows]


@contextmanager
def _told_of(batch: object, config: Training) -> Iterator[None]:
    """Say of which batch a device has too little memory, and what to set."""
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        shape, tokens = getattr(batch, "shape", None), config.tokens_per_batch
        what = f"a batch of {shape[0]:,} histories of {shape[1]:,} items" if shape else "a batch"
        raise DeviceFullError(
            f"{what} does not fit the memory of the device{asked(error)}",
            place=config.section,
            cure=f"Set {config.section}.tokens_per_batch to less than {tokens:,}",
        ) from error


def _set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["rate"] = rate
        if isinstance(group["lr"], Tensor):
            # A captured step reads it where it is.
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    if isinstance(optimizer, RowAdamW):
        optimizer.prepare()


def _optimizer(
    model: nn.Module, config: Training, shares: Mapping[nn.Parameter, float], *, capturable: bool = False
) -> torch.optim.AdamW:
    groups: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1, shares.get(parameter, 1.0)].append(parameter)
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": torch.tensor(rate, device=parameters[0].device) if capturable else rate,
            "rate": rate,
            "weight_decay": config.weight_decay if is_matrix else 0.0,
        }
        for (is_matrix, share), parameters in groups.items()
        for rate in [config.learning_rate * share]
    ]
    tables = [module for module in model.modules() if isinstance(module, RowTable) and module.by_rows]
    if tables:
        return RowAdamW(described, tables, capturable=capturable)
    return torch.optim.AdamW(described, fused=True, capturable=capturable)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _exhausted(records: list[dict[str, Any]], patience: int) -> bool:
    scores = [record[TARGET] for record in records if TARGET in record]
    # Of zeros alone none is the best: there is nothing to lose patience over.
    return any(scores) and len(scores) - 1 - scores.index(max(scores)) >= patience
