"""Stage `evaluate_two_stream`: two generators over two code tables, fused late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.inputs import read_dataset, read_quantized
from tasks.metrics import numbers
from tasks.stage import Work, stage

if TYPE_CHECKING:
    from prorec_core.generation.base import Generator

SIDES = ("first", "second")
"""What tells the two pipelines apart in the names of what is read."""
STREAM = ("embed_text", "train_collaborative", "align", "quantize", "train_generator")
"""The stages of a pipeline that its generator is made of."""


@stage("evaluate_two_stream", reads=("preprocess", *(f"{name}@{side}" for side in SIDES for name in STREAM)))
def evaluate_two_stream(work: Work) -> dict[str, float]:
    """Let both generators judge the union of what they found, their weight chosen on validation, and measure."""
    from prorec_core.data.sequences import Split
    from prorec_core.errors import UserError
    from prorec_core.evaluation.inputs import EvaluationInputs
    from prorec_core.evaluation.ranking import TopItems
    from prorec_core.evaluation.stage import evaluate as run
    from prorec_core.generation.late_fusion import joint_candidates
    from prorec_core.generation.stage import fusion_trials

    config, dataset, runtime = work.experiment.evaluate, read_dataset(work), work.runtime()
    sequences, length = dataset.sequences, min(config.list_length, dataset.sequences.n_items)
    first, second = (_generator(work, side) for side in SIDES)
    try:
        found = {
            split: joint_candidates(
                first,
                second,
                sequences.histories(split),
                config.beams,
                masked=config.mask_history,
                report=runtime.report,
            )
            for split in (Split.VALIDATION, Split.TEST)
        }
    except ValueError as error:
        raise UserError(str(error), place="two_stream", cure="Give both streams one generator.max_history") from error
    trials = fusion_trials(found[Split.VALIDATION], sequences.targets(Split.VALIDATION), config.fusion_weights)
    weight = max(trials, key=lambda trial: trial[1])[0]
    inputs = EvaluationInputs(
        config,
        dataset,
        {split: {"two_stream": TopItems(*each.fused(weight, length))} for split, each in found.items()},
        weight,
        seed=work.experiment.seed,
        name="two_stream",
        fusion_trials=trials,
    )
    result = run(inputs, runtime.report)
    result.save(work.folder)
    return {"fusion_weight": weight, **numbers({split: result.metrics[split] for split in ("test", "validation")})}


def _generator(work: Work, side: str) -> Generator:
    """One of the two, with its own codes and the embedding that they were made of."""
    from prorec_core.artifacts import MANIFEST, read_json
    from prorec_core.generation.stage import TrainedGenerator, restore_generator
    from prorec_core.quantization.stage import Quantized

    inputs = {name: work.inputs[f"{name}@{side}"] for name in STREAM}
    made_with = read_json(inputs["train_generator"] / MANIFEST)["config"]
    return restore_generator(
        TrainedGenerator.load(inputs["train_generator"]),
        Quantized.load(inputs["quantize"]).table.codes,
        read_quantized(made_with["quantize.embedding"], inputs),
        work.runtime().device,
    )
