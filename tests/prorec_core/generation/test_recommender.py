from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from prorec_core.artifacts import write_parquet
from prorec_core.data.embeddings import write_embeddings
from prorec_core.data.sequences import Sequences, Split
from prorec_core.errors import UserError
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.stage import GeneratorInputs, train_generator
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.quantization.quantized import CodeTable
from prorec_core.training.runtime import Runtime

CPU = torch.device("cpu")
IDS = [f"id-{item:02d}" for item in range(24)]


@pytest.fixture(scope="module", params=["ranked", "fused", "generative", "beams alone"])
def bundle(
    request: Any, make_inputs: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, GeneratorInputs, TrainedGenerator]:
    """A folder as it is registered, the inputs of the training and what it left."""
    folder = tmp_path_factory.mktemp("bundle")
    alone = {"distill": {"beta": 0.0}, "dense": "head"} if request.param == "beams alone" else {}
    ranked = request.param == "ranked"
    inputs = make_inputs(config={"epochs": 6, "dropout": 0.0, "ranker": ranked, **alone})
    trained = train_generator(inputs, 0, Runtime(CPU))
    # Which of them is better on so few users is chance.
    recommended = {"beams alone": "generative"}.get(request.param, request.param)
    trained = replace(trained, config={**trained.config, "recommended": recommended})
    trained.save(folder)
    CodeTable(inputs.codes, IDS).save(folder / "codes.parquet")
    write_embeddings(folder / "embeddings.parquet", inputs.embeddings)
    items = pl.DataFrame(
        {"item_id": IDS, "title": [f"Title {id_}" for id_ in IDS], "train_count": np.arange(24)[::-1].copy()}
    )
    write_parquet(folder / "items.parquet", items.to_arrow())
    return folder, inputs, trained


def test_it_recommends_what_the_generator_ranks_first(
    bundle: tuple[Path, GeneratorInputs, TrainedGenerator], checkerboard: Sequences
) -> None:
    folder, inputs, trained = bundle
    histories = checkerboard.histories(Split.TEST)
    generator = restore_generator(trained, inputs.codes, inputs.embeddings, CPU)
    found = find_candidates(generator, histories, 50, 50)
    items, scores = found.generative(7)
    if trained.recommended == "fused":
        items, scores = found.fused(trained.fusion_weight or 0.0, 7)
    if trained.recommended == "ranked":
        assert trained.ranker is not None
        items, scores = trained.ranker.rank(found, histories, 7)
    asked = [[IDS[item] for item in histories.of_user(user)] for user in range(histories.n_users)]
    answers = Recommender.load(folder).recommend(asked, 7)
    for user, answer in enumerate(answers):
        assert [each.item_id for each in answer] == [IDS[item] for item in items[user]]
        assert [each.title for each in answer] == [f"Title {each.item_id}" for each in answer]
        np.testing.assert_allclose([each.score for each in answer], scores[user], rtol=1e-5)
    targets = checkerboard.targets(Split.TEST)
    assert np.mean([answer[0].item_id == IDS[targets[user]] for user, answer in enumerate(answers)]) > 0.9


def test_what_no_history_decides_is_made_once(
    bundle: tuple[Path, GeneratorInputs, TrainedGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, trained = bundle
    recommender, made = Recommender.load(folder), []
    model = recommender.generator.stage_one
    recommender.recommend([["id-03"]], 5)
    if model is not None:
        monkeypatch.setattr(model, "scorer", made.append)
    for _ in range(3):
        assert len(recommender.recommend([["id-03", "id-05"]], 5)[0]) == 5
    assert not made
    assert (model is None) == (trained.config["stage_one"] is None)


def test_unknown_items_are_passed_over_and_named(bundle: tuple[Path, GeneratorInputs, TrainedGenerator]) -> None:
    recommender = Recommender.load(bundle[0])
    known, mixed = recommender.recommend([["id-02", "id-04"], ["nobody", "id-02", "id-99", "id-04"]], 5)
    assert known == mixed
    assert recommender.unknown(["nobody", "id-02", "id-99", "nobody"]) == ["nobody", "id-99"]
    assert recommender.suggest("my id-02") == "Did you mean 'id-02'?"
    assert recommender.suggest("###") == "Look the id up in items.parquet"


def test_a_history_of_nothing_known_gets_what_is_popular(
    bundle: tuple[Path, GeneratorInputs, TrainedGenerator],
) -> None:
    recommender = Recommender.load(bundle[0])
    empty, unknown, known = recommender.recommend([[], ["nobody"], ["id-02", "id-04"]], 4)
    assert [each.item_id for each in empty] == IDS[:4]
    assert empty == unknown
    assert known != empty
    assert all(first.score >= second.score for first, second in pairwise(empty))


def test_columns_of_histories_get_what_each_history_gets(
    bundle: tuple[Path, GeneratorInputs, TrainedGenerator], checkerboard: Sequences
) -> None:
    recommender, histories = Recommender.load(bundle[0]), checkerboard.histories(Split.TEST)
    asked = [[IDS[item] for item in histories.of_user(user)] for user in range(9)]
    asked[1:1] = [[], ["nobody"]]
    asked[5] = ["nobody", asked[5][0], asked[5][0], "id-99"]
    known = recommender.known(pl.Series(asked, dtype=pl.List(pl.String)))
    assert [known.of_user(user).tolist() for user in range(len(asked))] == [
        [IDS.index(item) for item in history if item in IDS] for history in asked
    ]
    best = recommender.top(known, 30)
    for answer, items, scores in zip(recommender.recommend(asked, 30), best.items_UK, best.scores_UK, strict=True):
        assert [IDS.index(each.item_id) for each in answer] == items[items >= 0].tolist()
        assert [each.score for each in answer] == scores[items >= 0].tolist()
    nobody = recommender.known(pl.Series([[], ["nobody"]], dtype=pl.List(pl.String)))
    assert nobody.offsets.tolist() == [0, 0, 0]
    assert recommender.top(nobody, 2).items_UK.tolist() == [[0, 1], [0, 1]]


def test_the_history_is_masked_unless_asked_for(bundle: tuple[Path, GeneratorInputs, TrainedGenerator]) -> None:
    recommender, history = Recommender.load(bundle[0]), ["id-02", "id-04", "id-06"]
    (masked,) = recommender.recommend([history], 24)
    assert sorted(each.item_id for each in masked) == sorted(set(IDS) - set(history))
    (whole,) = recommender.recommend([history], 100, mask_history=False)
    assert sorted(each.item_id for each in whole) == IDS
    assert recommender.recommend([], 3) == []


def test_what_cannot_be_is_refused(bundle: tuple[Path, GeneratorInputs, TrainedGenerator], tmp_path: Path) -> None:
    folder, inputs, _ = bundle
    with pytest.raises(UserError, match="k must be a whole number, at least 1"):
        Recommender.load(folder).recommend([[]], 0)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    CodeTable(inputs.codes, IDS[::-1]).save(tmp_path / "codes.parquet")
    with pytest.raises(UserError, match="different catalogues"):
        Recommender.load(tmp_path)
    (tmp_path / "codes.parquet").unlink()
    with pytest.raises(UserError, match=r"codes.parquet: a file of the model is missing"):
        Recommender.load(tmp_path)
