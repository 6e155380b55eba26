"""The lists that are measured: every scorer's recommendations for the validation and the test split.

Knows models and histories; knows nothing of metrics or files. Axes: U users, K items of a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from prorec_core.alignment.trained import AlignedModel
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.base import Generator
from prorec_core.generation.candidates import DENSE_CANDIDATES, find_candidates
from prorec_core.generation.choice import weights_of_others
from prorec_core.generation.ranker import Ranker
from prorec_core.generation.relations import near_of
from prorec_core.generation.similar import BESIDE_CANDIDATES, Near, found_beside
from prorec_core.metrics.top import TopItems, latest_items, padded_histories, top_from_scores
from prorec_core.progress import Progress, Report, silent
from prorec_core.sequential.base import INFERENCE_TOKENS, SequentialModel, users_at_a_time
from prorec_core.training.batching import at_a_time, inference_batches

USERS_AT_ONCE = 50_000
"""Users whose candidates are held at a time."""


@dataclass(frozen=True)
class Models:
    """What recommends.

    Attributes:
        generator: Stage II, in evaluation mode.
        fusion_weight: weight λ of the dense score, chosen on validation; None where there is none.
        ranker: fitted on validation; None where there is none.
        aligned: Stage I's outcome.
        fusion_folds: by fold of the validation users the λ that the others chose; none where nothing was chosen.
    """

    generator: Generator
    fusion_weight: float | None
    ranker: Ranker | None
    aligned: AlignedModel
    fusion_folds: Sequence[float] = ()


def lists_after(
    config: EvaluateConfig, models: Models, histories: Sequences, report: Report = silent, *, held_out: bool = False
) -> dict[str, TopItems]:
    """Each scorer's recommendations after some histories: generative, dense, fused, ranked (of the generator), aligned.

    Dense and fused are missing where the generator has no dense score, ranked where no ranker was fitted.

    Args:
        held_out: the histories are those that λ was chosen and the ranker fitted on: each user's list is fused and
            ranked by what was chosen without that user.
    """
    parts, done = [], 0
    for part in parts_of(histories):

        def told(progress: Progress, before: int = done) -> None:
            report(replace(progress, step=before + progress.step, total=histories.n_users))

        parts.append(_lists_after(config, models, part, told, held_out=held_out))
        done += part.n_users
    return joined(parts)


def parts_of(histories: Sequences) -> Iterator[Sequences]:
    """Histories in parts of so many that their candidates can be held; one at least.

    Which of them are in a part together decides the last bits of their scores, wherever these are made.
    """
    if not more_than_a_part(histories):
        yield histories
        return
    owned = histories.owned()
    for start in range(0, histories.n_users, USERS_AT_ONCE):
        yield owned.select(np.arange(start, min(start + USERS_AT_ONCE, histories.n_users)))


def more_than_a_part(histories: Sequences) -> bool:
    """Whether there are users for more than one part."""
    return histories.n_users > USERS_AT_ONCE


def joined(parts: list[dict[str, TopItems]]) -> dict[str, TopItems]:
    """The lists of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    return {
        scorer: TopItems(
            np.concatenate([part[scorer].items_UK for part in parts]),
            np.concatenate([part[scorer].scores_UK for part in parts]),
        )
        for scorer in parts[0]
    }


def _lists_after(
    config: EvaluateConfig, models: Models, histories: Sequences, report: Report, *, held_out: bool
) -> dict[str, TopItems]:
    device = models.generator.inputs_NE.device
    k = min(config.list_length, histories.n_items)
    candidates = find_candidates(
        models.generator,
        histories,
        config.beams,
        max(DENSE_CANDIDATES, k),
        masked=config.mask_history,
        near=None if models.ranker is None else near_of(models.ranker.relations),
        report=report,
    )
    lists = {"generative": TopItems(*candidates.generative(k))}
    if models.fusion_weight is not None:
        lists["dense"] = TopItems(*candidates.dense(k))
        weight: float | npt.NDArray[np.float32] = models.fusion_weight
        if held_out and models.fusion_folds:
            weight = weights_of_others(models.fusion_folds, histories.owners)
        lists["fused"] = TopItems(*candidates.fused(weight, k))
    if models.ranker is not None:
        rank = models.ranker.rank_held_out if held_out else models.ranker.rank
        lists["ranked"] = TopItems(*rank(candidates, histories, k))
    if models.generator.stage_one is not None and "dense" in lists:
        return {**lists, "aligned": lists["dense"]}
    stage_one, table_NE = models.aligned.sequential_model(device)
    lists["aligned"] = dense_lists(
        stage_one,
        table_NE,
        histories,
        k,
        models.aligned.max_history,
        masked=config.mask_history,
        offsets_N=models.generator.item_offsets,
        report=report,
    )
    return lists


