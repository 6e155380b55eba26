"""Stage `evaluate_collaborative`: the sequential model that knows items by their ids, as a recommender of its own."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.tracking.metrics import measured
from prorec_core.stages.inputs import read_dataset


@stage(
    "evaluate_collaborative",
    reads=("preprocess", "train_collaborative"),
    config=("evaluate", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars"),
)
def evaluate_collaborative(work: Work) -> dict[str, float]:
    """Rank the whole catalogue by the collaborative model, and its best items by a light ranker, and measure both."""
    from prorec_core.evaluation.reranking import find_all, own_and_ranked, relations_of, sequential_find
    from prorec_core.evaluation.stage import evaluate as run
    from prorec_core.sequential.trained import CollaborativeModel

    config, dataset, runtime = work.experiment.evaluate, read_dataset(work), work.runtime()
    trained = CollaborativeModel.load(work.inputs["train_collaborative"])
    relations = relations_of(dataset, None)
    model, table_NE = trained.sequential_model(runtime.device)
    find = sequential_find(model, table_NE, trained.max_history, config, relations=relations, report=runtime.report)
    found = find_all(dataset, find)
    inputs = own_and_ranked(
        "collaborative", found, dataset, config, work.experiment.seed, relations=relations, report=runtime.report
    )
    result = run(inputs, runtime.report)
    result.save(work.folder)
    return measured(result.metrics)
