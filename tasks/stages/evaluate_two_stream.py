"""Stage `evaluate_two_stream`: two generators over two code tables, fused late."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.pipeline import up_to
from prorec.tasks.tracking.metrics import measured
from prorec_core.stages.inputs import read_dataset, read_new_quantized, read_quantized, read_texts

if TYPE_CHECKING:
    from prorec_core.generation.base import Generator

SIDES = ("first", "second")
"""What tells the two pipelines apart in the names of what is read."""
STREAM = tuple(stage.name for stage in up_to("train_generator") if stage.name != "preprocess")
"""The stages of a pipeline that its generator is made of."""


@stage(
    "evaluate_two_stream",
    reads=("preprocess", *(f"{name}@{side}" for side in SIDES for name in STREAM)),
    config=("evaluate", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars"),
)
def evaluate_two_stream(work: Work) -> dict[str, float]:
    """Let both generators judge what either found, by a weight and by a light ranker, and measure both.

    The ranker reads the texts of the first stream.
    """
    from prorec_core.data.sequences import Split
    from prorec_core.evaluation.reranking import Find, find_all, own_and_ranked, relations_of
    from prorec_core.evaluation.stage import evaluate as run
    from prorec_core.generation.choice import choose_weight, weights_of_others
    from prorec_core.generation.late_fusion import joint_candidates
    from prorec_core.generation.relations import near_of

    config, dataset, runtime = work.experiment.evaluate, read_dataset(work), work.runtime()
    texts_NT = read_texts(work.inputs[f"embed_text@{SIDES[0]}"])
    relations = relations_of(dataset, texts_NT)

    def find_of(first: Generator, second: Generator) -> Find:
        return lambda histories: joint_candidates(
            first,
            second,
            histories,
            config.beams,
            masked=config.mask_history,
            near=near_of(relations),
            report=runtime.report,
        )

    def with_new() -> Find:
        return find_of(*(_generator(work, side, with_new=True) for side in SIDES))

    found = find_all(dataset, find_of(*(_generator(work, side) for side in SIDES)), with_new)
    asked, owners = dataset.sequences.answerable(Split.VALIDATION), dataset.sequences.owners_of(Split.VALIDATION)
    targets = dataset.sequences.targets(Split.VALIDATION)[asked]
    candidates = found.known[Split.VALIDATION].select(asked)
    weight, trials, folds, _ = choose_weight(candidates, targets, config.fusion_weights, owners[asked])
    inputs = own_and_ranked(
        "two_stream",
        found,
        dataset,
        config,
        work.experiment.seed,
        texts_NT,
        lambda candidates, k: candidates.fused(weight, k),
        relations,
        # Each user by the weight that others chose, as in the generator's own choice.
        lambda candidates, histories, k: candidates.fused(weights_of_others(folds, histories.owners), k),
        runtime.report,
    )
    result = run(replace(inputs, fusion_weight=weight, fusion_trials=trials), runtime.report)
    result.save(work.folder)
    return {"fusion_weight": weight, **measured(result.metrics)}


def _generator(work: Work, side: str, *, with_new: bool = False) -> Generator:
    """One of the two, with its own codes and the embedding that they were made of, of the new items too if asked."""
    import numpy as np

    from prorec_core.artifacts import MANIFEST, read_json
    from prorec_core.generation.catalogue import Catalogue
    from prorec_core.generation.trained import TrainedGenerator, restore_generator
    from prorec_core.quantization.quantized import Quantized

    inputs = {name: work.inputs[f"{name}@{side}"] for name in STREAM}
    embedding = read_json(inputs["train_generator"] / MANIFEST)["config"]["quantize.embedding"]
    quantized, vectors = Quantized.load(inputs["quantize"]), read_quantized(embedding, inputs)
    catalogue = Catalogue.of_training(len(vectors))
    if with_new:
        new = read_new_quantized(embedding, inputs)
        vectors = np.concatenate([vectors, new])
        catalogue = catalogue.with_more(len(new), work.experiment.evaluate.new_item_bonus)
    return restore_generator(
        TrainedGenerator.load(inputs["train_generator"]),
        (quantized.all_items() if with_new else quantized.table).codes,
        vectors,
        work.runtime().device,
        catalogue,
    )