def new_item_offsets(config: EvaluateConfig, dataset: Dataset, device: torch.device) -> torch.Tensor | None:
    """What is added to the score of each item, new ones after the others, in nats, shape (N,); None for nothing."""
    if not config.new_item_bonus:
        return None
    offsets_N = torch.zeros(dataset.n_items_with_new, device=device)
    offsets_N[dataset.items.height :] = config.new_item_bonus
    return offsets_N


@torch.no_grad()
def dense_lists(
    model: SequentialModel,
    table_NE: torch.Tensor,
    histories: Sequences,
    k: int,
    max_history: int,
    *,
    masked: bool,
    offsets_N: torch.Tensor | None = None,
    own: int = 0,
    near: Near | None = None,
    report: Report = silent,
) -> TopItems:
    """A sequential model's k best items of the whole catalogue for every user, with each item's offset added.

    Args:
        model: in evaluation mode.
        table_NE: the item vectors that it scores.
        histories: users' items.
        k: items a list.
        max_history: items of a history that the model reads.
        masked: leave out what a user has.
        offsets_N: added to the scores.
        own: so many of a user's latest different items stand in the list too, which is that much longer.
        near: and so do BESIDE_CANDIDATES of those that this knows.
        report: told of every batch, in users.
    """
    width = k + own + (BESIDE_CANDIDATES if near else 0)
    items = np.full((histories.n_users, width), -1, np.int32)
    scores = np.full((histories.n_users, width), -np.inf, np.float32)
    scorer = model.scorer(table_NE)
    users_a_batch = users_at_a_time(len(table_NE), table_NE.device)
    tokens, done = at_a_time(INFERENCE_TOKENS, table_NE.device), 0
    for batch in inference_batches(histories, max_history, tokens, users_a_batch, table_NE.device):
        users = batch.users_B.cpu().numpy()
        forbidden = torch.from_numpy(padded_histories(histories.select(users))) if masked else None
        scores_BN = scorer(batch) if offsets_N is None else scorer(batch) + offsets_N
        top = top_from_scores(scores_BN, k, None if forbidden is None else forbidden.to(table_NE.device))
        more_BH = more_items(top.items_UK, histories.select(users), len(table_NE), masked=masked, own=own, near=near)
        if more_BH.size:
            asked = torch.from_numpy(np.maximum(more_BH, 0)).to(scores_BN.device)
            top = with_own(top, more_BH, scores_BN.gather(1, asked).float().cpu().numpy())
        items[users, : top.length], scores[users, : top.length] = top.items_UK, top.scores_UK
        done += len(users)
        report(Progress(done, histories.n_users, "user"))
    return TopItems(items, scores)


def more_items(
    listed_BK: IntArray, histories: Sequences, n_items: int, *, masked: bool, own: int, near: Near | None
) -> npt.NDArray[np.int64]:
    """What a ranker looks at beside a list, shape (B, H), -1 standing for none: a user's own latest, and what is near.

    Args:
        listed_BK: the list.
        histories: whose.
        n_items: of the catalogue.
        masked: what users have stays out.
        own: so many of a user's latest different items, at most.
        near: what is known of them; BESIDE_CANDIDATES that are not in the list or the user's own.
    """
    more: list[npt.NDArray[np.integer]] = [latest_items(histories, own)] if own else []
    if near:
        taken = np.hstack([listed_BK, *more, *([padded_histories(histories)] if masked else ())])
        more.append(found_beside(near, histories, n_items, taken))
    return np.hstack([np.zeros((histories.n_users, 0), np.int64), *more]).astype(np.int64)


def with_own(top: TopItems, own_BH: npt.NDArray[np.int64], scores_BH: npt.NDArray[np.float32]) -> TopItems:
    """Lists and some items of each user that they lack, -1 standing for none, all by their scores."""
    known = (own_BH[:, :, None] == top.items_UK[:, None, :]).any(-1) | (own_BH < 0)
    own_scores = np.where(known, -np.inf, scores_BH).astype(np.float32)
    items = np.hstack([top.items_UK, np.where(known, -1, own_BH).astype(np.int32)])
    scores = np.hstack([top.scores_UK, own_scores])
    order = np.argsort(-scores, axis=1, kind="stable")
    return TopItems(np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1))
