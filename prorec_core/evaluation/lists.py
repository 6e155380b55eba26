"""The lists that are measured: every scorer's recommendations for the validation and the test split.

Knows models and histories; knows nothing of metrics or files. Axes: U users, K items of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from prorec_core.alignment.stage import AlignedModel
from prorec_core.config import AlignConfig, CollaborativeConfig, EvaluateConfig
from prorec_core.data.sequences import Sequences, Split
from prorec_core.evaluation.ranking import TopItems, padded_histories, top_from_scores
from prorec_core.generation.base import Generator
from prorec_core.generation.candidates import find_candidates
from prorec_core.progress import Report, silent
from prorec_core.sequential.base import INFERENCE_TOKENS, INFERENCE_USERS, SequentialModel
from prorec_core.training.batching import inference_batches


@dataclass(frozen=True)
class Models:
    """What recommends.

    Attributes:
        generator: Stage II, in evaluation mode.
        fusion_weight: weight λ of the dense score, chosen on validation; None where there is none.
        aligned: Stage I's outcome.
        align: Stage I's configuration.
        collaborative: the sequential model's shape.
    """

    generator: Generator
    fusion_weight: float | None
    aligned: AlignedModel
    align: AlignConfig
    collaborative: CollaborativeConfig


def recommend_lists(
    config: EvaluateConfig, models: Models, sequences: Sequences, report: Report = silent
) -> dict[Split, dict[str, TopItems]]:
    """Recommendations of each scorer for every user: generative, dense, fused (of the generator) and aligned.

    Dense and fused are missing where the generator has no dense score.
    """
    device = models.generator.inputs_NE.device
    stage_one, table_NE = models.aligned.sequential_model(models.align, models.collaborative, device)
    found: dict[Split, dict[str, TopItems]] = {}
    for split in (Split.VALIDATION, Split.TEST):
        histories, k = sequences.histories(split), min(config.list_length, sequences.n_items)
        candidates = find_candidates(
            models.generator, histories, config.beams, k, masked=config.mask_history, report=report
        )
        lists = {"generative": TopItems(*candidates.generative(k))}
        if models.fusion_weight is not None:
            lists["dense"] = TopItems(*candidates.dense(k))
            lists["fused"] = TopItems(*candidates.fused(models.fusion_weight, k))
        lists["aligned"] = dense_lists(
            stage_one, table_NE, histories, k, models.align.max_history, masked=config.mask_history
        )
        found[split] = lists
    return found


def sequential_lists(
    scorer: str,
    model: SequentialModel,
    table_NE: torch.Tensor,
    sequences: Sequences,
    config: EvaluateConfig,
    max_history: int,
) -> dict[Split, dict[str, TopItems]]:
    """Recommendations of a sequential model alone for every user, under the name `scorer`."""
    k = min(config.list_length, sequences.n_items)
    return {
        split: {
            scorer: dense_lists(model, table_NE, sequences.histories(split), k, max_history, masked=config.mask_history)
        }
        for split in (Split.VALIDATION, Split.TEST)
    }


@torch.no_grad()
def dense_lists(
    model: SequentialModel, table_NE: torch.Tensor, histories: Sequences, k: int, max_history: int, *, masked: bool
) -> TopItems:
    """A sequential model's k best items of the whole catalogue for every user."""
    items = np.full((histories.n_users, k), -1, np.int32)
    scores = np.full((histories.n_users, k), -np.inf, np.float32)
    scorer = model.scorer(table_NE)
    for batch in inference_batches(histories, max_history, INFERENCE_TOKENS, INFERENCE_USERS, table_NE.device):
        users = batch.users_B.cpu().numpy()
        forbidden = torch.from_numpy(padded_histories(histories.select(users))) if masked else None
        top = top_from_scores(scorer(batch), k, None if forbidden is None else forbidden.to(table_NE.device))
        items[users], scores[users] = top.items_UK, top.scores_UK
    return TopItems(items, scores)
