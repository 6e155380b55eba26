"""Items that come to a trained model and go from it: what was there stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from prorec_core import versions
from prorec_core.alignment.placing import place
from prorec_core.artifacts import write_json, write_parquet
from prorec_core.config import QuantizeConfig
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data.embeddings import write_embeddings
from prorec_core.data.sequences import Sequences, Split
from prorec_core.errors import UserError
from prorec_core.generation.additions import add_items, bring_back, withdraw_items
from prorec_core.generation.base import Generator
from prorec_core.generation.bundle import Bundle, Placing
from prorec_core.generation.candidates import Candidates, find_candidates
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.relations import Relations, near_of
from prorec_core.generation.similar import Near
from prorec_core.generation.stage import train_generator
from prorec_core.generation.trained import restore_generator
from prorec_core.quantization.stage import quantize
from prorec_core.training.checkpoint import save_tensors
from prorec_core.training.runtime import Runtime
from tests.bundles import write_bundle

CPU = torch.device("cpu")
N_ITEMS, WIDTH = 24, 10
IDS = [f"id-{item:02d}" for item in range(N_ITEMS)]
SHAPES: dict[str, dict[str, Any]] = {
    "suffix": {},
    "reassign, both teachers": {
        "collisions": "reassign",
        "config": {"distill": {"temperature": 0.2, "teacher": "both"}},
    },
    "codes compete": {"config": {"trie_mask": False, "node_scores": False}},
    "paper": {
        "config": {
            "architecture": "encoder_decoder",
            "warm_start": False,
            "dense": "head",
            "distill": {"temperature": 0.2, "at": "summary"},
        }
    },
}


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def bundle(request: Any, make_inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model as it is registered, of some shape."""
    shape = SHAPES[request.param]
    folder = tmp_path_factory.mktemp("bundle")
    aligned = make_inputs().aligned
    settings_ = QuantizeConfig(levels=2, codes=8, collisions=shape.get("collisions", "suffix"))
    quantized = quantize(settings_, aligned.integrated, IDS, 0)
    levels = quantized.level_centroids
    inputs = make_inputs(
        codes=quantized.table.codes,
        codebooks=[*levels, *[None] * (quantized.table.depth - len(levels))],
        config={"epochs": 2, **shape.get("config", {})},
    )
    trained = train_generator(inputs, 0, Runtime(CPU))
    trained.save(folder)
    quantized.save(folder)
    save_tensors(folder / "adapter.safetensors", aligned.adapter)
    sections = {"align": aligned.config, "collaborative": aligned.collaborative_config}
    named = {name: each.model_dump(mode="json") for name, each in sections.items()}
    write_json(folder / "align.json", versions.stored(named))
    write_embeddings(folder / "embeddings.parquet", inputs.embeddings)
    rows = {"item": np.arange(N_ITEMS, dtype=np.int32), "item_id": IDS, "title": IDS, "text": IDS}
    items = pl.DataFrame({**rows, "train_count": np.arange(N_ITEMS)[::-1].copy()})
    write_parquet(folder / "items.parquet", items.to_arrow())
    Placing(DataConfig(), TextConfig(), {"digest": "x"}, settings_, inputs.texts).save(folder)
    Catalogue.of_training(N_ITEMS).save(folder)
    return Bundle.load(folder)


def placing_of(bundle: Bundle) -> Placing:
    return Placing.load(bundle.folder, "models:/x/1")


def new_items(names: list[str], seed: int) -> tuple[pl.DataFrame, Any]:
    vectors = np.random.default_rng(seed).normal(size=(len(names), WIDTH)).astype(np.float32)
    return pl.DataFrame(
        {"item_id": names, "title": names, "text": names}, schema=dict.fromkeys(("item_id", "title", "text"), pl.String)
    ), vectors


def grown(bundle: Bundle, names: list[str], seed: int = 5, bonus: float = 0.0) -> Bundle:
    return add_items(bundle, placing_of(bundle), *new_items(names, seed), bonus)


def generator_of(bundle: Bundle, left_out: slice | None = None) -> Generator:
    """The generator; with items left out as a rule would."""
    found = restore_generator(bundle.trained, bundle.codes.codes, bundle.embeddings, CPU, bundle.catalogue)
    if left_out is not None:
        offsets = torch.zeros(len(bundle.codes.codes))
        offsets[left_out] = -torch.inf
        found.offset_items(offsets)
    return found


def ranked(bundle: Bundle, found: Candidates, histories: Sequences) -> list[tuple[Any, Any]]:
    lists = [found.generative(10), found.dense(10), found.fused(0.5, 10)]
    if bundle.trained.ranker is not None:
        lists.append(bundle.trained.ranker.rank(found, histories, 10))
    return lists


