"""The stages of an experiment on a device, and Hugging Face T5 beside them, on real data.

Knows the stages' bodies as a notebook runs them, and neither Prefect nor MLflow, which a bare machine lacks.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks import peer_t5
from benchmarks.card import Figure, Session
from benchmarks.experiments import changed, hashed_words
from prorec_core.alignment.trained import AlignedModel
from prorec_core.artifacts import read_json
from prorec_core.config import Experiment, StepMode
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import write_embeddings
from prorec_core.data.sequences import Split
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.progress import Progress, silent
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.in_folder import BODIES
from prorec_core.stages.work import StageWork

TRAININGS = {"train_collaborative": "collaborative", "align": "align", "train_generator": "generator"}


@dataclass(frozen=True)
class PeerSizes:
    """Batches that the usual training is tried with, steps that are timed of each, and users of the usual search."""

    batches: tuple[int, ...] = (256, 1024, 4096)
    steps: int = 9
    users: int = 1000


SMALL_PEER = PeerSizes((8,), 2, 4)
"""What a CPU does in seconds."""
_PEER_AT_ONCE = 128
_WARM = 3
EPOCHS = 3
"""Of which the first also makes kernels, captures or compiles, and does not count."""


class Stages:
    """An experiment's stages in one folder of a session."""

    def __init__(self, session: Session, experiment: Experiment, text: Path | None) -> None:
        self.session, self.experiment, self.text = session, experiment, text
        self.folder = session.folder / "stages"

    def prepare(self) -> list[Figure]:
        """What is not timed on the device: reading the data, and vectors of texts."""
        seconds, _ = self._body("preprocess", self.experiment, self.folder)
        place = self.folder / "embed_text"
        place.mkdir()
        if self.text is not None:
            shutil.copy(self.text, place / "embeddings.parquet")
        else:
            texts = pl.read_parquet(self.folder / "preprocess" / "items.parquet")["text"].to_list()
            write_embeddings(place / "embeddings.parquet", hashed_words(texts))
        return [Figure("preprocess", seconds)]

    def whole(self, steps: StepMode) -> list[Figure]:
        """All stages from the texts on, one after the other; and what the trained models are worth."""
        experiment = self.experiment.model_copy(update={"steps": steps})
        parts, epochs = {}, {}
        for name in ("train_collaborative", "align", "quantize", "train_generator", "evaluate"):
            parts[name], epochs[name] = self._body(name, experiment, self.folder)
        found = [Figure(f"all stages but texts, steps={steps}", sum(parts.values()), target="≤ 45")]
        found += [Figure(f"  {name}", seconds, note=_per_epoch(epochs[name])) for name, seconds in parts.items()]
        test = read_json(self.folder / "evaluate" / "metrics.json")["test"]
        worth = [f"{scorer} {test[scorer]['ndcg_at_10']:.4f}" for scorer in ("ranked", "fused") if scorer in test]
        words = "" if self.text is not None else " (hashed words for texts)"
        found[0].note = f"NDCG@10 on test: {', '.join(worth)}{words}"
        return found

    def epoch(self, name: str, steps: StepMode) -> list[Figure]:
        """An epoch of a training, all but without validation, and what the first takes more."""
        brief: dict[str, Any] = {"epochs": EPOCHS, "patience": 1000, "validation_users": 1}
        if name == "train_generator":
            # With one weight and no ranker there is nothing to choose, so no search for all users.
            brief |= {"ranker": False, "ranker_weights": None, "ranker_file": None}
        sections = {TRAININGS[name]: brief, "evaluate": {"fusion_weights": [1.0]}}
        experiment = changed(self.experiment, sections).model_copy(update={"steps": steps})
        aside = self.session.folder / f"{name}-{steps}"
        _, laps = self._body(name, experiment, aside, inputs=self.folder)
        epoch = statistics.median(laps[1:])
        return [
            Figure(f"{name}, an epoch, steps={steps}", epoch, note=f"the first {laps[0]:.1f} s, preparations included")
        ]

    def search(self, beams: int) -> list[Figure]:
        """Beam search for the test items of all users."""
        dataset, quantized = Dataset.load(self.folder / "preprocess"), Quantized.load(self.folder / "quantize")
        integrated = AlignedModel.load(self.folder / "align").integrated
        trained = TrainedGenerator.load(self.folder / "train_generator")
        generator = restore_generator(trained, quantized.table.codes, integrated, self.session.card.device)
        histories = dataset.sequences.histories(Split.TEST)
        seconds = self.session.card.median(
            lambda: find_candidates(generator, histories, beams, beams, with_dense=False), laps=2
        )
        return [Figure(f"search, {beams} beams, {histories.n_users:,} users", seconds)]

    def peer(self) -> Peer:
        """T5 over the codes that were trained on here."""
        return Peer(self.session, Quantized.load(self.folder / "quantize").table.codes, self.folder)

    def _body(
        self, name: str, experiment: Experiment, folder: Path, *, inputs: Path | None = None
    ) -> tuple[float, list[float]]:
        """Seconds of a stage's body, and of each of its epochs."""
        target, checkpoints = folder / name, folder / f"{name}-checkpoints"
        for left in (target, checkpoints):
            shutil.rmtree(left, ignore_errors=True)
        target.mkdir(parents=True)
        ends = [time.perf_counter()]

        def report(progress: Progress) -> None:
            if progress.unit == "epoch":
                self.session.card.wait()
                ends.append(time.perf_counter())

        there = {each: (inputs or folder) / each for each in BODIES}
        work = StageWork(experiment, {}, there, target, checkpoints, report if name in TRAININGS else silent)
        seconds, _ = self.session.card.timed(lambda: BODIES[name](work))
        return seconds, np.diff(ends).tolist()


