"""What stages are said to need is about what they take."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prorec.tasks.execution.needs import total
from prorec.tasks.execution.stage import Work
from prorec.tasks.local import memory
from prorec.tasks.local.memory import OF_STAGE, peak_memory
from prorec.tasks.stages.memory import Sizes, _pairs_within, of_generator
from prorec.tasks.stages.pipeline import STAGES
from prorec_core.artifacts import write_json
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import write_embeddings
from prorec_core.data.sequences import Sequences

ROOT = Path(__file__).resolve().parents[3]
FACTOR, SLACK = 2.0, 2**26
"""How far off an estimate may be, either way: what docs/operations.md says."""
ESTIMATED = [name for name, stage in STAGES.items() if stage.memory]


def experiment(**collaborative: Any) -> Experiment:
    training = {"epochs": 1, "tokens_per_batch": 4096, "warmup_steps": 1}
    return Experiment.model_validate(
        {
            "device": "cpu",
            "collaborative": {**training, "dim": 32, **collaborative},
            "align": {**training, "graph": 0.5},
            "quantize": {"codes": 128, "levels": 2, "iterations": 2},
            "generator": {**training, "dim": 32, "validation_users": 50, "validation_beams": 10},
            "evaluate": {"beams": 20, "bootstrap_samples": 100},
        }
    )


def write_inputs(folder: Path, n_items: int, n_users: int, text_dim: int) -> dict[str, Path]:
    """Folders of all stages, those of `preprocess` and `embed_text` filled."""
    folders = {name: folder / name for name in STAGES}
    for each in folders.values():
        each.mkdir()
    random = np.random.default_rng(0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(random.integers(5, 12, n_users))])
    sequences = Sequences(random.integers(0, n_items, offsets[-1]).astype(np.int32), offsets, n_items)
    ids = [f"i{item:06d}" for item in range(n_items)]
    counts = sequences.train_counts()
    items = {"item": range(n_items), "item_id": ids, "title": ids, "text": ids, "train_count": counts}
    users = {"user": range(n_users), "user_id": [f"u{user:06d}" for user in range(n_users)]}
    times = np.arange(len(sequences.items))
    Dataset(pl.DataFrame(items), pl.DataFrame(users), sequences, times, {}).save(folders["preprocess"])
    vectors = random.normal(size=(n_items, text_dim)).astype(np.float32)
    write_embeddings(folders["embed_text"] / "embeddings.parquet", vectors)
    return folders


def measure(folder: Path) -> None:
    """Run every stage whose need is estimated, and print by stage what it took and what it was said to need."""
    import sklearn.cluster  # noqa: F401  what libraries themselves take is not the stage's

    tiny, folders, found, nothing = experiment(), write_inputs(folder, 20_000, 300, 64), {}, None
    for name in ESTIMATED:
        stage, checkpoints = STAGES[name], folder / f"checkpoints-{name}"
        checkpoints.mkdir()
        reads: Any = {read: folders[read] for read in stage.reads}
        told: Any = nothing
        work = Work(stage.part(tiny), stage.values(tiny), reads, folders[name], checkpoints, lambda _: None, told)
        assert stage.memory is not None
        need = total(stage.memory(tiny, reads))
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = memory._status("VmRSS") or 0
        with peak_memory() as peak:
            stage.body(work)
        found[name] = (peak.bytes - before, need, peak.how)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int, str]]:
    if not sys.platform.startswith("linux"):
        pytest.skip("a stage's peak is known on Linux alone")
    folder = str(tmp_path_factory.mktemp("stages"))
    code = f"from pathlib import Path; from {__name__} import measure; measure(Path({folder!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[int, int, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", ESTIMATED)
def test_an_estimate_is_about_what_is_taken(measured: dict[str, tuple[int, int, str]], name: str) -> None:
    took, said, how = measured[name]
    if how != OF_STAGE:
        pytest.skip("the kernel's mark cannot be set back here")
    assert took / FACTOR - SLACK <= said <= took * FACTOR + SLACK, (took / 2**20, said / 2**20)


@pytest.mark.parametrize(
    ("changes", "distilled"),
    [
        ({}, False),
        ({"generator": {"distill": {"beta": 0.3}}}, True),
        ({"generator": {"dense": "head"}}, True),
        ({"generator": {"max_history": 20}}, True),
        ({"quantize": {"embedding": "semantic"}}, True),
        ({"quantize": {"embedding": "semantic"}, "generator": {"distill": {"beta": 0}}}, False),
    ],
)
def test_distillation_is_reckoned_where_there_is_one(tmp_path: Path, changes: dict[str, Any], distilled: bool) -> None:
    """As `train_generator` decides it: where nothing is said, it distils for the dense score's sake alone."""
    inputs = write_inputs(tmp_path, 50_000, 30, 12)
    parts = {part.what: part.size for part in of_generator(Experiment.model_validate(changes), inputs)}
    assert (parts.get("logits of distillation", 0) > 0) == distilled


def test_sizes_are_those_of_the_artifacts(tmp_path: Path) -> None:
    folders = write_inputs(tmp_path, 500, 30, 12)
    data = Dataset.load(folders["preprocess"])
    found = Sizes.of(folders)
    assert (found.users, found.items, found.text_dim) == (30, 500, 12)
    assert found.interactions == len(data.sequences.items)
    assert found.texts > 3 * 7 * 500 // 2
    assert Sizes.of({"preprocess": folders["preprocess"]}).text_dim == 0


@pytest.mark.parametrize("name", ESTIMATED)
def test_more_items_and_wider_vectors_need_more(tmp_path: Path, name: str) -> None:
    sizes = []
    for place, (n_items, dim) in enumerate([(300, 32), (900, 32), (900, 64)]):
        (folder := tmp_path / str(place)).mkdir()
        estimate = STAGES[name].memory
        assert estimate is not None
        need = estimate(experiment(dim=dim), write_inputs(folder, n_items, 20, 8))
        assert all(part.size >= 0 and part.cure for part in need)
        sizes.append((total(need), total([part for part in need if part.certain])))
    assert sizes[0] < sizes[1] < sizes[2]
    assert all(certain <= everything for everything, certain in sizes)


@pytest.mark.parametrize("window", [1, 2, 3, 50])
def test_the_graph_needs_what_its_window_reaches(tmp_path: Path, window: int) -> None:
    """By the lengths of histories, here six items each: five pairs a step apart, four two steps, and so on."""
    lengths = {"min": 6, "p25": 6, "median": 6, "p75": 6, "p90": 6, "p99": 6, "max": 6}
    write_json(tmp_path / "profile.json", {"history_length": lengths, "kept": {"users": 10}})
    found = _pairs_within({"preprocess": tmp_path}, Sizes(10, 7, 60), window)
    assert found == (60 if window == 1 else 10 * sum(range(5, max(5 - window, 0), -1)))