def near(bundle: Bundle) -> Near | None:
    return None if bundle.trained.ranker is None else near_of(bundle.trained.ranker.relations)


def check_lists_are_what_they_were(before: Bundle, after: Bundle, histories: Sequences) -> None:
    known = before.items.height
    one = find_candidates(generator_of(before), histories, 10, 20, near=near(before))
    other = find_candidates(generator_of(after, slice(known, None)), histories, 10, 20, near=near(after))
    own = Sequences(histories.items, histories.offsets, after.items.height)
    lists = zip(ranked(before, one, histories), ranked(after, other, own), strict=True)
    for (items, scores), (items_after, scores_after) in lists:
        np.testing.assert_array_equal(items, items_after)
        np.testing.assert_allclose(scores, scores_after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 12), (2, 19)])
def test_where_the_new_items_are_left_out_every_list_is_what_it_was(
    bundle: Bundle, checkerboard: Sequences, seed: int, count: int
) -> None:
    histories = checkerboard.histories(Split.TEST)
    after = grown(bundle, [f"new-{item}" for item in range(count)], seed)
    check_lists_are_what_they_were(bundle, after, histories)
    again = grown(after, [f"later-{item}" for item in range(count)], seed + 1)
    check_lists_are_what_they_were(after, again, Sequences(histories.items, histories.offsets, after.items.height))


def test_old_items_keep_their_codes_and_new_ones_have_their_own(bundle: Bundle, tmp_path: Path) -> None:
    after = grown(bundle, [f"new-{item}" for item in range(40)])
    np.testing.assert_array_equal(after.codes.codes[:N_ITEMS], bundle.codes.codes)
    assert len({tuple(row) for row in after.codes.codes.tolist()}) == N_ITEMS + 40
    after.save(tmp_path / "saved")
    read = Bundle.load(tmp_path / "saved")
    assert read.items.equals(after.items) and read.catalogue.since.tolist() == [0] * N_ITEMS + [1] * 40
    one, other = (Recommender.of_bundle(each).recommend([IDS[:3], ["new-3", IDS[4]], []], 30) for each in (after, read))
    assert one == other
    assert any(item.item_id.startswith("new-") for item in one[0])
    assert placing_of(read).texts.shape == (N_ITEMS, WIDTH), "items that nobody has taken lend nothing to others"


def test_what_comes_in_two_steps_is_placed_as_what_comes_in_one(bundle: Bundle) -> None:
    names, (frame, vectors) = [f"new-{item}" for item in range(9)], new_items([f"new-{item}" for item in range(9)], 2)
    once = add_items(bundle, placing_of(bundle), frame, vectors)
    first = add_items(bundle, placing_of(bundle), frame[:4], vectors[:4])
    twice = add_items(first, placing_of(bundle), frame[4:], vectors[4:])
    assert once.codes.item_ids == twice.codes.item_ids == [*IDS, *names]
    np.testing.assert_array_equal(once.codes.codes, twice.codes.codes)
    np.testing.assert_allclose(once.embeddings, twice.embeddings, rtol=1e-5)
    for name, tensor in once.trained.tensors.items():
        torch.testing.assert_close(tensor, twice.trained.tensors[name], rtol=1e-5, atol=1e-6)


def test_they_are_placed_and_counted_as_new_items_of_an_experiment_are(
    bundle: Bundle, make_inputs: Any, checkerboard: Sequences
) -> None:
    inputs, (frame, vectors) = make_inputs(), new_items(["new-0", "new-1"], 3)
    after = add_items(bundle, placing_of(bundle), frame, vectors)
    aligned = inputs.aligned
    from prorec_core.alignment.adapter import AdaLNAdapter

    adapter = AdaLNAdapter(WIDTH, aligned.semantic.shape[1])
    adapter.load_state_dict(dict(aligned.adapter))
    expected = place(adapter, aligned.config, aligned.integrated, inputs.texts, vectors)
    np.testing.assert_allclose(after.embeddings[N_ITEMS:], expected.integrated, rtol=1e-6)
    relations = Relations.of(checkerboard.training(), np.concatenate([inputs.texts, vectors]))
    if after.trained.ranker is not None:
        found = after.trained.ranker.relations
        np.testing.assert_allclose(found.counts_N, relations.counts_N, rtol=1e-6)
        np.testing.assert_allclose(found.successors.toarray(), relations.successors.toarray(), rtol=1e-5, atol=1e-6)
        assert found.similar is not None and relations.similar is not None
        np.testing.assert_allclose(found.similar.toarray(), relations.similar.toarray(), rtol=1e-5, atol=1e-6)


