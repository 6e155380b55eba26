"""Stage `evaluate` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from prorec_core.alignment.trained import AlignedModel
from prorec_core.data.sequences import Split
from prorec_core.errors import UserError
from prorec_core.evaluation.asked import Asked, Lists, Look, Spread, is_worth_sharing, lists_by_others
from prorec_core.evaluation.lists import Models, lists_after
from prorec_core.evaluation.measured import Evaluation
from prorec_core.evaluation.new_items import NewItemLists, new_item_histories
from prorec_core.evaluation.stage import EvaluationInputs
from prorec_core.evaluation.stage import evaluate as run
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.kept import Make, Open
from prorec_core.progress import Report, silent
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.inputs import new_quantized_embedding, quantized_embedding, read_dataset
from prorec_core.stages.work import StageWork


def evaluate(work: StageWork, spread: Spread | None = None, open_: Open | None = None) -> Evaluation:
    """Rank the whole catalogue for every user, and measure.

    Args:
        work: of the stage.
        spread: has others make the lists, where there are users for more than one part; by default this process does.
            Finished parts wait among the checkpoints, so that a killed run goes on with them.
        open_: makes these ready, as `lister` does.

    Raises:
        UserError: others met one.
    """
    experiment = work.experiment
    dataset = read_dataset(work)
    own = _Lister(work)
    trained = own.trained
    asked = {
        split.name.lower(): Asked(dataset.sequences.histories(split), held_out=split is Split.VALIDATION)
        for split in (Split.VALIDATION, Split.TEST)
    }
    if dataset.new_items is not None:
        for name, histories in zip(("known", "new"), new_item_histories(dataset), strict=True):
            asked[name] = Asked(histories, with_new=True)
    if spread is not None and open_ is not None and is_worth_sharing(asked):
        with spread(open_) as make:
            lists, device = lists_by_others(asked, make, work.checkpoints / "lists", work.report)
        work.made_with.update(device=device, number_format="float32")
    else:
        lists = {name: own.lists(each, work.report) for name, each in asked.items()}
    with_new = None
    if dataset.new_items is not None:
        with_new = NewItemLists(lists["known"], lists["new"], experiment.evaluate.new_item_bonus)
    inputs = EvaluationInputs(
        config=experiment.evaluate,
        dataset=dataset,
        lists={split: lists[split.name.lower()] for split in (Split.VALIDATION, Split.TEST)},
        fusion_weight=trained.fusion_weight,
        seed=experiment.seed,
        fusion_trials=[tuple(trial) for trial in trained.config["fusion_trials"]],
        ranker=trained.config["ranker"],
        recommended=trained.recommended,
        new=with_new,
    )
    result = run(inputs, work.report)
    result.save(work.folder)
    return result


def lister(work: StageWork) -> Make:
    """Makes lists where models can be loaded from what a stage reads: answers `Look` and `Asked`."""
    return _Lister(work).answer


class _Lister:
    """Models of a stage, loaded when first asked for."""

    def __init__(self, work: StageWork) -> None:
        self._work = work
        self._models: dict[bool, Models] = {}

    @cached_property
    def trained(self) -> TrainedGenerator:
        """What the generator's training left."""
        return TrainedGenerator.load(self._work.inputs["train_generator"])

    @cached_property
    def _device(self) -> torch.device:
        return self._work.runtime().device

    def answer(self, asked: Look | Asked) -> Any:
        """As `lister` says."""
        return self._device.type if isinstance(asked, Look) else self.lists(asked)

    def lists(self, asked: Asked, report: Report = silent) -> Lists:
        """The lists of each scorer.

        Raises:
            UserError: models are on another kind of device here.
        """
        if asked.device not in ("", self._device.type):
            raise UserError(
                f"one worker computes on {asked.device}, another on {self._device.type}",
                place="compute",
                cure="Ask for workers that are alike: compute.gpus_per_worker, and the experiment's device",
            )
        if asked.with_new not in self._models:
            self._models[asked.with_new] = self._loaded(with_new=asked.with_new)
        config = self._work.experiment.evaluate
        return lists_after(config, self._models[asked.with_new], asked.histories, report, held_out=asked.held_out)

    def _loaded(self, *, with_new: bool) -> Models:
        work = self._work
        quantized = Quantized.load(work.inputs["quantize"])
        trained, aligned = self.trained, AlignedModel.load(work.inputs["align"])
        embeddings, codes = quantized_embedding(work), quantized.table.codes
        catalogue = Catalogue.of_training(len(embeddings))
        if with_new:
            new = new_quantized_embedding(work)
            embeddings = np.concatenate([embeddings, new])
            catalogue = catalogue.with_more(len(new), work.experiment.evaluate.new_item_bonus)
            codes, aligned = quantized.all_items().codes, aligned.with_new()
        generator = restore_generator(trained, codes, embeddings, self._device, catalogue)
        return Models(generator, trained.fusion_weight, trained.ranker, aligned, trained.fusion_folds)
