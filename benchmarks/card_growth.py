"""What grows, on a device: a million items, wide models, wide beams; synthetic, straight into `prorec_core`.

Knows sizes and chance. Nothing here has learnt anything: costs depend on shapes alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.card import Figure, Session, operations_of
from benchmarks.catalogue import code_table
from benchmarks.experiments import TEXT_DIMENSIONS
from benchmarks.shop import Size, clusters_of, interactions_of, vectors_of
from prorec_core.alignment.stage import align
from prorec_core.config import Experiment, GeneratorConfig, StepMode
from prorec_core.data.sequences import Sequences, Split, from_lists
from prorec_core.generation.base import Generator, Items
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.objective import Objective
from prorec_core.generation.stage import GeneratorInputs, train_generator
from prorec_core.generation.trained import build_generator, restore_generator
from prorec_core.generation.trie import CodeTrie
from prorec_core.progress import Progress
from prorec_core.quantization.stage import quantize
from prorec_core.sequential.trained import CollaborativeModel, build_model
from prorec_core.training.batching import HistoryBatch, training_batches
from prorec_core.training.losses import catalogue_cross_entropy
from prorec_core.training.runtime import Runtime, make_runtime
from prorec_core.training.steps import Steps


@dataclass(frozen=True)
class Sizes:
    """How large it all is.

    Attributes:
        shop: items, users, and items a user.
        trained: users whose histories are trained on; an epoch is extrapolated to all.
        searched: users of the search with fusion.
        dim, layers: of the wide model.
        wide_tokens: items of history in a batch of it.
        wide_items: items of its catalogue.
        beams: wide ones.
        beamed: users searched for with them.
        tokens: items of history in a batch of the shop's trainings.
    """

    shop: Size
    trained: int
    searched: int
    dim: int
    layers: int
    wide_tokens: int
    wide_items: int
    beams: int
    beamed: int
    tokens: int = 4096


CARD = Sizes(Size(1_000_000, 300_000), 60_000, 10_000, 512, 8, 16_384, 50_000, 200, 2000)
SMALL = Sizes(Size(2000, 400, 8), 300, 100, 32, 2, 256, 500, 20, 50, 256)
"""What a CPU does in seconds: to see that it runs, not to be compared."""


class Growth:
    """The same shop, wide model and catalogue for all that is measured."""

    def __init__(self, session: Session, sizes: Sizes, steps: StepMode, seed: int = 0) -> None:
        self.session, self.card, self.sizes, self.steps, self.seed = session, session.card, sizes, steps, seed
        self._made: dict[str, Any] = {}

    def shop(self) -> list[Figure]:
        """Epochs of `align` and of the generator in a large catalogue, codes, and a search with fusion."""
        sizes, shop = self.sizes, self.sizes.shop
        clusters = clusters_of(shop.items)
        sequences, dim = _sequences(shop, clusters), 128 if sizes is CARD else 32
        texts = vectors_of(clusters, TEXT_DIMENSIONS if sizes is CARD else 32)
        some = sequences.select(np.arange(min(sizes.trained, sequences.n_users)))
        share = len(some.items) / len(sequences.items)
        trained = {"epochs": 2, "tokens_per_batch": sizes.tokens, "validation_users": 1, "patience": 9}
        experiment = Experiment.model_validate(
            {
                "collaborative": {"dim": dim, "full_softmax_items": shop.items // 20, **trained},
                "align": {"graph": 0.5, **trained},
                "quantize": {"codes": 256 if sizes is CARD else 16},
                "generator": {"dim": dim, "ranker": False, **trained},
            }
        )
        torch.manual_seed(self.seed)
        start = CollaborativeModel(
            np.random.default_rng(0).standard_normal((shop.items, dim), dtype=np.float32),
            build_model(experiment.collaborative, experiment.collaborative, dim, False).state_dict(),
            [],
            experiment.collaborative,
        )
        runtime, laps = self._runtime()
        aligned = align(experiment.align, some, start, texts, self.seed, runtime)
        note = f"{shop}; extrapolated from {100 * share:.0f}% of the interactions"
        found = [Figure("a large shop: align, an epoch", laps[-1] / share, gib=self.card.gib(), note=note)]
        ids = [str(item) for item in range(shop.items)]
        seconds, quantized = self.card.timed(lambda: quantize(experiment.quantize, aligned.integrated, ids, self.seed))
        found.append(Figure("a large shop: quantize", seconds, target="≤ 20"))
        books = quantized.level_centroids
        inputs = GeneratorInputs(
            config=experiment.generator,
            fusion_weights=[1.0],
            beams=50,
            mask_history=True,
            sequences=some,
            codes=quantized.table.codes,
            codebooks=[*books, *[None] * (quantized.table.depth - len(books))],
            embeddings=aligned.integrated,
            integrated=True,
            aligned=aligned,
            texts=texts,
        )
        runtime, laps = self._runtime()
        generator = train_generator(inputs, self.seed, runtime)
        epoch = Figure("a large shop: generator, an epoch", laps[-1] / share, target="≤ 20", note=note)
        epoch.gib = self.card.gib()
        found.append(epoch)
        model = restore_generator(generator, quantized.table.codes, aligned.integrated, self.card.device)
        asked = sequences.histories(Split.TEST).select(np.arange(min(sizes.searched, sequences.n_users)))
        seconds, _ = self.card.timed(lambda: find_candidates(model, asked, 50, 50).fused(1.0, 50))
        title = f"a large shop: search and fusion, {asked.n_users:,} users"
        return [*found, Figure(title, seconds, target="≤ 3", gib=self.card.gib())]

    def utilisation(self) -> list[Figure]:
        """A generator's step with a wide, deep model: seconds, and what share of the card's peak it reaches."""
        sizes = self.sizes
        runtime = make_runtime(str(self.card.device), steps=self.steps)
        generator = self._generator(sizes.wide_items, sizes.dim, layers=sizes.layers, heads=max(2, sizes.dim // 64))
        objective, optimizer = Objective(generator.train(), None), _capturable(generator, runtime)
        histories = _long_histories(sizes)
        batches = training_batches(histories, 50, sizes.wide_tokens, 0, self.card.device, fixed=True)
        batch = max(batches, key=lambda each: int(each.lengths_B.sum()))

        def step(batch: HistoryBatch) -> Mapping[str, Tensor]:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.card.device.type, torch.bfloat16, enabled=self.card.low_precision):
                found = objective(batch, batch.targets())
            torch.autograd.backward(found["loss"])
            optimizer.step()
            return {name: value.detach() for name, value in found.items()}

        operations = operations_of(lambda: step(batch))
        steps = Steps(step, runtime.capture)
        seconds = self.card.median(lambda: steps(batch), laps=9, warm=3)
        title = f"generator's step, d {sizes.dim}, {sizes.layers} layers, {sizes.wide_tokens:,} positions"
        share = self.card.utilisation(operations, seconds)
        told = f"{operations / 1e12:.3g} · 10¹² operations, {operations / seconds / 1e12:,.3g} · 10¹² a second"
        used = Figure("  utilisation", share, "%", "≥ 30", note=told)
        if share is None:
            used.why_not = "the card's peak is not known: give --peak-tflops"
        return [Figure(title, seconds, note=f"steps={self.steps}"), used]

    def softmax(self) -> list[Figure]:
        """The softmax over a catalogue alone, the largest product of a step: what the card gives to it."""
        sizes = self.sizes
        states, table = (
            torch.randn(rows, sizes.dim, device=self.card.device, requires_grad=True)
            for rows in (sizes.wide_tokens, sizes.wide_items)
        )
        targets = torch.arange(sizes.wide_tokens, device=self.card.device) % sizes.wide_items

        def work() -> Tensor:
            return catalogue_cross_entropy(
                states, table, targets, 1.0, bounded=True, low_precision=self.card.low_precision
            )

        operations, seconds = operations_of(work), self.card.median(work, laps=5, warm=2)
        share = self.card.utilisation(operations, seconds)
        note = f"{operations / seconds / 1e12:,.3g} · 10¹² operations a second"
        note += f", {share:.0f}% of the peak" if share is not None else ""
        return [Figure(f"softmax over {sizes.wide_items:,} items, {sizes.wide_tokens:,} positions", seconds, note=note)]

    def wide_beams(self) -> list[Figure]:
        """Users a second through a deep trie with wide beams, and what leaving out their items costs."""
        sizes, dim = self.sizes, 128 if self.sizes is CARD else 32
        generator = self._generator(sizes.shop.items, dim).eval()
        random = np.random.default_rng(1)
        lengths = np.clip(random.geometric(1 / 8, sizes.beamed) + 3, 4, 50)
        histories = from_lists(
            [random.integers(0, sizes.shop.items, n).astype(np.int32) for n in lengths], sizes.shop.items
        )

        def seconds(masked: bool) -> float:
            return self.card.median(
                lambda: find_candidates(generator, histories, sizes.beams, 10, masked=masked, with_dense=False), laps=3
            )

        with_mask, without = seconds(True), seconds(False)
        title = f"search, {sizes.beams} beams, {sizes.shop.items:,} items, depth {generator.trie.depth}"
        rate = Figure(title, sizes.beamed / with_mask, "users/s", "≥ 2,000")
        share = 100 * max(0.0, with_mask - without) / with_mask
        return [rate, Figure("  of it leaving out what users have", share, "%", "≤ 1")]

    def _generator(self, items: int, dim: int, **shape: int) -> Generator:
        codes = code_table(items)
        trie = CodeTrie.from_codes(codes)
        vectors = torch.from_numpy(np.random.default_rng(0).standard_normal((items, dim), dtype=np.float32))
        config = GeneratorConfig.model_validate({"dim": dim, "max_history": 50, **shape})
        torch.manual_seed(self.seed)
        known = Items(trie, vectors, {"integrated": vectors}, [None] * trie.depth)
        generator = build_generator(config, known, self.card.low_precision).to(self.card.device)
        generator.trie = trie.to(self.card.device)
        return generator

    def _runtime(self) -> tuple[Runtime, list[float]]:
        """Where to train, and the seconds of the epochs that end there."""
        laps: list[float] = []
        last = [time.perf_counter()]

        def report(progress: Progress) -> None:
            self.card.wait()
            if progress.unit == "epoch":
                laps.append(time.perf_counter() - last[0])
            last[0] = time.perf_counter()

        return replace(make_runtime(str(self.card.device), steps=self.steps), report=report), laps


def _capturable(generator: Generator, runtime: Runtime) -> torch.optim.Optimizer:
    captured = runtime.capture is not None
    rate = torch.tensor(1e-3, device=runtime.device) if captured else 1e-3
    return torch.optim.AdamW(generator.parameters(), lr=rate, fused=True, capturable=captured)


def _sequences(shop: Size, clusters: np.ndarray[Any, np.dtype[np.int64]]) -> Sequences:
    """A shop's histories, each in some order."""
    users, items = interactions_of(shop, clusters)
    order = np.argsort(users, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=shop.users))]).astype(np.int64)
    return Sequences(items[order].astype(np.int32), offsets, shop.items)


def _long_histories(sizes: Sizes) -> Sequences:
    random, users = np.random.default_rng(2), max(2, sizes.wide_tokens // 50)
    return from_lists(
        [random.integers(0, sizes.wide_items, 51).astype(np.int32) for _ in range(users)], sizes.wide_items
    )
