"""Stage `evaluate_aligned`: Stage I's model over the integrated embedding, as a recommender of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.tracking.metrics import measured
from prorec_core.stages.inputs import read_dataset, texts

if TYPE_CHECKING:
    from torch import Tensor


@stage(
    "evaluate_aligned",
    reads=("preprocess", "embed_text", "align"),
    config=("evaluate", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars"),
)
def evaluate_aligned(work: Work) -> dict[str, float]:
    """Rank the whole catalogue by the aligned model, and its best items by a light ranker, and measure both."""
    from prorec_core.alignment.trained import AlignedModel
    from prorec_core.evaluation.lists import new_item_offsets
    from prorec_core.evaluation.reranking import Find, find_all, own_and_ranked, relations_of, sequential_find
    from prorec_core.evaluation.stage import evaluate as run

    config, dataset, runtime = work.experiment.evaluate, read_dataset(work), work.runtime()
    aligned, texts_NT = AlignedModel.load(work.inputs["align"]), texts(work)
    relations = relations_of(dataset, texts_NT)

    def find_of(aligned: AlignedModel, offsets_N: Tensor | None = None) -> Find:
        model, table_NE = aligned.sequential_model(runtime.device)
        return sequential_find(model, table_NE, aligned.max_history, config, offsets_N, relations, runtime.report)

    found = find_all(
        dataset,
        find_of(aligned),
        lambda: find_of(aligned.with_new(), new_item_offsets(config, dataset, runtime.device)),
    )
    inputs = own_and_ranked(
        *("aligned", found, dataset, config, work.experiment.seed, texts_NT),
        relations=relations,
        report=runtime.report,
    )
    result = run(inputs, runtime.report)
    result.save(work.folder)
    return measured(result.metrics)
