"""Stage train_collaborative: item embeddings from behaviour alone. Knows sequences; knows nothing of texts.

Axes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig
from prorec_core.data.sequences import Sequences
from prorec_core.sequential.base import ITEM_DEVIATION, SequentialModel, target_ranks
from prorec_core.sequential.start import Start, carried, load_weights
from prorec_core.sequential.trained import CollaborativeModel, build_model
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.loop import fit_next_item, validation_targets
from prorec_core.training.rows import RowTable
from prorec_core.training.runtime import Runtime, derive_seed
from prorec_core.training.sampling import met_in


class _IdsAlone(nn.Module):
    """A sequential model with a free vector an item."""

    def __init__(self, model: SequentialModel, n_items: int, dim: int, *, by_rows: bool) -> None:
        super().__init__()
        self.model = model
        self.items = RowTable(torch.randn(n_items, dim) * ITEM_DEVIATION, by_rows=by_rows)


def train_collaborative(
    config: CollaborativeConfig,
    sequences: Sequences,
    seed: int,
    runtime: Runtime,
    *,
    mask_history: bool = True,
    start: Start[CollaborativeModel] | None = None,
) -> CollaborativeModel:
    """Train DIN or SASRec on next-item prediction over item ids.

    In a catalogue over `full_softmax_items` a step meets the items of its batch and `negatives` sampled ones alone.

    Args:
        config: the model and its training.
        sequences: all users' items; what they hold back from training is held back here.
        seed: of the experiment.
        runtime: device, progress, checkpoints and workers.
        mask_history: whether validation leaves out what a user already has.
        start: what is gone on from; None: training begins anew.

    Raises:
        UserError: what is gone on from is of another shape.
    """
    torch.manual_seed(derive_seed(seed, "collaborative", "start"))
    model = build_model(config, config, config.dim, runtime.low_precision(config.precision))
    by_rows = sequences.n_items > config.full_softmax_items
    whole = _IdsAlone(model, sequences.n_items, config.dim, by_rows=by_rows)
    if start is not None:
        load_weights(model, start.model.tensors, "collaborative")
        with torch.no_grad():
            table = carried(start.model.embeddings, start.rows_N, sequences.training())
            whole.items.weight.copy_(torch.from_numpy(table))
    whole.to(runtime.device)

    workers = runtime.workers

    def losses(batch: HistoryBatch) -> Mapping[str, Tensor]:
        met = None
        if by_rows:
            with workers.in_common():
                met, batch = met_in(batch, sequences.n_items, config.negatives)
        table = whole.items.weight if met is None else whole.items(met.items_R)
        own, share = workers.part(batch)
        return {"loss": share * model.training_loss(table, own, met)}

    records = fit_next_item(
        whole,
        losses,
        lambda histories, targets: target_ranks(
            model, whole.items.weight, histories, targets, config.max_history, masked=mask_history
        ),
        sequences,
        config,
        derive_seed(seed, "collaborative"),
        runtime,
        asked=validation_targets(sequences, config.validation_users, derive_seed(seed, "collaborative", "validation")),
    )
    embeddings = whole.items.weight.detach().cpu().float().numpy()
    return CollaborativeModel(embeddings, dict(model.state_dict()), records, config)
