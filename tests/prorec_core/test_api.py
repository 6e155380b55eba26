"""PRORec as a library: what is public, what a run in a folder holds, how it goes on, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import prorec_core
from prorec_core import Experiment, Progress, Run, UserError, fitting, load_data, open_run, train
from prorec_core.artifacts import MANIFEST, Manifest
from prorec_core.config import CollaborativeConfig
from prorec_core.evaluation.asked import Asked
from prorec_core.evaluation.new_items import new_item_histories
from prorec_core.generation.features import FEATURES
from prorec_core.generation.recommender import Recommender
from prorec_core.stages import in_folder
from prorec_core.stages.evaluate import lister
from tests.tiny import tiny

TINY = Experiment.model_validate(tiny({"name": "library"}, epochs=2))
STAGES = list(in_folder.BODIES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(TINY, tmp_path_factory.mktemp("run"), quiet=True)


def digests(run: Run) -> dict[str, str]:
    found = {name: run.folder / name / MANIFEST for name in STAGES}
    return {
        name: Manifest.model_validate_json(path.read_bytes()).digest for name, path in found.items() if path.is_file()
    }


def test_to_import_it_is_cheap_and_threads_wait_briefly() -> None:
    script = (
        "import sys, os, prorec_core\n"
        "assert not {'torch', 'polars', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "os.environ['GOMP_SPINCOUNT'] = '7'\n"
        "from prorec_core import train\n"
        "assert 'prefect' not in sys.modules and 'mlflow' not in sys.modules\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["passive", "7"]


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert set(prorec_core.__all__) == set(prorec_core._PLACES) <= set(dir(prorec_core))
    for name in prorec_core.__all__:
        assert getattr(prorec_core, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = prorec_core.trian


def test_a_run_holds_data_codes_embeddings_and_figures(run: Run) -> None:
    n_items, sequences = run.dataset.sequences.n_items, load_data(TINY).sequences
    assert np.array_equal(run.dataset.sequences.items, sequences.items)
    assert run.codes.columns[:3] == ["item_id", "title", "code_0"] and run.codes.height == n_items
    assert run.codes.select(pl.exclude("item_id", "title")).is_unique().all()
    assert {name: len(table) for name, table in run.embeddings.items()} == dict.fromkeys(
        ("text", "collaborative", "adapted", "aligned_collaborative", "integrated"), n_items
    )
    assert 0 <= run.domination["integrated"]["text_share"] <= 1 and run.quality["items"] == n_items
    assert {name: len(epochs) for name, epochs in run.training.items()} == dict.fromkeys(run.training, 2)
    assert "library" in repr(run) and "train_generator" in repr(run)


def test_recommendations(run: Run) -> None:
    ids = run.codes["item_id"].to_list()
    best = run.recommend(ids[:3], 5)
    assert best["rank"].to_list() == [1, 2, 3, 4, 5] and not set(best["item_id"]) & set(ids[:3])
    assert best["score"].is_sorted(descending=True)
    assert run.recommend(ids, 5).is_empty() and run.recommend(ids, 5, mask_history=False).height == 5
    counts = dict(run.dataset.items.select("item_id", "train_count").iter_rows())
    assert run.recommend([], 1)["item_id"].to_list() == [max(counts, key=lambda each: (counts[each], each < ids[-1]))]


def test_what_is_in_common_with_a_history(run: Run) -> None:
    ids, titles = (run.codes[name].to_list() for name in ("item_id", "title"))
    (own, other) = run.in_common(ids[:2], ids[:1]).iter_rows(named=True)
    depth = run.codes.width - 2
    assert (own["shared_codes"], own["by_codes"], own["by_text"]) == (depth, titles[0], titles[0])
    assert own["text_similarity"] == pytest.approx(1) and other["shared_codes"] < depth
    assert (other["by_codes"] is None) == (other["shared_codes"] == 0)
    for row in run.in_common(ids[:8], ids[8:]).iter_rows(named=True):
        codes = {each[0]: each[2:] for each in run.codes.iter_rows()}
        shared = [
            next((level for level in range(depth) if codes[row["item_id"]][level] != codes[each][level]), depth)
            for each in ids[8:]
        ]
        assert row["shared_codes"] == max(shared)
        assert row["by_codes"] == (titles[8 + int(np.argmax(shared))] if max(shared) else None)


@pytest.mark.parametrize("what", ["data", "training", "domination", "codes", "tree", "curves"])
def test_plots(run: Run, what: str, tmp_path: Path) -> None:
    picture = run.plot(what)  # type: ignore[arg-type]
    picture.save(tmp_path / "plot.png")
    for png in (picture._repr_png_(), (tmp_path / "plot.png").read_bytes()):
        assert png.startswith(b"\x89PNG") and len(png) > 5000


def test_figures_are_made_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = run.evaluate()
    assert {"generative", "popularity"} <= set(scores["scorer"]) and scores["recall_at_10"].is_between(0, 1).all()
    monkeypatch.setattr(in_folder, "BODIES", dict.fromkeys(STAGES))  # none of which can be called
    assert open_run(run.folder).evaluate().equals(scores) and "validation" not in run.evaluate("validation")


def test_runs_and_lists_of_other_programs_are_held_against_each_other(run: Run, tmp_path: Path) -> None:
    own = run.evaluation
    k = own.lists["generative"].items_UK
    asked = run.split_table().filter("target", split="test").select("split", "user_id")
    row, place = np.nonzero(k >= 0)
    ids = run.dataset.items["item_id"].gather(k[row, place])
    rows = asked[row].with_columns(item_id=ids, rank=pl.Series(place))
    rows = pl.concat([rows, rows.with_columns(split=pl.lit("validation"))])
    rows.write_parquet(tmp_path / "theirs.parquet")
    for given in (rows, tmp_path / "theirs.parquet"):
        theirs = run.measure(given)
        assert theirs.metrics["test"]["given"]["ndcg_at_10"] == own.metrics["test"]["generative"]["ndcg_at_10"] > 0
        same = run.against(theirs, scorer="generative")
        assert same["metric"].to_list() == ["recall_at_10", "ndcg_at_10"]
        assert same["this"].equals(same["other"].alias("this")) and same["difference"].to_list() == [0, 0]
    ahead = run.against(open_run(run.folder), scorer="aligned", other_scorer="popularity", split="validation")
    recall, ndcg = (ahead.row(place, named=True) for place in (0, 1))
    assert recall["low"] <= recall["difference"] <= recall["high"]
    assert ndcg["difference"] == pytest.approx(ndcg["this"] - ndcg["other"], abs=2e-6)
    fewer = TINY.model_copy(update={"data": TINY.data.model_copy(update={"min_user_interactions": 7})})
    with pytest.raises(UserError, match=r"they were not measured on the same: .* users only this run has"):
        run.against(train(fewer, quiet=True, until="preprocess"))
    rules = {**theirs.metrics["protocol"], "history_masked": False}
    with pytest.raises(UserError, match="history_masked is True for this run, False for the other"):
        run.against(replace(theirs, metrics={**theirs.metrics, "protocol": rules}))
    with pytest.raises(UserError, match="no ranks of the scorer 'fuse'"):
        run.against(theirs, scorer="fuse")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda run: run.measure({"a": 1}), "lists: a value of type dict is no table"),
        (lambda run: run.measure("nowhere.csv"), "nowhere.csv: there is no such file"),
        (lambda run: run.against(run.evaluate()), "nothing can be held against a value of type DataFrame"),
        (lambda run: run.against(run, split="tset"), "unknown split 'tset'. Did you mean 'test'?"),
        (lambda run: run.recommend(["P0"]), r"unknown item id 'P0'. Did you mean 'P0\d+'\?"),
        (lambda run: run.recommend("P01"), r"where a list of item ids should. Write \['P01'\]"),
        (lambda run: run.recommend([], 0), "k must be a whole number, at least 1, not 0"),
        (lambda run: run.in_common(run.codes["item_id"].to_list(), []), "a history without items shares nothing"),
        (lambda run: run.evaluate("tset"), "unknown split 'tset'. Did you mean 'test'?"),
        (lambda run: run.plot("trea"), "there is no plot 'trea'. Did you mean 'tree'?"),
        (lambda run: run.train("quantise"), "unknown stage 'quantise'. Did you mean 'quantize'?"),
        (lambda run: open_run(run.folder / "align"), "there is no experiment in this folder"),
        (lambda run: train(TINY.model_copy(update={"seed": 1}), run.folder), "holds another experiment"),
    ],
)
def test_a_mistake_is_told(run: Run, call: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        call(run)  # type: ignore[operator]


def test_other_data_and_a_second_process_are_refused(tmp_path: Path) -> None:
    run = train(TINY, tmp_path, until="preprocess", quiet=True)
    with pytest.raises(UserError, match=r"'quantize' has not run. Train until='quantize'"):
        _ = run.codes
    with (tmp_path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process trains in this folder"):
            run.train("embed_text")
    record = json.loads((tmp_path / "experiment.json").read_text())
    (tmp_path / "experiment.json").write_text(json.dumps({**record, "source": "other"}))
    with pytest.raises(UserError, match="the data have changed since"):
        run.train("embed_text")


def test_what_was_stopped_goes_on_and_what_is_damaged_is_made_again(run: Run, tmp_path: Path) -> None:
    told = []

    def stop(stage: str, progress: Progress) -> None:
        told.append((stage, progress.step))
        if (stage, progress.step) == ("train_collaborative", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path, until="quantize", tell=stop, quiet=True)
    assert list(digests(open_run(tmp_path))) == ["preprocess", "embed_text"]
    (tmp_path / "embed_text" / "embeddings.parquet").write_bytes(b"x")
    told.clear()
    again = train(TINY, tmp_path, until="quantize", tell=lambda stage, at: told.append((stage, at.step)), quiet=True)
    assert [step for stage, step in told if stage == "train_collaborative"] == [2], "the first epoch is not lost"
    assert digests(again) == {name: digests(run)[name] for name in digests(again)} and len(digests(again)) == 5
    # What was made from something else than what stands before it is made again, too.
    manifest = tmp_path / "align" / MANIFEST
    other = manifest.read_text().replace(digests(run)["embed_text"], digests(run)["quantize"])
    manifest.write_text(other)
    assert list(open_run(tmp_path)._stages.inputs) == STAGES[:3]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".lock", "experiment.json", *digests(again)])


def test_lines_tell_what_is_done_and_a_folder_of_nobody_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(TINY, until="preprocess")
    folder = run.folder
    assert capsys.readouterr().out.startswith("preprocess: 0.") and folder.is_dir()
    del run
    assert not folder.exists()


def test_what_is_left_to_the_data_is_found_once_and_kept_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = load_data(TINY)
    (tmp_path / "data").mkdir()
    shop.items.select("item_id", "title", categories="text").write_parquet(tmp_path / "data" / "items.parquet")
    owners = np.repeat(shop.users["user_id"].to_numpy(), np.diff(shop.sequences.offsets))
    log = {"user_id": owners, "item_id": shop.items["item_id"].gather(shop.sequences.items)}
    pl.DataFrame({**log, "timestamp": shop.timestamps}).write_parquet(tmp_path / "data" / "interactions.parquet")
    own = Experiment.model_validate({"name": "shop", "data": {"source": "tables", "path": str(tmp_path / "data")}})
    folder = tmp_path / "run"

    run = train(own, folder, until="preprocess")
    assert f"settings by rule {fitting.RULE} from 120 users" in capsys.readouterr().out
    found = run.experiment
    assert fitting.open_fields(own) and not fitting.open_fields(found) and found == open_run(folder).experiment
    manifest = Manifest.model_validate_json((folder / "preprocess" / MANIFEST).read_bytes())
    assert list(manifest.config) == ["data"], "nothing that was still open"
    # Another rule, or somebody who writes all out, goes on with what was found.
    monkeypatch.setattr(fitting, "_width", lambda _: 4096)
    assert train(own, folder, until="preprocess", quiet=True).experiment == found
    assert train(found, folder, until="preprocess", quiet=True).experiment == found
    with pytest.raises(UserError, match="holds another experiment"):
        train(own.model_copy(update={"collaborative": CollaborativeConfig(dim=32)}), folder, quiet=True)


def test_a_ranker_that_is_none_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    given = {"train_on_validation": True, "evaluate": {"fusion_weights": [1.0]}, "generator": {"ranker_file": "none"}}
    with pytest.raises(UserError, match=r"generator\.ranker_file=none: there is no such file"):
        train(Experiment.model_validate(given), tmp_path / "run")
    assert not (tmp_path / "run" / "preprocess").exists()


@pytest.mark.parametrize("kind", ["encoder", "vectors"])
def test_other_vectors_are_another_training(tmp_path: Path, kind: str) -> None:
    """Those of a file that the experiment names; what was made of the file as it was is not taken for it."""
    file, folder = tmp_path / "vectors.parquet", tmp_path / "run"

    def write(seed: int) -> None:
        vectors = np.random.default_rng(seed).normal(size=(1000, 4)).astype(np.float32)
        ids = [f"P{item:05d}" for item in range(len(vectors))]
        pl.DataFrame({"item_id": ids, "embedding": vectors}).write_parquet(file)

    write(0)
    named = {"encoder": "vectors", "model": str(file)}
    others = {"encoder": "none", "vectors": [{"name": "mine", "path": str(file)}]}
    experiment = Experiment.model_validate({**tiny(), "text": named if kind == "encoder" else others})
    train(experiment, folder, until="embed_text", quiet=True)
    train(experiment, folder, until="embed_text", quiet=True)
    write(1)
    with pytest.raises(UserError, match="what text reads, its encoder or vectors, has changed since"):
        train(experiment, folder, until="embed_text", quiet=True)
    file.unlink()
    assert open_run(folder).experiment == experiment
    # One that comes late was read by nobody.
    with pytest.raises(UserError, match="there is no such file"):
        train(experiment, late := tmp_path / "late", until="embed_text", quiet=True)
    write(2)
    train(experiment, late, until="embed_text", quiet=True)
    train(experiment, late, until="embed_text", quiet=True)
    write(3)
    with pytest.raises(UserError, match="has changed since"):
        train(experiment, late, until="embed_text", quiet=True)


def test_new_items_that_are_held_out_are_served_as_they_were_measured(tmp_path: Path) -> None:
    """They move no score of other items, in a run and in what is exported of it."""
    run = train(
        Experiment.model_validate(tiny({"data.new_items": 0.15})), tmp_path / "run", until="evaluate", quiet=True
    )
    asked, _ = new_item_histories(run.dataset)
    measured = lister(run._stages.work_of("evaluate"))(Asked(asked, with_new=True))[run.recommender.scoring.name]
    run.export(tmp_path / "model")
    for served in (run.recommender, Recommender.load(tmp_path / "model")):
        np.testing.assert_array_equal(served.top(asked, 10).items_UK, measured.items_UK[:, :10])


def test_what_is_popular_counts_all_that_was_trained_on(tmp_path: Path) -> None:
    given = tiny({"train_on_validation": True, "evaluate.fusion_weights": [1.0], "generator.ranker": False})
    run = train(Experiment.model_validate(given), tmp_path / "run", quiet=True)
    counts = run.dataset.sequences.train_counts()
    before = open_run(tmp_path / "run").dataset.sequences
    assert counts.sum() == len(before.items) - before.n_users, "one item a user is left for the test"
    run.export(tmp_path / "model")
    for served in (run.recommender, Recommender.load(tmp_path / "model")):
        np.testing.assert_array_equal(served.train_counts, counts)


def test_another_ranker_is_another_training(tmp_path: Path) -> None:
    file, folder = tmp_path / "ranker.json", tmp_path / "run"
    held = {"features": FEATURES, "weights": [1.0] * len(FEATURES)}
    file.write_text(json.dumps(held))
    given = {**tiny(), "train_on_validation": True, "evaluate": {"fusion_weights": [1.0]}}
    experiment = Experiment.model_validate({**given, "generator": {**given["generator"], "ranker_file": str(file)}})
    train(experiment, folder, until="preprocess", quiet=True)
    train(experiment, folder, until="preprocess", quiet=True)
    file.write_text(json.dumps({**held, "weights": [2.0] * len(FEATURES)}))
    with pytest.raises(UserError, match=r"the file of generator\.ranker_file has changed since"):
        train(experiment, folder, until="preprocess", quiet=True)
    without = Experiment.model_validate(given)
    with pytest.raises(UserError, match=r"the file of generator\.ranker_file has changed since"):
        train(without, folder, until="preprocess", quiet=True)
    train(without, tmp_path / "other", until="preprocess", quiet=True)
    with pytest.raises(UserError, match=r"the file of generator\.ranker_file has changed since"):
        train(experiment, tmp_path / "other", until="preprocess", quiet=True)
    file.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        train(experiment, folder, quiet=True)
    assert not (folder / "train_collaborative").exists()


def test_a_table_that_has_done_its_work_may_go(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "codes.parquet"
    shutil.copyfile(run.folder / "quantize" / "codes.parquet", table)
    codes = {"quantize.table": str(table), "quantize.levels": 4, "quantize.codes": 512}
    experiment = Experiment.model_validate(tiny(codes))
    train(experiment, tmp_path / "run", until="quantize", quiet=True)
    table.unlink()
    assert train(experiment, tmp_path / "run", until="train_generator", quiet=True).codes is not None
    with pytest.raises(UserError, match="there is no such file"):
        train(experiment, tmp_path / "other", quiet=True)
    assert not (tmp_path / "other" / "train_collaborative").exists()


def test_a_start_from_a_model_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"start_from: a training in a folder begins anew\."):
        train(Experiment(start_from="models:/prorec-demo/1"), tmp_path / "run")
    assert not (tmp_path / "run" / "preprocess").exists()


def test_a_folder_in_the_home_folder_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = train(TINY, "~/run", until="preprocess", quiet=True)
    assert run.folder == tmp_path / "run" and not (tmp_path / "~").exists()
    assert list(open_run("~/run")._stages.inputs) == ["preprocess"]
