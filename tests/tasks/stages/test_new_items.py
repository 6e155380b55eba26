"""New items through all stages: what the bodies of the tasks leave on a tiny shop with a fifth of it held out."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from prorec.tasks.execution.stage import Work
from prorec.tasks.stages.align import align
from prorec.tasks.stages.embed_text import embed_text
from prorec.tasks.stages.evaluate import evaluate
from prorec.tasks.stages.evaluate_aligned import evaluate_aligned
from prorec.tasks.stages.evaluate_collaborative import evaluate_collaborative
from prorec.tasks.stages.evaluate_two_stream import SIDES, STREAM, evaluate_two_stream
from prorec.tasks.stages.preprocess import preprocess
from prorec.tasks.stages.quantize import quantize
from prorec.tasks.stages.report import report
from prorec.tasks.stages.train_collaborative import train_collaborative
from prorec.tasks.stages.train_generator import train_generator
from prorec_core.artifacts import sha256_file, write_manifest
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.histories import DatasetHistories
from prorec_core.data.sequences import Split
from prorec_core.evaluation.asked import Asked, Spread
from prorec_core.evaluation.stage import Evaluation
from prorec_core.generation import choice
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.similar import BESIDE_CANDIDATES
from prorec_core.kept import Making, Open
from prorec_core.progress import silent
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.bundle import fill_bundle
from prorec_core.stages.evaluate import _Lister, lister
from prorec_core.stages.evaluate import evaluate as evaluate_files
from tests.toys import looked_at

STAGES = (preprocess, embed_text, train_collaborative, align, quantize, train_generator, evaluate, report)
SMALL: dict[str, Any] = {"epochs": 1, "dim": 16, "layers": 1}
TINY: dict[str, Any] = {
    "data": {"demo": {"users": 120, "items": 50}, "new_items": 0.2},
    "collaborative": SMALL,
    "align": {"epochs": 1},
    "quantize": {"codes": 4},
    "generator": SMALL,
    "evaluate": {"new_item_bonus": 0.5},
}
SCORERS = ["ranked", "fused", "generative", "dense", "aligned", "popularity"]
Run = Callable[..., Mapping[str, Path]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run all stages one after the other, and tell where each left its files."""

    def texts(_: Any, __: list[str], texts: list[str], *___: Any) -> Any:
        return np.random.default_rng(len(texts)).normal(size=(len(texts), 12)).astype(np.float32)

    def run(**changes: Any) -> Mapping[str, Path]:
        experiment = Experiment.model_validate({**TINY, **changes})
        root, places = tmp_path_factory.mktemp("stages"), {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prorec_core.text.stage.embed_text", texts)
            for stage in STAGES:
                (root / stage.name).mkdir()
                stage.body(work(experiment, places, root / stage.name))
                write_manifest(root / stage.name, stage.name, stage.values(experiment), {})
                places[stage.name] = root / stage.name
        return places

    return run


def work(experiment: Experiment, places: Mapping[str, Path], folder: Path) -> Work:
    return Work(experiment, {}, dict(places), folder, folder.parent / f"{folder.name}-state", silent, None)  # type: ignore[arg-type]


def check_known_nodes_keep_their_means(places: Mapping[str, Path], root: Path) -> None:
    """As after `items add`: what new items do to the figures of old ones is what they do where they are served."""
    models = _Lister(work(Experiment.model_validate(TINY), places, root))
    plain, grown = (models._loaded(with_new=new).generator for new in (False, True))
    known, seen = torch.arange(plain.trie.n_items), 0
    for level in range(plain.trie.depth):
        before, after = (
            getattr(each, f"nodes_{level}")[each.trie.item_nodes(level + 1, known)] for each in (plain, grown)
        )
        torch.testing.assert_close(after, before)
        seen += len(getattr(grown, f"nodes_{level}")) > len(getattr(plain, f"nodes_{level}"))
    assert grown.trie.n_items == plain.trie.n_items + 10 and seen, "there are nodes of new items alone"


def check_other_recommenders(places: Mapping[str, Path], root: Path, of_the_pipeline: Mapping[str, Any]) -> None:
    """Stage I by itself finds what it finds in the pipeline; two equal streams find what either of them does."""
    experiment = Experiment.model_validate(TINY)
    sided = {f"{name}@{side}": places[name] for side in SIDES for name in STREAM}
    catalogue, weights = Dataset.load(places["preprocess"]).sequences.n_items, choice.weights_of_others
    looked_at_by = {"evaluate_aligned": min(100, catalogue), "evaluate_two_stream": 2 * experiment.evaluate.beams}
    with pytest.MonkeyPatch.context() as patch:
        fitted = looked_at(patch, "prorec_core.evaluation.reranking")
        (root / "collaborative").mkdir()
        evaluate_collaborative.body(work(experiment, places, root / "collaborative"))
    assert [each.items_UC.shape[1] for each in fitted] == [min(100, catalogue) + BESIDE_CANDIDATES]
    found = {}
    for stage in (evaluate_aligned, evaluate_two_stream):
        folder = root / stage.name
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            fitted, held_out = looked_at(patch, "prorec_core.evaluation.reranking"), Mock(wraps=weights)
            patch.setattr(choice, "weights_of_others", held_out)
            logged = stage.body(work(experiment, {**places, **sided}, folder))
        assert [each.items_UC.shape[1] for each in fitted] == [looked_at_by[stage.name] + BESIDE_CANDIDATES]
        validation = Dataset.load(places["preprocess"]).sequences.histories(Split.VALIDATION).owners
        owners = [call.args[1].tolist() for call in held_out.call_args_list]
        assert owners == [validation.tolist()] * (stage is evaluate_two_stream)
        new = json.loads((folder / "metrics.json").read_text())["new_items"]
        scorer = stage.name.removeprefix("evaluate_")
        assert logged[f"new_items/new/{scorer}/recall_at_10"] == new["new"][scorer]["recall_at_10"]
        assert Evaluation.load(folder).new_item_ranks[scorer].shape == (new["interactions"],)
        found[scorer] = new
        metrics = json.loads((folder / "metrics.json").read_text())
        ranker, reached = metrics["ranker"], metrics["validation"]["ranked"]["ndcg_at_10"]
        assert reached == pytest.approx(ranker["ndcg_at_10"], abs=1e-4)
        assert ("generative" in ranker["features"]) is (scorer == "two_stream")
        assert set(new["new"]) == {scorer, "ranked", "popularity"}
    assert found["aligned"]["new"]["aligned"] == of_the_pipeline["new"]["aligned"]
    assert found["aligned"]["known"]["aligned"] == of_the_pipeline["known"]["aligned"]
    assert found["two_stream"]["new"]["two_stream"] == of_the_pipeline["new"]["generative"]
    assert found["two_stream"]["share_at_10"]["two_stream"] == of_the_pipeline["share_at_10"]["generative"]


def check_lists_made_by_others(places: Mapping[str, Path], root: Path) -> None:
    """Part by part, in any order, and taken up again after a death: what one process makes."""
    asked = list[Asked]()

    @contextmanager
    def others(open_: Open) -> Iterator[Making]:
        make = open_()

        def made(wanted: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
            for name, each in reversed(list(wanted)):
                if isinstance(each, Asked):
                    asked.append(each)
                    if len(asked) == 4:
                        raise InterruptedError
                yield name, make(each)

        yield made

    def by(spread: Spread | None) -> dict[str, str]:
        folder = root / ("others" if spread else "one")
        folder.mkdir(exist_ok=True)
        of_stage = work(Experiment.model_validate(TINY), places, folder)
        evaluate_files(of_stage, spread, partial(lister, of_stage))
        return {path.name: sha256_file(path) for path in folder.iterdir()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prorec_core.evaluation.lists.USERS_AT_ONCE", 50)
        alone = by(None)
        with pytest.raises(InterruptedError):
            by(others)
        assert by(others) == alone
    first, second = (
        [(each.with_new, each.histories.items.tobytes()) for each in part] for part in (asked[:4], asked[4:])
    )
    assert not set(first[:3]) & set(second) and first[3] in second, "what is finished is not made again"
    assert {each.with_new for each in asked} == {each.held_out for each in asked} == {True, False}


@pytest.mark.parametrize(
    "changes", [{}, {"quantize": {"codes": 4, "embedding": "concatenation"}}], ids=["default", "both"]
)
def test_new_items_are_embedded_coded_generated_and_measured(run: Run, changes: dict[str, Any], tmp_path: Path) -> None:
    places = run(**changes)
    dataset = Dataset.load(places["preprocess"])
    assert dataset.new_items is not None
    table = Quantized.load(places["quantize"]).all_items()
    assert table.item_ids == dataset.all_items()["item_id"].to_list()
    found = json.loads((places["evaluate"] / "metrics.json").read_text())
    assert list(found["test"]) == sorted(SCORERS)
    assert found["protocol"]["items"] == dataset.items.height
    held_out, ranker = found["validation"]["ranked"]["ndcg_at_10"], found["ranker"]["ndcg_at_10"]
    assert held_out == pytest.approx(ranker, abs=1e-4) != found["validation"]["fused"]["ndcg_at_10"]
    new = found["new_items"]
    assert new["items"] == len(dataset.new_items)
    assert new["interactions"] == len(dataset.new_items.users) > 0
    assert new["bonus"] == 0.5
    assert sorted(new["new"]) == sorted(new["known"]) == sorted(SCORERS)
    assert "new items" in (places["report"] / "result.md").read_text()
    assert DatasetHistories(dataset).item_ids().to_list() == table.item_ids, "the model knows these and no others"
    if not changes:
        # Ten of fifty items, the model hardly trained: lists of fifty hold what is new as well as anything.
        assert new["new"]["generative"]["recall_at_50"] > 0.9
        assert new["share_at_10"]["fused"] > 0.02
        check_known_nodes_keep_their_means(places, tmp_path)
        check_other_recommenders(places, tmp_path, new)
        check_lists_made_by_others(places, tmp_path)

    example = fill_bundle(
        tmp_path / "bundle",
        work(Experiment.model_validate({"quantize": changes.get("quantize", {})}), places, places["train_generator"]),
    )
    recommender = Recommender.load(tmp_path / "bundle")
    assert recommender.item_ids == table.item_ids
    listed = {item.item_id for each in recommender.recommend([example], k=50) for item in each}
    assert listed & set(dataset.new_items.items["item_id"])


@pytest.mark.pipeline
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_workers_measure_what_one_process_does(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = run()
    monkeypatch.setattr("prorec_core.evaluation.lists.USERS_AT_ONCE", 50)
    digests = {}
    for engine in ("local", "ray"):
        folder = tmp_path / engine
        folder.mkdir()
        experiment = Experiment.model_validate({**TINY, "compute": {"engine": engine, "workers": 1}})
        of_stage = replace(work(experiment, places, folder), experiment=evaluate.part(experiment))
        with threadpool_limits(1):
            evaluate.body(of_stage)
        assert of_stage.made_with.get("engine") == {"local": None, "ray": "ray"}[engine]
        digests[engine] = {path.name: sha256_file(path) for path in folder.iterdir()}
    assert digests["ray"] == digests["local"]


def test_by_time_new_items_are_placed_and_all_that_recommends_is_measured(run: Run, tmp_path: Path) -> None:
    """On a shop where people buy again."""
    shop = {"demo": {"users": 120, "items": 50, "repeats": 0.3}, "split": "by_time", "min_item_interactions": 10}
    changes = {"data": shop, "evaluate": {"mask_history": False}}
    places = run(**changes)
    dataset = Dataset.load(places["preprocess"])
    about = dataset.split["test"]
    assert dataset.new_items is not None
    assert min(about["targets_of_new_items"], about["targets_of_new_users"]) > 0
    found = json.loads((places["evaluate"] / "metrics.json").read_text())
    assert found["protocol"]["test_targets"] == about["targets"] > found["protocol"]["test_users"]
    assert {"often_taken", "lately_taken", *SCORERS} == set(found["test"])
    assert found["slices"].keys() == {"target_popularity", "history_length", "user", "repeats"}
    new = found["new_items"]
    assert (new["items"], new["interactions"]) == (len(dataset.new_items), about["targets_of_new_items"])
    assert new["all"].keys() == new["new"].keys()
    assert new["new"]["generative"]["recall_at_50"] > 0.5, "what is placed by its text is found in long lists"
    assert found["ranker"]["features"][-2:] == ["own_count", "own_recency"]

    experiment = Experiment.model_validate({**TINY, **changes})
    sided = {f"{name}@{side}": places[name] for side in SIDES for name in STREAM}
    for stage in (evaluate_aligned, evaluate_two_stream):
        folder = tmp_path / stage.name
        folder.mkdir()
        stage.body(work(experiment, {**places, **sided}, folder))
        own = json.loads((folder / "metrics.json").read_text())
        scorer = {"evaluate_aligned": "aligned", "evaluate_two_stream": "generative"}[stage.name]
        name = stage.name.removeprefix("evaluate_")
        assert own["test"][name]["ndcg_at_10"] == found["test"][scorer]["ndcg_at_10"], "two equal streams are one"
        assert own["protocol"]["unseen"] == found["protocol"]["unseen"]

    example = fill_bundle(tmp_path / "bundle", work(experiment, places, places["train_generator"]))
    recommender = Recommender.load(tmp_path / "bundle")
    assert not recommender.history_masked
    again, without = (
        {item.item_id for item in recommender.recommend([example], k=50, **asked)[0]}
        for asked in ({}, {"mask_history": True})
    )
    assert again - without == set(example), "by itself it recommends as it was measured"
    chunk = next(DatasetHistories(dataset).chunks(1000))
    taken = {item for history in chunk.histories.to_list() for item in history}
    assert taken & set(dataset.new_items.items["item_id"]), "what was taken after the training is history too"
    assert taken <= set(recommender.item_ids)