def test_what_is_withdrawn_is_recommended_to_nobody_and_passed_over_in_histories(bundle: Bundle) -> None:
    gone = [IDS[2], IDS[7], "new-1"]
    after = withdraw_items(grown(bundle, ["new-0", "new-1"]), gone)
    recommender = Recommender.of_bundle(after)
    with_gone, without, empty = recommender.recommend([[IDS[0], IDS[7], IDS[4]], [IDS[0], IDS[4]], []], 100)
    assert with_gone == without
    assert recommender.unknown([IDS[0], IDS[7], "nobody"]) == [IDS[7], "nobody"]
    for found, history in ((without, {IDS[0], IDS[4]}), (empty, set[str]())):
        assert {item.item_id for item in found} == {*IDS, "new-0"} - set(gone) - history
    known = recommender.known(pl.Series([[IDS[0], IDS[7], IDS[4]]]))
    assert known.of_user(0).tolist() == [0, 4]


def test_what_comes_back_is_what_it_was(bundle: Bundle) -> None:
    back = withdraw_items(bundle, IDS[:5]).withdrawn(np.arange(5), False)
    one, other = (Recommender.of_bundle(each).recommend([IDS[5:8], []], 30) for each in (bundle, back))
    assert one == other


def test_columns_for_rules_stay_what_they_are_and_are_the_files_when_an_item_comes_back(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    large = 2**53
    attributes = pl.DataFrame({"code": large + np.arange(N_ITEMS), "price": np.arange(N_ITEMS) + 0.5})
    bundle = replace(Bundle.load(tmp_path / "bundle"), attributes=attributes)
    placing = Placing.load(bundle.folder, "model")
    new = pl.DataFrame({"item_id": ["n1"], "title": ["n1"], "text": ["n1"]})
    for code in (pl.Series([None], dtype=pl.Null), pl.Series([None], dtype=pl.Float64), pl.Series([7.0])):
        columns = pl.DataFrame({"code": code, "price": [1]})
        grown = add_items(bundle, placing, new, placing.texts[:1], attributes=columns).attributes
        assert grown is not None and grown.schema == attributes.schema
        assert grown["code"][:N_ITEMS].to_list() == attributes["code"].to_list(), "no number became its neighbour"
        assert grown.row(-1) == (code[0], 1.0)
    ids = [IDS[5], IDS[2]]
    less = withdraw_items(bundle, ids)
    dearer = bring_back(less, ids, pl.DataFrame({"price": [50.0, 20.0]}))
    assert dearer.attributes is not None and not dearer.catalogue.withdrawn.any()
    assert dearer.attributes["price"].to_list()[:6] == [0.5, 1.5, 20.0, 3.5, 4.5, 50.0]
    assert dearer.attributes["code"].equals(attributes["code"])
    assert bring_back(less, ids).attributes is attributes


def test_popular_items_keep_their_scores(bundle: Bundle) -> None:
    (before,), (after,) = (
        Recommender.of_bundle(each).recommend([[]], 60) for each in (bundle, grown(bundle, ["a", "b"]))
    )
    assert after[:N_ITEMS] == before and [item.item_id for item in after[N_ITEMS:]] == ["a", "b"]


def test_a_bonus_lifts_new_items(bundle: Bundle, checkerboard: Sequences) -> None:
    names = [f"new-{item}" for item in range(8)]
    asked = [[IDS[item] for item in checkerboard.of_user(user)[:3]] for user in range(40)]
    shares = []
    for bonus in (0.0, 3.0):
        found = Recommender.of_bundle(grown(bundle, names, bonus=bonus)).recommend(asked, 5)
        shares.append(np.mean([item.item_id in names for each in found for item in each]))
    if bundle.trained.recommended != "ranked":
        assert shares[0] < shares[1]
    assert shares[0] <= shares[1]


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["nobody"], "the item 'nobody' is not in the model"),
        (["a", "b", "c", "d", "e"], "the items 'a', 'b', 'c' and 2 more are not in the model"),
        (IDS, "no item would be left"),
    ],
)
def test_what_cannot_be_withdrawn_is_one_line(bundle: Bundle, ids: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        withdraw_items(bundle, ids)
    with pytest.raises(UserError, match=f"'{IDS[0]}' is withdrawn already"):
        withdraw_items(withdraw_items(bundle, IDS[:1]), IDS[:1])


def test_a_model_that_lacks_what_placing_takes_says_so(bundle: Bundle, tmp_path: Path) -> None:
    replace(bundle).save(tmp_path / "old")
    (tmp_path / "old" / "texts.parquet").unlink()
    with pytest.raises(
        UserError, match=r"models:/x/1: the model does not carry .*texts.parquet.*--force train_generator"
    ):
        Placing.load(tmp_path / "old", "models:/x/1")
