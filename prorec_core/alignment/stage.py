"""Stage align: next-item prediction over the integrated embedding, jointly with alignment of the modalities.

Knows sequences and embeddings; knows nothing of codes. `L_1 = L_seq + α · L_align`. Axes: N items, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.alignment.adapter import scaled_text
from prorec_core.alignment.graph import ItemGraph
from prorec_core.alignment.model import StageOne
from prorec_core.alignment.placing import place
from prorec_core.alignment.trained import AlignedModel
from prorec_core.config import AlignConfig
from prorec_core.data.sequences import Sequences
from prorec_core.metrics.domination import domination
from prorec_core.sequential.base import target_ranks
from prorec_core.sequential.start import Start, carried, load_weights
from prorec_core.sequential.trained import CollaborativeModel, Floats
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.loop import fit_next_item, validation_targets
from prorec_core.training.losses import info_nce
from prorec_core.training.runtime import Runtime, derive_seed
from prorec_core.training.sampling import met_in, padded_unique


def align(
    config: AlignConfig,
    sequences: Sequences,
    start: CollaborativeModel,
    semantic: Floats,
    seed: int,
    runtime: Runtime,
    *,
    mask_history: bool = True,
    new_semantic: Floats | None = None,
    base: Start[AlignedModel] | None = None,
    sources: Mapping[str, int] | None = None,
) -> AlignedModel:
    """Train Stage I.

    In a catalogue over `full_softmax_items` of `start`'s configuration a step makes the embeddings of those items alone
    that it meets: its batch's and the sampled ones, each with its `graph_neighbours` strongest neighbours.

    Args:
        config: fusion, weight of the alignment and training.
        sequences: all users' items; what they hold back from training is held back here.
        start: the collaborative stage's model, whose shape is taken over, and where training starts (config.start).
        semantic: E_S, text embeddings, float32, shape (N, S).
        seed: of the experiment.
        runtime: device, progress, checkpoints and workers.
        mask_history: whether validation leaves out what a user already has.
        new_semantic: text embeddings of new items, float32, shape (M, S), which get embeddings once all is trained.
        sources: where E_S is made of several, the dimensions of each by its name, in their order.
        base: what an earlier alignment left, from which this one goes on; config.start does not count then.

    Raises:
        UserError: what is gone on from is of another shape.
    """
    torch.manual_seed(derive_seed(seed, "align", "start"))
    by_rows, workers = sequences.n_items > start.config.full_softmax_items, runtime.workers
    strongest = config.graph_neighbours if by_rows else None
    graph = ItemGraph(sequences.training(), config.graph, strongest, config.graph_window) if config.graph else None
    low = runtime.low_precision(config.precision)
    stage = StageOne(config, start.config, scaled_text(semantic), graph, low, by_rows=by_rows, workers=workers)
    if base is not None:
        _go_on_from(stage, base, sequences.training())
    else:
        if config.start == "collaborative":
            _start_from(stage, start)
        if config.start_norm is not None:
            _stretch(stage.items.weight, config.start_norm)
    stage.to(runtime.device)
    told_N = torch.from_numpy(semantic.any(axis=1)).to(runtime.device)
    # A zero row says nothing of its item: it is near to none, and where E_T is zero a cosine has no slope.
    has_text = None if told_N.all() else told_N

    def losses(batch: HistoryBatch) -> Mapping[str, Tensor]:
        met = None
        if by_rows:
            with workers.in_common():
                met, batch = met_in(batch, sequences.n_items, start.config.negatives)
        integrated, ids, adapted = stage.embeddings() if met is None else stage.embeddings_of(met)
        own, share = workers.part(batch)
        next_item = share * stage.model.training_loss(integrated, own, met)
        if config.alpha == 0:
            return {"loss": next_item}
        with workers.in_common():
            items, real = _distinct_items(batch, config.align_items)
            if has_text is not None:
                told = has_text[items if met is None else met.items_R[items]]
                real = told if real is None else real & told
        # Each item is held against all others of the batch, whoever has their users: every worker has all of it.
        between = info_nce(F.embedding(items, ids), F.embedding(items, adapted), config.temperature, real)
        between = between / workers.count
        return {
            "loss": next_item + config.alpha * between,
            "loss_next_item": next_item,
            "loss_align": between,
        }

    records = fit_next_item(
        stage,
        losses,
        lambda histories, targets: target_ranks(
            stage.model, stage.embeddings()[0], histories, targets, config.max_history, masked=mask_history
        ),
        sequences,
        config,
        derive_seed(seed, "align"),
        runtime,
        asked=validation_targets(sequences, config.validation_users, derive_seed(seed, "align", "validation")),
    )
    with torch.no_grad():
        integrated, ids, adapted = (_array(table) for table in stage.embeddings())
    return AlignedModel(
        integrated,
        ids,
        adapted,
        dict(stage.model.state_dict()),
        domination(integrated, semantic, start.embeddings, sources=_parts(semantic, sources or {})),
        records,
        config,
        start.config,
        dict(stage.adapter.state_dict()),
        None if new_semantic is None else place(stage.adapter, config, integrated, semantic, new_semantic),
    )


def _distinct_items(batch: HistoryBatch, most: int) -> tuple[Tensor, Tensor | None]:
    """At most so many different items of a batch, drawn evenly, and which of them are any, bool; None: all are."""
    if not batch.fixed:
        items = torch.unique(batch.items_BL[batch.is_item_BL])
        if len(items) > most:
            items = items[torch.randperm(len(items), device=items.device)[:most]]
        return items, None
    beyond = torch.iinfo(torch.int64).max
    items_M, _, count = padded_unique(batch.items_BL.masked_fill(~batch.is_item_BL, beyond))
    real_M = (torch.arange(len(items_M), device=items_M.device) < count) & (items_M < beyond)
    chosen = torch.rand(len(items_M), device=items_M.device).masked_fill(~real_M, 2).argsort()[:most]
    return items_M[chosen].masked_fill(~real_M[chosen], 0), real_M[chosen]


def _parts(semantic: Floats, widths: Mapping[str, int]) -> dict[str, Floats]:
    """E_S cut into what it is made of."""
    ends = np.cumsum(list(widths.values()), dtype=np.int64)
    return {name: semantic[:, end - widths[name] : end] for name, end in zip(widths, ends.tolist(), strict=True)}


def _start_from(stage: StageOne, start: CollaborativeModel) -> None:
    """Take over the collaborative stage's item vectors, and its model as far as the shapes agree.

    Of the positions of histories of another length those are taken over that both have.
    """
    with torch.no_grad():
        stage.items.weight.copy_(torch.from_numpy(start.embeddings))
        own = stage.model.state_dict()
        for name, value in start.tensors.items():
            if own[name].shape == value.shape:
                own[name].copy_(value)
            elif name.endswith("positions") and own[name].shape[1:] == value.shape[1:]:
                own[name][: len(value)].copy_(value[: len(own[name])])


def _stretch(collaborative_ND: Tensor, norm: float) -> None:
    """Give E_C such a mean norm, in parts of √D, which is about that of an adapted text where training starts."""
    with torch.no_grad():
        mean = collaborative_ND.norm(dim=1).mean().clamp_min(1e-12)
        collaborative_ND.mul_(norm * math.sqrt(collaborative_ND.shape[1]) / mean)


def _go_on_from(stage: StageOne, base: Start[AlignedModel], training: Sequences) -> None:
    """Take over an earlier alignment's adapter and model, and E_C of the items that it had."""
    load_weights(stage.adapter, base.model.adapter, "align")
    load_weights(stage.model, base.model.tensors, "align")
    with torch.no_grad():
        stage.items.weight.copy_(torch.from_numpy(carried(base.model.collaborative, base.rows_N, training)))


def _array(table: Tensor) -> Floats:
    return np.ascontiguousarray(table.detach().cpu().float().numpy())
