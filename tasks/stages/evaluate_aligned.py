"""Stage `evaluate_aligned`: Stage I's model over the integrated embedding, as a recommender of its own."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import read_dataset, texts
from prorec.tasks.tracking.metrics import measured


@stage(
    "evaluate_aligned",
    reads=("preprocess", "embed_text", "align"),
    config=("evaluate", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars"),
)
def evaluate_aligned(work: Work) -> dict[str, float]:
    """Rank the whole catalogue by the aligned model, and its best items by a light ranker, and measure both."""
    from prorec_core.alignment.trained import AlignedModel
    from prorec_core.evaluation.inputs import EvaluationInputs
    from prorec_core.evaluation.lists import new_sequential_lists, sequential_lists
    from prorec_core.evaluation.reranking import as_candidates, own_and_ranked, with_long_lists
    from prorec_core.evaluation.stage import evaluate as run
    from prorec_core.generation.candidates import Candidates

    experiment, runtime = work.experiment, work.runtime()
    config, dataset, aligned = experiment.evaluate, read_dataset(work), AlignedModel.load(work.inputs["align"])
    wide, longest = with_long_lists(config), aligned.max_history
    model, table = aligned.sequential_model(runtime.device)
    found = sequential_lists("aligned", model, table, dataset.sequences, wide, longest)
    new = None
    if dataset.cold is not None:
        grown = aligned.with_new().sequential_model(runtime.device)
        of_new = new_sequential_lists("aligned", *grown, dataset, wide, longest)
        new = as_candidates(of_new.known["aligned"]), as_candidates(of_new.new["aligned"])
    both = own_and_ranked(
        "aligned",
        Candidates.dense,
        {split: as_candidates(each["aligned"]) for split, each in found.items()},
        dataset,
        texts(work),
        config,
        new,
    )
    inputs = EvaluationInputs(
        config,
        dataset,
        both.lists,
        None,
        seed=experiment.seed,
        new=both.new,
        ranker=both.ranker,
        recommended=both.recommended,
    )
    result = run(inputs, runtime.report)
    result.save(work.folder)
    return measured(result.metrics)
