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
from prorec_core.config import DistillConfig, GeneratorConfig
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.errors import UserError
from prorec_core.generation.base import Items
from prorec_core.generation.candidates import DENSE_CANDIDATES, find_candidates
from prorec_core.generation.choice import choose
from prorec_core.generation.features import LATER
from prorec_core.generation.objective import Objective, some_targets
from prorec_core.generation.ranker_file import GivenRanker
from prorec_core.generation.relations import Relations, near_of
from prorec_core.generation.soft_teacher import SampledTeacher, SoftTeacher, WholeTeacher
from prorec_core.generation.trained import TEACHER, TrainedGenerator, build_generator, go_on_from, ranker_tensors
from prorec_core.generation.trie import CodeTrie
from prorec_core.metrics.top import rank_of_target
from prorec_core.sequential.trained import Floats
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.loop import fit_next_item, validation_targets
from prorec_core.training.runtime import Runtime, derive_seed

CHOSEN_BY = 25_000
"""Validation targets at most by which the fusion weight, the ranker and what recommends are chosen."""
BETA_OF_THE_DENSE_SCORE = 0.3
"""Weight of the distillation where nothing is said and its head gives the dense score."""


@dataclass(frozen=True)
class GeneratorInputs:
    """What the stage reads.

    Attributes:
        config: the generator.
        fusion_weights: weights λ of the dense score to choose from; where 0 is all there is, nothing is fused.
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
        start: an earlier generator's tensors, from which this one goes on; None: it starts anew.
        same_codes: whether codes mean what they meant there.
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
    start: Mapping[str, Tensor] | None = None
    same_codes: bool = True
    ranker: GivenRanker | None = None


def train_generator(inputs: GeneratorInputs, seed: int, runtime: Runtime) -> TrainedGenerator:
    """Train the generator; then choose the fusion weight and fit the ranker on validation, or take those given.

    Of more validation users than `CHOSEN_BY` so many are drawn, with the seed, by whom is chosen.

    In a catalogue over Stage I's `full_softmax_items` distillation and soft targets meet a sample of it in each step.

    Args:
        inputs: configuration, sequences, codes and embeddings.
        seed: of the experiment.
        runtime: device, progress, checkpoints and workers.

    Raises:
        UserError: two items share a tuple of codes, the Stage-I teacher cannot read histories as long as the
            generator's, or the loss is no longer a number.
    """
    open_beta = inputs.config.distill.beta is None
    inputs = _settled(inputs)
    config, sequences = inputs.config, inputs.sequences
    torch.manual_seed(derive_seed(seed, "generator", "start"))
    trie = CodeTrie.from_codes(inputs.codes)
    items = Items(
        trie,
        torch.from_numpy(inputs.embeddings),
        _teachers(inputs),
        [None if book is None else torch.from_numpy(book) for book in inputs.codebooks],
    )
    generator = build_generator(config, items, runtime.low_precision(config.precision))
    stage_one, table_NE = inputs.aligned.sequential_model(runtime.device)
    warm = []
    if inputs.start is not None:
        go_on_from(generator, inputs.start, same_codes=inputs.same_codes)
    elif config.warm_start and inputs.integrated:
        warm = generator.warm_start(stage_one)
    if _attaches_stage_one(inputs):
        generator.attach_stage_one(stage_one)
    generator.to(runtime.device)
    generator.trie = trie.to(runtime.device)
    sample = _sample(inputs)
    teacher: SoftTeacher | None = None
    if config.distill.soft_targets > 0 and inputs.integrated and (scores := stage_one.products(table_NE)):
        _check_histories(inputs)
        teacher = WholeTeacher(scores, generator) if sample is None else SampledTeacher(scores, generator, sample)
    workers = runtime.workers
    objective = Objective(generator, teacher, sample, workers)

    def losses(batch: HistoryBatch) -> Mapping[str, Tensor]:
        every = generator.every_position
        with workers.in_common():
            targets = batch.targets() if every else some_targets(batch, config.targets_per_user)
        return objective(batch, targets)

    def ranks(histories: Sequences, targets: IntArray) -> IntArray:
        beams = config.validation_beams
        found = find_candidates(generator, histories, beams, 10, masked=inputs.mask_history, with_dense=False)
        return rank_of_target(found.generative(10)[0], targets)

    records = fit_next_item(
        generator,
        losses,
        ranks,
        sequences,
        config,
        derive_seed(seed, "generator"),
        runtime,
        dict.fromkeys(warm, config.warm_start_rate),
        asked=validation_targets(sequences, config.validation_users, derive_seed(seed, "generator", "validation")),
    )
    later = inputs.ranker is None or set(LATER) <= set(inputs.ranker.features)
    relations = Relations.of(sequences.training(), inputs.texts, later=later) if _ranks(inputs) else None
    histories, targets = sequences.histories(Split.VALIDATION), sequences.targets(Split.VALIDATION)
    chosen_by = validation_targets(sequences, CHOSEN_BY, derive_seed(seed, "generator", "choice"))
    if chosen_by is not None:
        histories, targets = histories.owned().select(chosen_by), targets[chosen_by]
    choice, network = choose(
        lambda: find_candidates(
            generator,
            histories,
            inputs.beams,
            DENSE_CANDIDATES,
            masked=inputs.mask_history,
            near=near_of(relations),
            report=runtime.report,
        ),
        inputs.fusion_weights if generator.has_dense_score and any(inputs.fusion_weights) else [],
        relations,
        histories,
        targets,
        inputs.ranker,
        own=not inputs.mask_history,
        report=runtime.report,
    )
    description = {
        # A ranker that was given is kept whole below; where its file was is nobody's business.
        "generator": config.model_copy(update={"ranker_file": None}).model_dump(mode="json"),
        "stage_one": _shape(inputs) if generator.stage_one is not None else None,
        "teachers": list(generator.teacher_names),
        "beams": inputs.beams,
        # Said only where it is so: models of before, which say nothing, leave out what a user has.
        **({} if inputs.mask_history else {"history_masked": False}),
        **choice,
        "not_applied": list(
            _not_applied(
                inputs,
                warm=bool(warm) or inputs.start is not None,
                taught=teacher is not None,
                told=generator.directions is not None,
                open_beta=open_beta,
            )
        ),
    }
    # What recommends may know new items besides: their teachers stand after the others.
    with_new = replace(inputs, aligned=inputs.aligned.with_new())
    extra = {} if "integrated" in generator.teacher_names else _teachers(with_new)
    tensors = {**generator.state_dict(), **{f"{TEACHER}{name}": tensor for name, tensor in extra.items()}}
    if relations is not None and choice["ranker"] is not None:
        tensors |= ranker_tensors(relations, network)
    return TrainedGenerator(tensors, description, records)


def scores_by_stage_one(config: GeneratorConfig, *, integrated: bool, max_history: int) -> bool:
    """Whether Stage I gives the dense score, and not the distillation's head.

    Args:
        config: the generator.
        integrated: whether the integrated embedding is quantized.
        max_history: items of a history that Stage I reads.
    """
    return config.dense == "stage_one" and integrated and config.max_history == max_history


def distillation_weight(config: GeneratorConfig, *, integrated: bool, max_history: int) -> float:
    """β, also where it is left open. Arguments as of `scores_by_stage_one`."""
    if config.distill.beta is not None:
        return config.distill.beta
    needless = scores_by_stage_one(config, integrated=integrated, max_history=max_history)
    return 0.0 if needless else BETA_OF_THE_DENSE_SCORE


def _settled(inputs: GeneratorInputs) -> GeneratorInputs:
    """The inputs with the distillation's weight as a number."""
    config, read = inputs.config, inputs.aligned.max_history
    weight = distillation_weight(config, integrated=inputs.integrated, max_history=read)
    distill = config.distill.model_copy(update={"beta": weight})
    return replace(inputs, config=config.model_copy(update={"distill": distill}))


