"""What it takes several workers to train together: `python -m benchmarks.workers [--items N …] [--json FILE]`.

Knows the trainings and torch's process group; needs neither data nor Ray, whose workers make the same steps. Each
training makes its first steps, over items and histories that mean nothing, by one process with two threads, by one
worker of one thread and by two, one arrangement after the other. Of each are told the seconds and the processor's
seconds of a step, those spent on telling each other, waiting included, and the bytes that a worker hands over. What
follows for faster networks and more workers is calculated: each of W works for `(T / W) / (T / W + B(W) / network)` of
its time, with T the processor's seconds of one worker's step, and B(W) the bytes that it hands over, 2 (W − 1) / W of
what is summed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("train_collaborative", "align", "train_generator")
ARRANGEMENTS = ((1, 2), (1, 1), (2, 1))
"""Workers, and the threads of each."""
NETWORKS = {"10 Gb/s": 10e9 / 8, "100 Gb/s": 100e9 / 8}
WARM, STEPS = 3, 24
USERS, LONGEST, TEXT = 8_000, 12, 384
LARGEST = {"train_collaborative": 1_000_000}
"""Items up to which a training is tried; the others' texts alone would take gigabytes."""
TRIED = 100_000


class _EnoughError(Exception):
    """All steps are made."""


def _training(stage: str, n_items: int) -> Callable[[Any], object]:
    """A training over so many items, with Beauty's settings, that waits for its runtime."""
    import torch

    from benchmarks.catalogue import code_table
    from prorec_core.alignment.stage import align
    from prorec_core.alignment.trained import AlignedModel
    from prorec_core.config import Experiment
    from prorec_core.data.sequences import from_lists
    from prorec_core.generation.stage import GeneratorInputs, train_generator
    from prorec_core.sequential.stage import train_collaborative
    from prorec_core.sequential.trained import CollaborativeModel, build_model

    experiment = Experiment.model_validate(yaml.safe_load((ROOT / "configs/amazon-beauty.yaml").read_text()))
    random = np.random.default_rng(0)
    # A few items have most of the interactions.
    drawn = (n_items * random.random((USERS, LONGEST)) ** 3).astype(np.int32)
    sequences = from_lists([row[: random.integers(4, LONGEST + 1)] for row in drawn], n_items)
    shape = experiment.collaborative
    if stage == "train_collaborative":
        return lambda runtime: train_collaborative(shape, sequences, 0, runtime)

    def vectors(width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.standard_normal((n_items, width), dtype=np.float32)

    torch.manual_seed(0)
    if stage == "align":
        weights = dict(build_model(shape, shape, shape.dim, False).state_dict())
        start = CollaborativeModel(vectors(shape.dim), weights, [], shape)
        return lambda runtime: align(experiment.align, sequences, start, vectors(TEXT), 0, runtime)
    weights = dict(build_model(shape, experiment.align, shape.dim, False).state_dict())
    table = vectors(shape.dim)
    aligned = AlignedModel(table, table, table, weights, {}, [], experiment.align, shape, {})
    inputs = GeneratorInputs(
        config=experiment.generator.model_copy(update={"ranker": False}),
        fusion_weights=[1.0],
        beams=10,
        mask_history=True,
        sequences=sequences,
        codes=code_table(n_items),
        codebooks=[None, None, None, None],
        embeddings=table,
        integrated=True,
        aligned=aligned,
        texts=vectors(1),
    )
    return lambda runtime: train_generator(inputs, 0, runtime)


def one(stage: str, n_items: int, rank: int, count: int, threads: int, meeting: str, measured: int) -> dict[str, float]:
    """Make the steps as one of `count` workers; returns what a step took."""
    import torch
    import torch.distributed as dist
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from prorec_core.training.runtime import Runtime
    from prorec_core.training.workers import ALONE, Group

    torch.set_num_threads(threads)
    training = _training(stage, n_items)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    workers = Group() if count > 1 else ALONE
    steps, begun, ended = 0, {}, {}

    def now() -> dict[str, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        found = {"seconds": time.monotonic(), "processor": used.ru_utime + used.ru_stime}
        if isinstance(workers, Group):
            found |= {"exchange": workers.traffic.seconds, "bytes": float(workers.traffic.bytes)}
        return found

    def look(*_: object) -> None:
        nonlocal steps, begun, ended
        steps += 1
        if steps == WARM:
            begun = now()
        if steps == WARM + measured:
            ended = now()
            raise _EnoughError

    register_optimizer_step_post_hook(look)
    try:
        training(Runtime(torch.device("cpu"), workers=workers))
    except _EnoughError:
        return {name: (ended[name] - begun[name]) / measured for name in ended}
    raise AssertionError("an epoch has fewer steps")


def together(stage: str, n_items: int, count: int, threads: int, steps: int) -> dict[str, float]:
    """A step of `count` workers: the slowest one's seconds, the mean of all else."""
    from prorec.flows.local.running import TRAINING

    with tempfile.TemporaryDirectory(prefix="prorec-benchmarks-") as folder:
        arguments = [str(each) for each in (count, threads, Path(folder) / "meeting", steps)]
        program = [sys.executable, "-m", "benchmarks.workers", "--one", stage, str(n_items)]
        running = [
            subprocess.Popen(
                [*program, str(rank), *arguments], stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, **TRAINING}
            )
            for rank in range(count)
        ]
        said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{stage}, {n_items:,} items, {count} workers: a worker failed")
    found = [json.loads(text) for text in said]
    means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    return {**means, "seconds": max(each["seconds"] for each in found)}


def efficiency(processor: float, handed_over: float, workers: int, network: float) -> float:
    """The share of its time that each of so many workers spends on its part of a step.

    Args:
        processor: seconds of a step that one worker makes alone.
        handed_over: bytes that each of two workers hands over, which is all that is summed.
        workers: how many.
        network: bytes a second.
    """
    work = processor / workers
    return work / (work + 2 * (workers - 1) / workers * handed_over / network)


def reach(processor: float, handed_over: float, network: float) -> int:
    """The most workers of which each still works for half of its time."""
    found = 1
    while efficiency(processor, handed_over, found + 1, network) >= 0.5:
        found += 1
    return found


def show(results: list[dict[str, Any]]) -> None:
    """Print what was measured and what follows from it."""
    print(
        "| training | items | 1 process, 2 threads | 1 worker | 2 workers | processor, 1 | each of 2 | exchange | MB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for found in results:
        both, single, pair = (found[f"{count}x{threads}"] for count, threads in ARRANGEMENTS)
        print(
            f"| {found['stage']} | {found['items']:,} | {1e3 * both['seconds']:.0f} | {1e3 * single['seconds']:.0f} "
            f"| {1e3 * pair['seconds']:.0f} | {1e3 * single['processor']:.0f} | {1e3 * pair['processor']:.0f} "
            f"| {1e3 * pair['exchange']:.0f} | {pair['bytes'] / 1e6:.2f} |"
        )
    print("\n| training | items | " + " | ".join(f"{name}: 8 workers, reach" for name in NETWORKS) + " |")
    print("| --- | ---: |" + " ---: |" * len(NETWORKS))
    for found in results:
        seconds, handed_over = found["1x1"]["processor"], found["2x1"]["bytes"]
        cells = [
            f"{efficiency(seconds, handed_over, 8, network):.0%}, {reach(seconds, handed_over, network):,}"
            for network in NETWORKS.values()
        ]
        print(f"| {found['stage']} | {found['items']:,} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure and print; with `--one` be one of the workers."""
    if sys.argv[1:2] == ["--one"]:
        stage, n_items, rank, count, threads, meeting, steps = sys.argv[2:]
        print(json.dumps(one(stage, int(n_items), int(rank), int(count), int(threads), meeting, int(steps))))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=STAGES, default=list(STAGES), nargs="+", help="these trainings alone")
    parser.add_argument("--steps", type=int, default=STEPS, help="that are measured, after some that warm up")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for n_items in options.items:
        for stage in options.only:
            if n_items > LARGEST.get(stage, TRIED):
                continue
            measured = {
                f"{count}x{threads}": together(stage, n_items, count, threads, options.steps)
                for count, threads in ARRANGEMENTS
            }
            results.append({"stage": stage, "items": n_items, **measured})
            print(f"{stage}, {n_items:,} items: done", file=sys.stderr)
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
