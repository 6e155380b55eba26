"""Stage train_generator: Stage II of the method, from codes and embeddings to a model that recommends.

Knows sequences, codes and embeddings; knows nothing of where they are kept. Axes: N items, E dimensions of the
quantized embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prorec_core.alignment.trained import AlignedModel
from prorec_core.config import GeneratorConfig
from prorec_core.data.sequences import Sequences, Split
from prorec_core.errors import UserError
from prorec_core.generation.base import Generator, Items
from prorec_core.generation.candidates import DENSE_CANDIDATES, find_candidates
from prorec_core.generation.choice import choose
from prorec_core.generation.objective import Objective, SoftTeacher, all_targets, some_targets
from prorec_core.generation.ranker import Relations
from prorec_core.generation.trained import RANKER, TEACHER, TrainedGenerator, build_generator
from prorec_core.generation.trie import CodeTrie
from prorec_core.metrics.top import rank_of_target
from prorec_core.registry import SEQUENTIAL_MODELS
from prorec_core.sequential.base import StateModel, validation_measures
from prorec_core.sequential.trained import Floats
from prorec_core.training.batching import HistoryBatch, training_batches
from prorec_core.training.loop import train
from prorec_core.training.runtime import Runtime, derive_seed


@dataclass(frozen=True)
class GeneratorInputs:
    """What the stage reads.

    Attributes:
        config: the generator.
        fusion_weights: weights λ of the dense score to choose from.
        beams: beams with which the choice is made.
        mask_history: whether validation leaves out what a user already has, as evaluation does.
        sequences: all users' items; what they hold back from training is held back here, validation items used for
            choices only.
        codes: the code table, uint16, shape (N, levels).
        codebooks: mean embedding of each code of a level, shape (K, E), None where a level has none.
        embeddings: the embedding that was quantized, float32, shape (N, E).
        integrated: whether that is the integrated embedding; only then is Stage I's model used.
        aligned: Stage I's outcome.
        texts: text embeddings E_S, float32, shape (N, text dimensions); new items stand after the others.
    """

    config: GeneratorConfig
    fusion_weights: list[float]
    beams: int
    mask_history: bool
    sequences: Sequences
    codes: np.ndarray[Any, np.dtype[np.uint16]]
    codebooks: list[Floats | None]
    embeddings: Floats
    integrated: bool
    aligned: AlignedModel
    texts: Floats


def train_generator(inputs: GeneratorInputs, seed: int, runtime: Runtime) -> TrainedGenerator:
    """Train the generator; then choose the fusion weight and fit the ranker on validation, or take those given.

    Args:
        inputs: configuration, sequences, codes and embeddings.
        seed: of the experiment.
        runtime: device, progress and checkpoints.

    Raises:
        UserError: two items share a tuple of codes, the Stage-I teacher cannot read histories as long as the
            generator's, or the loss is no longer a number.
    """
    config, sequences = inputs.config, inputs.sequences
    torch.manual_seed(derive_seed(seed, "generator", "start"))
    low = runtime.low_precision(config.precision)
    trie = CodeTrie.from_codes(inputs.codes)
    items = Items(
        trie,
        torch.from_numpy(inputs.embeddings),
        _teachers(inputs),
        [None if book is None else torch.from_numpy(book) for book in inputs.codebooks],
    )
    generator = build_generator(config, items, low)
    stage_one = inputs.aligned.sequential_model(runtime.device)
    slow = _warm_start(generator, inputs)
    if _attaches_stage_one(inputs):
        generator.attach_stage_one(stage_one[0])
    generator.to(runtime.device)
    generator.trie = trie.to(runtime.device)
    teacher = None
    if config.distill.soft_targets > 0 and inputs.integrated and isinstance(stage_one[0], StateModel):
        _check_histories(inputs)
        teacher = SoftTeacher(stage_one[0], stage_one[1], generator)
    objective = Objective(generator, teacher)
    training, histories = sequences.training(), sequences.histories(Split.VALIDATION)
    users = _sample(sequences.n_users, config.validation_users, derive_seed(seed, "generator", "validation"))
    sampled, targets = histories.select(users), sequences.targets(Split.VALIDATION)

    def losses(batch: HistoryBatch) -> Mapping[str, Tensor]:
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=low):
            every = config.architecture == "timeline"
            return objective(batch, all_targets(batch) if every else some_targets(batch, config.targets_per_user))

    def validate() -> Mapping[str, float]:
        found = find_candidates(
            generator, sampled, config.validation_beams, 10, masked=inputs.mask_history, with_dense=False
        )
        return validation_measures(rank_of_target(found.generative(10)[0], targets[users]))

    records = train(
        generator,
        losses,
        lambda epoch_seed: training_batches(
            training, config.max_history, config.tokens_per_batch, epoch_seed, runtime.device
        ),
        validate if sequences.validates else None,
        config,
        derive_seed(seed, "generator"),
        runtime,
        slow,
        config.warm_start_rate,
    )
    relations = Relations.of(training, inputs.texts) if _ranks(inputs) else None
    choice = choose(
        lambda: find_candidates(
            generator, histories, inputs.beams, DENSE_CANDIDATES, masked=inputs.mask_history, report=runtime.report
        ),
        inputs.fusion_weights if generator.has_dense_score else [],
        relations,
        histories,
        targets,
        config.ranker_weights,
    )
    description = {
        "generator": config.model_dump(mode="json"),
        "stage_one": _shape(inputs) if generator.stage_one is not None else None,
        "teachers": list(generator.teacher_names),
        "beams": inputs.beams,
        **choice,
        "not_applied": list(_not_applied(inputs)),
    }
    # What recommends may know new items besides: their teachers stand after the others.
    with_new = replace(inputs, aligned=inputs.aligned.with_new())
    extra = {} if "integrated" in generator.teacher_names else _teachers(with_new)
    tensors = {**generator.state_dict(), **{f"{TEACHER}{name}": tensor for name, tensor in extra.items()}}
    if relations is not None and choice["ranker"] is not None:
        tensors |= {f"{RANKER}{name}": tensor for name, tensor in relations.tensors().items()}
    return TrainedGenerator(tensors, description, records)


def _teachers(inputs: GeneratorInputs) -> dict[str, Tensor]:
    distill = inputs.config.distill
    if distill.beta == 0:
        return {}
    if distill.teacher == "both" and inputs.integrated:
        return {
            "semantic": torch.from_numpy(inputs.aligned.semantic),
            "collaborative": torch.from_numpy(inputs.aligned.collaborative),
        }
    return {"integrated": torch.from_numpy(inputs.embeddings)}


def _check_histories(inputs: GeneratorInputs) -> None:
    longest, teacher = inputs.config.max_history, inputs.aligned.max_history
    if longest > teacher:
        raise UserError(
            f"histories of {longest} items are longer than the {teacher} that the Stage-I model was trained on",
            place="generator.max_history",
            cure=f"Set generator.max_history to {teacher} or less, raise align.max_history, or set "
            "generator.distill.soft_targets=0",
        )


def _warm_start(generator: Generator, inputs: GeneratorInputs) -> list[torch.nn.Parameter]:
    """Start from Stage I where the configuration asks for it and the shapes agree; returns what is now warm."""
    if inputs.config.warm_start and _fits_stage_one(inputs):
        return generator.warm_start(inputs.aligned.tensors)
    return []


def _attaches_stage_one(inputs: GeneratorInputs) -> bool:
    return inputs.config.dense == "stage_one" and inputs.integrated and _equally_long(inputs)


def _equally_long(inputs: GeneratorInputs) -> bool:
    return inputs.config.max_history == inputs.aligned.max_history


def _shape(inputs: GeneratorInputs) -> dict[str, Any]:
    """What Stage I's model is built from."""
    return {
        "collaborative": inputs.aligned.collaborative_config.model_dump(mode="json"),
        "align": inputs.aligned.config.model_dump(mode="json"),
    }


