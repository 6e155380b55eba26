"""PRORec as a library, asked in ways that are not meant: told, and nothing of the caller's is touched."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from prorec_core import (
    Choice,
    Dataset,
    Evaluation,
    Experiment,
    Progress,
    Recommender,
    Rule,
    Run,
    UserError,
    load_data,
    open_run,
    train,
)
from prorec_core.artifacts import MANIFEST, Manifest
from tests.tiny import tiny

TINY = Experiment.model_validate(tiny({"name": "library"}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(TINY, tmp_path_factory.mktemp("run"), quiet=True)


@pytest.fixture(scope="module")
def model(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    run.export(folder)
    return folder


def digest(run: Run, stage: str) -> str:
    return Manifest.model_validate_json((run.folder / stage / MANIFEST).read_bytes()).digest


@pytest.mark.parametrize("theirs", ["evaluate/code.py", "preprocess/mine.txt", ".at-work/notes", "align"])
def test_what_is_the_callers_stays(tmp_path: Path, theirs: str) -> None:
    (tmp_path / theirs).parent.mkdir(exist_ok=True)
    (tmp_path / theirs).write_text("mine")
    with pytest.raises(UserError, match=r"none of ours under the name '.*'\. Train in a folder of its own"):
        train(TINY, tmp_path, until="preprocess", quiet=True)
    assert (tmp_path / theirs).read_text() == "mine" and not (tmp_path / "experiment.json").exists()


@pytest.mark.parametrize(
    ("folder", "told"),
    [("", "'' is no folder"), (3, "3 is no folder"), ("file", "this is a file, not a folder")],
)
def test_what_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Any, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    for call in (lambda: train(TINY, folder, quiet=True), lambda: open_run(folder)):
        with pytest.raises(UserError, match=told):
            call()


@pytest.mark.parametrize(
    ("experiment", "told"),
    [
        ("demo", "this is no Experiment but of type str"),
        (tiny(), "no Experiment but of type dict"),
        (TINY.model_copy(update={"sead": 4}), "sead: Extra inputs are not permitted"),
        (TINY.model_copy(update={"seed": "x"}), "seed: Input should be a valid integer"),
        (TINY.model_copy(update={"quantize": {"codes": -1}}), r"quantize\.codes: Input should be greater"),
    ],
)
def test_what_is_no_experiment(experiment: Any, told: str) -> None:
    for call in (lambda: train(experiment, quiet=True), lambda: load_data(experiment)):
        with pytest.raises(UserError, match=told):
            call()


def test_a_copy_with_a_section_of_plain_data_is_what_it_says(tmp_path: Path) -> None:
    data = {**TINY.data.model_dump(), "min_user_interactions": 6}
    made = train(TINY.model_copy(update={"data": data}), tmp_path, until="preprocess", quiet=True)
    assert made.experiment.data.min_user_interactions == 6


@pytest.mark.parametrize("field", ["path", "interactions_file", "items_file"])
def test_files_that_the_built_in_shop_would_not_read_are_told(tmp_path: Path, field: str) -> None:
    with pytest.raises(UserError, match=f"data.{field}: the source 'demo', the built-in shop, reads no files"):
        train(Experiment.model_validate({"data": {field: "/data/shop"}}), tmp_path, quiet=True)


def test_another_experiment_is_told_with_what_differs(run: Run) -> None:
    align = TINY.align.model_copy(update={"alpha": 0.5})
    with pytest.raises(UserError, match=r"seed is 0 there and not 1, align\.alpha is 0\.01 there and not 0\.5\."):
        train(TINY.model_copy(update={"seed": 1, "align": align}), run.folder, quiet=True)


def test_trainings_of_several_threads_are_those_of_one(tmp_path: Path) -> None:
    experiments = {"a": TINY, "b": TINY.model_copy(update={"seed": 1})}

    def begin(name: str, folder: Path) -> threading.Thread:
        # Threads may compute with other numbers of threads than the first one, which moves last bits.
        kwargs = {"until": "align", "quiet": True}
        thread = threading.Thread(target=train, args=(experiments[name], folder), kwargs=kwargs)
        thread.start()
        return thread

    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    for thread in [begin(name, tmp_path / "beside" / name) for name in experiments]:
        thread.join()
    for name in experiments:
        begin(name, tmp_path / "alone" / name).join()
    found = {place: [digest(open_run(tmp_path / place / name), "align") for name in experiments]
             for place in ("beside", "alone")}  # fmt: skip
    assert found["beside"] == found["alone"] and len(set(found["alone"])) == 2
    assert torch.equal(torch.rand(3), drawn), "the caller's generator goes on where it was"


def test_who_is_told_of_a_training_may_train(run: Run, tmp_path: Path) -> None:
    within = []

    def tell(stage: str, _: Progress) -> None:
        if stage == "train_collaborative" and not within:
            within.append(train(TINY, tmp_path / "within", until="train_collaborative", quiet=True))

    made = train(TINY, tmp_path / "outer", until="train_collaborative", tell=tell, quiet=True)
    stage = "train_collaborative"
    assert digest(within[0], stage) == digest(made, stage) == digest(run, stage)


def test_a_training_where_no_gradients_are_kept_keeps_its_own(run: Run, tmp_path: Path) -> None:
    with torch.no_grad():
        made = train(TINY, tmp_path, until="align", quiet=True)
    assert digest(made, "align") == digest(run, "align")


def test_a_history_may_be_whatever_holds_texts(run: Run) -> None:
    ids = run.codes["item_id"].to_list()[:4]
    wanted = run.recommend(ids)
    frame = run.codes[:4]["item_id"]
    for history in (iter(ids), tuple(ids), frame, frame.to_numpy(), np.array(ids), dict.fromkeys(ids)):
        assert run.recommend(history).equals(wanted)  # type: ignore[arg-type]
    assert run.in_common(iter(ids[:2]), iter(ids[2:])).equals(run.in_common(ids[:2], ids[2:]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([1, 2], "item ids are texts, and 1 is of type int. Write str"),
        ([None], "item ids are texts, and None is of type NoneType"),
        (pa.array(["P1"]), "is of type StringScalar"),
        ([["P1"]], "is of type list"),
        (None, "of type NoneType, not a list of item ids"),
        ("P1", r"one text stands where a list of item ids should. Write \['P1'\]"),
    ],
)
def test_what_is_no_history(run: Run, model: Path, history: Any, told: str) -> None:
    recommender = Recommender.load(model)
    with pytest.raises(UserError, match=f"^history: .*{told}"):
        run.recommend(history)
    with pytest.raises(UserError, match=rf"^histories\[1\]: .*{told}"):
        recommender.recommend([[], history])


@pytest.mark.parametrize("k", [0, -1, 2.5, "5", None])
def test_what_is_no_length_of_a_list(run: Run, k: Any) -> None:
    with pytest.raises(UserError, match="k must be a whole number, at least 1"):
        run.recommend([], k)


def test_a_model_of_its_own(run: Run, model: Path) -> None:
    ids = run.codes["item_id"].to_list()[:3]
    found = Recommender.load(str(model), device="auto").recommend([ids], 5)[0]
    best = run.recommend(ids, 5)
    assert [each.item_id for each in found] == best["item_id"].to_list()
    np.testing.assert_allclose([each.score for each in found], best["score"].to_numpy(), rtol=1e-6)
    with pytest.raises(UserError, match="something is there already"):
        run.export(model)
    for wrong, told in (("cuda:77", "not available"), ("cpv", "'cpv' is no device")):
        with pytest.raises(UserError, match=told):
            Recommender.load(model, device=wrong)
    with pytest.raises(UserError, match=r"a file of the model is missing.*open_run\(…\)\.export"):
        Recommender.load(run.folder)
    assert [path.name for path in model.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["items.parquet", "embeddings.parquet", "codes.parquet"])
def test_a_damaged_table_of_a_model_is_told(model: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(model, tmp_path / "damaged")
    (tmp_path / "damaged" / name).write_bytes(b"PAR1 not")
    with pytest.raises(UserError, match=rf"{name}: the table cannot be read"):
        Recommender.load(tmp_path / "damaged")


def test_rules_made_by_hand_are_told_apart(run: Run, model: Path) -> None:
    recommender = Recommender.load(model)
    ids = recommender.item_ids
    rules = [Rule(only=Choice(items=ids[start:end])) for start, end in ((0, 3), (5, 9))]
    assert [recommender.rules.left(rule).allowed.count for rule in rules] == [3, 4]
    first, second = recommender.recommend(
        [ids[10:12], []], 3, rules=[rules[0], recommender.rules.left(rules[1]).allowed]
    )
    assert {each.item_id for each in first} == set(ids[:3]) and {each.item_id for each in second} <= set(ids[5:9])
    best = run.recommend(ids[10:12], 3)["item_id"].to_list()
    assert not {*best} & {*run.recommend(ids[10:12], 3, rule=Rule(exclude=Choice(items=best)))["item_id"]}
    with pytest.raises(UserError, match="no item of the catalogue is left"):
        run.recommend([], rule=Rule(exclude=Choice(items=ids)))
    with pytest.raises(UserError, match=r"only\.list: the list 'sale' is not there"):
        Rule(only=Choice(list="sale"))
    with pytest.raises(UserError, match="rules: of type dict, not a rule"):
        recommender.recommend([[]], rules=[{"only": ids}])  # type: ignore[list-item]
    for wrong in (rules[:1], [*rules, None]):
        with pytest.raises(UserError, match=r"rules: [13] rules for 2 histories\. Give one a history"):
            recommender.recommend([[], []], 3, rules=wrong)


def test_a_run_is_opened_elsewhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    data = load_data(TINY)
    owners = np.repeat(data.users["user_id"].to_numpy(), np.diff(data.sequences.offsets))
    items = data.items.select("item_id", "title", categories="text")
    items.write_parquet(shop / "items.parquet")
    log = items.select("item_id")[data.sequences.items].with_columns(user_id=owners, timestamp=data.timestamps)
    log.write_parquet(shop / "interactions.parquet")
    monkeypatch.chdir(tmp_path)
    own = TINY.model_copy(update={"data": TINY.data.model_copy(update={"source": "tables", "path": "shop"})})
    made = train(own, "made", quiet=True)
    monkeypatch.chdir(tmp_path.parent)
    assert made.recommend([]).height == 10, "the folder is the same wherever the process goes"
    shutil.rmtree(shop)
    opened = open_run(tmp_path / "made", device="cpu")
    assert opened.experiment.device == "cpu" and opened.evaluate().height > 3
    assert opened.evaluation.metrics["recommended"] in set(opened.evaluate()["scorer"])
    # What the data would be needed for is told.
    shutil.rmtree(tmp_path / "made" / "preprocess")
    with pytest.raises(UserError, match=r"there is no such folder|does not exist"):
        open_run(tmp_path / "made").train()
    with pytest.raises(UserError, match="device: "):
        open_run(run.folder, device="kpu").recommend([])


def test_folders_are_read_by_the_names_of_their_paths(run: Run) -> None:
    run.evaluate()
    assert Dataset.load(str(run.folder / "preprocess")).sequences.n_items == run.dataset.sequences.n_items
    assert Evaluation.load(str(run.folder / "evaluate")).metrics == run.evaluation.metrics


def test_quiet_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(TINY, tmp_path, until="embed_text", quiet=True)
    assert capfd.readouterr() == ("", "")
