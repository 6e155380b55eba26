"""Stage `evaluate_collaborative`: the sequential model that knows items by their ids, as a recommender of its own."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import read_dataset
from prorec.tasks.tracking.metrics import measured


@stage(
    "evaluate_collaborative",
    reads=("preprocess", "train_collaborative"),
    config=("evaluate", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars"),
)
def evaluate_collaborative(work: Work) -> dict[str, float]:
    """Rank the whole catalogue by the collaborative model, and its best items by a light ranker, and measure both."""
    from prorec_core.evaluation.inputs import EvaluationInputs
    from prorec_core.evaluation.lists import sequential_lists
    from prorec_core.evaluation.reranking import as_candidates, own_and_ranked, with_long_lists
    from prorec_core.evaluation.stage import evaluate as run
    from prorec_core.generation.candidates import Candidates
    from prorec_core.sequential.trained import CollaborativeModel

    experiment, runtime = work.experiment, work.runtime()
    config, dataset = experiment.evaluate, read_dataset(work)
    trained = CollaborativeModel.load(work.inputs["train_collaborative"])
    model, table = trained.sequential_model(runtime.device)
    found = sequential_lists(
        "collaborative", model, table, dataset.sequences, with_long_lists(config), trained.max_history
    )
    both = own_and_ranked(
        "collaborative",
        Candidates.dense,
        {split: as_candidates(each["collaborative"]) for split, each in found.items()},
        dataset,
        None,  # ids alone, for the ranker too
        config,
    )
    inputs = EvaluationInputs(
        config,
        dataset,
        both.lists,
        None,
        seed=experiment.seed,
        ranker=both.ranker,
        recommended=both.recommended,
    )
    result = run(inputs, runtime.report)
    result.save(work.folder)
    return measured(result.metrics)