def _fits_stage_one(inputs: GeneratorInputs) -> bool:
    config, shape = inputs.config, inputs.aligned.collaborative_config
    return (
        inputs.integrated
        and (config.architecture, config.history) == ("timeline", "codes_and_embedding")
        and (shape.model, shape.score) == ("sasrec", "cosine")
        and (shape.dim, shape.layers, shape.heads) == (config.dim, config.layers, config.heads)
        and _equally_long(inputs)
    )


def _ranks(inputs: GeneratorInputs) -> bool:
    return inputs.config.ranker and (inputs.sequences.validates or inputs.config.ranker_weights is not None)


def _not_applied(inputs: GeneratorInputs) -> Iterator[str]:
    """Options that are on and for which there is no ground here, with the reason."""
    config, width = inputs.config, inputs.embeddings.shape[1]
    if config.warm_start and not _fits_stage_one(inputs):
        yield (
            "generator.warm_start (wants a timeline over integrated codes and embeddings, and a cosine SASRec of the "
            "same dim, layers, heads and max_history in Stage I)"
        )
    if config.heads_from_codebooks and width != config.dim:
        yield f"generator.heads_from_codebooks (codebooks have {width} dimensions, the generator {config.dim})"
    if config.dense == "stage_one" and inputs.integrated and not _equally_long(inputs):
        yield "generator.dense=stage_one (generator and Stage I read histories of different lengths)"
    if config.ranker and not _ranks(inputs):
        yield (
            "generator.ranker (the validation items are trained on, and nothing is left to fit it on; give "
            "generator.ranker_weights)"
        )
    if config.distill.beta > 0 and config.distill.teacher == "both" and not inputs.integrated:
        yield "generator.distill.teacher=both (the codes are not integrated, so what they are of is the one teacher)"
    if config.distill.soft_targets > 0 and not (inputs.integrated and _has_states(inputs)):
        yield "generator.distill.soft_targets (wants integrated codes and a model of states in Stage I)"


def _has_states(inputs: GeneratorInputs) -> bool:
    return issubclass(SEQUENTIAL_MODELS.load(inputs.aligned.collaborative_config.model), StateModel)


def _sample(n_users: int, count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if n_users <= count:
        return np.arange(n_users)
    return np.sort(np.random.default_rng(seed).choice(n_users, count, replace=False))