def _per_epoch(laps: list[float]) -> str:
    return f"{len(laps)} epochs, {statistics.median(laps):.2f} s each with validation" if laps else ""


class Peer:
    """The usual implementation, given its best on a card: bfloat16, a fused optimizer, large batches."""

    def __init__(self, session: Session, codes: peer_t5.Codes, folder: Path) -> None:
        self.session, self.card = session, session.card
        self.tokens, self.vocabulary = peer_t5.tokens_of(codes)
        self.sequences = Dataset.load(folder / "preprocess").sequences

    def epoch(self, batch: int, steps: int) -> list[Figure]:
        """An epoch of training at some batch, from a few steps; batches are made beforehand."""
        model = self._model().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        training, samples = self.sequences.training(), peer_t5.prefixes(self.sequences)
        order = np.random.default_rng(0).permutation(len(samples))

        def made(step: int) -> dict[str, torch.Tensor]:
            places = np.take(order, range(step * batch, (step + 1) * batch), mode="wrap")
            chosen = [samples[place] for place in places]
            inputs = peer_t5.padded_histories([training.of_user(user)[:length] for user, length in chosen], self.tokens)
            targets = np.array([training.of_user(user)[length] for user, length in chosen])
            inputs["labels"] = torch.from_numpy(self.tokens[targets])
            return {name: value.to(self.card.device) for name, value in inputs.items()}

        batches = iter([made(step) for step in range(_WARM + steps)])

        def step() -> None:
            with torch.autocast(self.card.device.type, torch.bfloat16, enabled=self.card.low_precision):
                loss = model(**next(batches)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        seconds = self.card.median(step, laps=steps, warm=_WARM) * len(samples) / batch
        return [Figure(f"T5, an epoch, batch {batch:,}", seconds, note=f"extrapolated from {steps} steps")]

    def search(self, beams: int, most: int) -> list[Figure]:
        """Search for some users, as many as there is time for, with a Python function that says what may follow."""
        model = self._model().train(False)
        allowed, histories = peer_t5.allowed_tokens(self.tokens), self.sequences.histories(Split.TEST)
        order = np.random.default_rng(0).permutation(histories.n_users)[:most]
        seconds, done = 0.0, 0
        for chosen in np.array_split(order, max(1, -(-len(order) // _PEER_AT_ONCE))):
            if done and self.session.left < 2 * seconds / done * len(chosen):
                break
            batch = peer_t5.padded_histories([histories.of_user(int(user)) for user in chosen], self.tokens)
            took, _ = self.card.timed(_generation(model, batch, allowed, beams, self.tokens.shape[1], self.session))
            seconds, done = seconds + took, done + len(chosen)
        note = f"extrapolated from {done:,} users"
        return [Figure(f"T5, search, {beams} beams, all users", seconds * histories.n_users / done, note=note)]

    def _model(self) -> Any:
        model: Any = peer_t5.new_model(self.vocabulary)
        return model.to(self.card.device)


def _generation(
    model: Any,
    batch: dict[str, torch.Tensor],
    allowed: Callable[[int, torch.Tensor], list[int]],
    beams: int,
    depth: int,
    session: Session,
) -> Callable[[], object]:
    def work() -> object:
        inputs = {name: value.to(session.card.device) for name, value in batch.items()}
        kind, low = session.card.device.type, session.card.low_precision
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=low):
            return model.generate(
                **inputs,
                num_beams=beams,
                num_return_sequences=beams,
                min_new_tokens=depth,
                max_new_tokens=depth,
                prefix_allowed_tokens_fn=allowed,
            )

    return work
