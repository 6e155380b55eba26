"""Stage `evaluate_aligned`: Stage I's model over the integrated embedding, as a recommender of its own."""

from __future__ import annotations

from tasks.inputs import read_dataset
from tasks.metrics import measured
from tasks.stage import Work, stage


@stage("evaluate_aligned", reads=("preprocess", "align"))
def evaluate_aligned(work: Work) -> dict[str, float]:
    """Rank the whole catalogue by the aligned model, and measure."""
    from prorec_core.alignment.stage import AlignedModel
    from prorec_core.evaluation.inputs import EvaluationInputs
    from prorec_core.evaluation.lists import new_sequential_lists, sequential_lists
    from prorec_core.evaluation.stage import evaluate as run

    experiment, runtime = work.experiment, work.runtime()
    config, dataset = experiment.evaluate, read_dataset(work)
    aligned = AlignedModel.load(work.inputs["align"])
    model, table = aligned.sequential_model(experiment.align, experiment.collaborative, runtime.device)
    new, longest = None, experiment.align.max_history
    if dataset.cold is not None:
        grown = aligned.with_new().sequential_model(experiment.align, experiment.collaborative, runtime.device)
        new = new_sequential_lists("aligned", *grown, dataset, config, longest)
    inputs = EvaluationInputs(
        config,
        dataset,
        sequential_lists("aligned", model, table, dataset.sequences, config, longest),
        None,
        seed=experiment.seed,
        name="aligned",
        training={"align": aligned.training},
        domination=aligned.domination,
        new=new,
    )
    result = run(inputs, runtime.report)
    result.save(work.folder)
    return measured(result.metrics)