def _teachers(inputs: GeneratorInputs) -> dict[str, Tensor]:
    distill = inputs.config.distill
    if not distill.beta:
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


def _attaches_stage_one(inputs: GeneratorInputs) -> bool:
    return scores_by_stage_one(inputs.config, integrated=inputs.integrated, max_history=inputs.aligned.max_history)


def _equally_long(inputs: GeneratorInputs) -> bool:
    return inputs.config.max_history == inputs.aligned.max_history


def _shape(inputs: GeneratorInputs) -> dict[str, Any]:
    """What Stage I's model is built from."""
    return {
        "collaborative": inputs.aligned.collaborative_config.model_dump(mode="json"),
        "align": inputs.aligned.config.model_dump(mode="json"),
    }


def _ranks(inputs: GeneratorInputs) -> bool:
    return inputs.config.ranker and (inputs.sequences.validates or inputs.ranker is not None)


def _not_applied(inputs: GeneratorInputs, *, warm: bool, taught: bool, told: bool, open_beta: bool) -> Iterator[str]:
    """Options that are on and for which there is no ground here, with the reason.

    Args:
        warm: whether the generator started from Stage I's model.
        taught: whether it was taught that model's distribution.
        told: whether it can read that model's state.
        open_beta: whether nothing was said of the distillation's weight.
    """
    config, width = inputs.config, inputs.embeddings.shape[1]
    if config.stage_one_state and not told:
        yield (
            "generator.stage_one_state (wants generator.dense=stage_one, codes of the integrated embedding, SASRec in "
            "Stage I, and histories of equal length)"
        )
    if config.warm_start and not warm:
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
            "generator.ranker_file or generator.ranker_weights)"
        )
    if config.distill.beta and config.distill.teacher == "both" and not inputs.integrated:
        yield "generator.distill.teacher=both (the codes are not integrated, so what they are of is the one teacher)"
    if open_beta and not config.distill.beta:
        for name in ("at", "teacher", "temperature", "share"):
            value = getattr(config.distill, name)
            if value != DistillConfig.model_fields[name].default:
                yield f"generator.distill.{name}={value} (nothing is distilled; set generator.distill.beta, to 0.3 say)"
    if config.distill.soft_targets > 0 and not taught:
        yield "generator.distill.soft_targets (wants integrated codes and a model of states in Stage I)"


def _sample(inputs: GeneratorInputs) -> int | None:
    """Items that a step samples; None where it meets all."""
    shape = inputs.aligned.collaborative_config
    return shape.negatives if len(inputs.codes) > shape.full_softmax_items else None
