"""`prorec compare` as a user meets it, each time in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
import yaml
from mlflow import MlflowClient

from prorec.flows import variant
from prorec.tasks.tracking import store
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec_core.artifacts import ArtifactRef, verify
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from tests.tiny import tiny_words
from tests.toys import noting

ROOT = Path(__file__).resolve().parents[2]


def compare(*words: str, folder: Path, api: str = "", at: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; `api` is the Prefect server's, which the command else starts itself."""
    settings = tiny_words({"evaluate.examples": 0})
    return subprocess.run(
        [sys.executable, "-m", "prorec", "compare", "demo", *settings, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=at,
        env={**os.environ, "PROREC_ARTIFACTS": str(folder), **({"PREFECT_API_URL": api} if api else {})},
        timeout=300,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variants", "semantics"], "variants: unknown variant 'semantics'. Did you mean 'semantic'?"),
        (["--seeds", "0"], "--seeds: '0' is neither a count nor seeds. Write 3, or 0,4,7."),
        (["--seeds", "x,1"], "--seeds: 'x,1' is neither a count nor seeds."),
        (["--set", "seed=3"], "--set seed: a comparison has no one seed. Give --seeds a count, or some seeds."),
        (["--variants-file", "nowhere.yaml"], "nowhere.yaml: the file does not exist."),
        (["--json", "no/such/folder.json"], "--json no/such/folder.json: the folder does not exist."),
        (["--variants", "sasrec", "--against", "prorec"], "against: 'prorec' is not compared. Compared: sasrec."),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], message: str, tmp_path: Path) -> None:
    done = compare(*words, folder=tmp_path / "artifacts")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("prorec: ") and message in done.stderr
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("scorer", ["generator", "two_stream", "two_stream_ranked"])
def test_codes_that_cannot_be_enough_are_refused_before_any_stream_is_trained(
    scorer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(variant, "make", noting(made))
    monkeypatch.setattr(store, "fetch", lambda _: tmp_path)
    pl.DataFrame({"item_id": [str(item) for item in range(10)]}).write_parquet(tmp_path / "items.parquet")
    few, enough = (
        Experiment.model_validate({"quantize": {"collisions": "reassign", "levels": 2, "codes": codes}})
        for codes in (3, 4)
    )
    # The stream that has too few is the last one.
    experiments = {"": few} if scorer == "generator" else {"": enough, "first": enough, "second": few}
    with pytest.raises(UserError, match=r"10 items cannot each have their own of 3\^2 tuples of codes"):
        variant._artifacts(scorer, experiments, cast("TrackedRun", None))
    assert made == ["preprocess"]


def test_a_variant_that_would_be_measured_on_other_targets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = importlib.import_module("prorec.flows.compare")
    base, on = Experiment(), Experiment(start_from="models:/x/1")
    own = ArtifactRef(stage="preprocess", digest="all", run_id="r", uri="/u")
    left = {None: own, "models:/x/1": own.model_copy(update={"digest": "less"}), "models:/x/2": own}
    monkeypatch.setattr(flow, "make", lambda stage, experiment, run, refs: left[experiment.start_from])
    run = cast("TrackedRun", None)
    same = {("a", 0): [base], ("b", 0): [Experiment(start_from="models:/x/2")]}
    flow._expect_same_targets(same, base, own, run)
    with pytest.raises(UserError, match=r"variant c: start_from: other targets are left out"):
        flow._expect_same_targets({**same, ("c", 0): [on]}, base, own, run)


def _runs(folder: Path) -> list[Any]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments() if each.name.startswith("prorec-")]
    return list(client.search_runs(experiments, max_results=1000))


def test_where_every_variant_fails_the_reasons_are_one_line(
    tmp_path: Path, prefect_api: str, begin_store: Callable[[Path], None]
) -> None:
    folder, mine = tmp_path / "artifacts", tmp_path / "mine.yaml"
    begin_store(folder)
    broken = {name: {"set": {"text.model": name}, "scorer": "aligned"} for name in ("no-such", "nor-such")}
    mine.write_text(yaml.safe_dump({"variants": broken}))
    done = compare("--variants-file", str(mine), "--variants", "no-such,nor-such", folder=folder, api=prefect_api)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("prorec: every variant failed: no-such, seed 0: ") and "; nor-such, seed 0: " in last
    runs = _runs(folder)
    (whole,) = [run for run in runs if "prorec.comparison" in run.data.tags]
    assert whole.info.status == "FAILED" and "every variant failed" in whole.data.tags["prorec.failure"]
    notes = [run.data.tags["mlflow.note.content"] for run in runs if run.data.tags.get("prorec.stage") == "embed_text"]
    assert len(notes) == 2 and all("To run it again: the same comparison" in note for note in notes)
    assert not any("prorec rerun" in note for note in notes), "no part of a comparison runs again alone"


@pytest.mark.pipeline
def test_variants_share_what_is_common_and_one_failure_stops_nobody(
    tmp_path: Path, prefect_api: str, begin_store: Callable[[Path], None]
) -> None:
    folder, out, mine = tmp_path / "artifacts", tmp_path / "out.json", tmp_path / "mine.yaml"
    begin_store(folder)
    broken = {"broken": {"about": "no such encoder", "set": {"text.model": "no-such-model"}, "scorer": "aligned"}}
    mine.write_text(yaml.safe_dump({"variants": broken}))
    words = ["--variants-file", str(mine), "--json", str(out), "--set", "generator.warm_start=true"]
    words += ["--set", "train_on_validation=false"]
    done = compare(
        *words,
        "--variants",
        "broken,sasrec,sasrec-ranked,validation-too,two-stream,two-stream-ranked,popularity",
        "--against",
        "sasrec",
        folder=folder,
        api=prefect_api,
    )
    assert done.returncode == 1, done.stderr
    told = "train_on_validation: these variants keep a value of their own: validation-too True"
    assert [line for line in done.stdout.splitlines() if "of their own" in line] == [told]
    assert "failed: broken, seed 0, in embed_text:" in done.stdout and "Traceback" not in done.stderr
    found = json.loads(out.read_text())
    assert [each["variant"] for each in found["failed"]] == ["broken"] and "no-such-model" in str(found["failed"])
    variants = found["table"]["variants"]
    assert found["table"]["order"] == [
        "sasrec",
        "sasrec-ranked",
        "two-stream",
        "two-stream-ranked",
        "popularity",
        "validation-too",
    ]
    assert found["table"]["reference"] == "sasrec"
    scorers = {name: about["scorer"] for name, about in variants.items()}
    assert scorers == {
        "sasrec": "collaborative",
        "sasrec-ranked": "ranked",
        "two-stream": "two_stream",
        "two-stream-ranked": "ranked",
        "popularity": "popularity",
        "validation-too": "ranked",
    }
    assert [name for name, about in variants.items() if about["apart"]] == ["validation-too"]
    assert variants["validation-too"]["against"] == {}, "it is another test"
    assert set(variants["two-stream"]["against"]) == {"recall_at_10", "ndcg_at_10"}
    assert "generator.warm_start" in "".join(variants["two-stream"]["not_applied"])
    assert variants["sasrec"]["not_applied"] == [], "it has no generator"
    cost = {name: about["cost"] for name, about in variants.items()}
    assert cost["popularity"]["parameters"] == 0 < cost["sasrec"]["parameters"]
    for name in ("sasrec", "two-stream"):
        assert cost[name]["parameters"] < cost[f"{name}-ranked"]["parameters"], "the ranker knows counts besides"
        assert cost[f"{name}-ranked"]["own_seconds"] == 0, "both are measured at once"

    made = Counter(run.data.tags["prorec.stage"] for run in _runs(folder) if run.info.status == "FINISHED"
                   and "prorec.stage" in run.data.tags)  # fmt: skip
    assert made["preprocess"] == made["embed_text"] == 1, "what is common is made once"
    assert made["train_collaborative"] == made["align"] == 2, "with the validation items and without them"
    assert made["quantize"] == made["train_generator"] == 3
    names = {each.name for each in MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_registered_models()}
    assert "prorec-demo" not in names, "variants are registered under names of their own"

    # Two processes ask for the same stage at once.
    words = ["--variants", "popularity", "--seeds", "2", "--parallel", "2", "--json", str(out)]
    done = compare(*words, folder=folder, api=prefect_api)
    assert done.returncode == 0, done.stderr
    table = json.loads(out.read_text())["table"]
    mean = variants["popularity"]["test"]["mrr"]["mean"]
    assert table["seeds"] == [0, 1] and table["variants"]["popularity"]["test"]["mrr"] == {"mean": mean, "deviation": 0}
    runs = _runs(folder)
    assert sum(run.data.tags.get("prorec.stage") == "evaluate_counts" for run in runs) == 1, (
        "it was there, for any seed"
    )
    failed, finished = (
        next(run for run in runs if run.data.tags.get("prorec.stage") == "compare" and run.info.status == status)
        for status in ("FAILED", "FINISHED")
    )
    assert finished.data.metrics["popularity/test/mrr/mean"] == mean
    for run, names in ((failed, {*scorers, "broken"}), (finished, {"popularity"})):
        assert "popularity" in run.data.tags["mlflow.note.content"]
        below = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert {each.data.tags["prorec.variant"] for each in below if "prorec.variant" in each.data.tags} == names
        artifact = Path(run.data.tags["prorec.uri"])
        assert verify(artifact) == []
        files = {path.name for path in artifact.iterdir()}
        assert {"comparison.json", "comparison.md", "report.html", "plots"} <= files


def test_lists_of_another_program_stand_beside_ours(
    tmp_path: Path, prefect_api: str, begin_store: Callable[[Path], None]
) -> None:
    """Made of what `prorec data split` wrote, and of nothing else."""
    folder, split, out = tmp_path / "artifacts", tmp_path / "split", tmp_path / "out.json"
    begin_store(folder)
    words = [sys.executable, "-m", "prorec", "data", "split", "demo", *tiny_words(), "--output", str(split)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    rows, catalogue = (pl.read_parquet(split / f"{name}.parquet") for name in ("interactions", "items"))
    trained = rows.filter(split="train")
    assert f"train      {trained.height:,} interactions" in done.stdout and str(split) in done.stdout
    counts = trained["item_id"].value_counts()
    popular = catalogue.join(counts, on="item_id", how="left").sort(
        "count", "item_id", descending=[True, False], nulls_last=True
    )
    lists = (
        rows.filter("target")
        .select("split", "user_id")
        .join(popular.select("item_id").with_row_index("rank"), how="cross")
    )
    for seed in (0, 1):
        # Of one seed all users, of the other those of a single list.
        kept = lists if seed == 0 else lists.filter(user_id=lists["user_id"][0])
        kept.write_csv(tmp_path / f"theirs-{seed}.csv")
    words = ["--variants", "popularity", "--seeds", "2", "--lists", f"theirs={tmp_path}/theirs-{{seed}}.csv"]
    compared = compare(*words, "--json", str(out), folder=folder, api=prefect_api)
    assert compared.returncode == 0, compared.stderr
    table = json.loads(out.read_text())["table"]
    theirs, ours = table["variants"]["theirs"], table["variants"]["popularity"]
    assert theirs["scorer"] == "given" and theirs["by_seed"]["ndcg_at_10"][0] == ours["by_seed"]["ndcg_at_10"][0] > 0
    assert theirs["by_seed"]["ndcg_at_10"][1] < ours["by_seed"]["ndcg_at_10"][1]
    users = rows["user_id"].n_unique()
    told = (
        f"theirs: seed 1: {users - 1:,} of {users:,} test targets have no list in the given file, and count as missed"
    )
    assert told in compared.stdout and "stand in the user's own history" in compared.stdout
    (whole,) = [run for run in _runs(folder) if run.data.tags.get("prorec.stage") == "compare"]
    assert told in (Path(whole.data.tags["prorec.uri"]) / "report.html").read_text()
    assert theirs["cost"] == {} and ours["cost"]["seconds"] > 0
    # Another content under the same name is measured anew, by processes that begin elsewhere, too.
    shutil.copyfile(tmp_path / "theirs-1.csv", tmp_path / "theirs-0.csv")
    mine = {"theirs": {"scorer": "given", "set": {"evaluate.lists_file": "theirs-{seed}.csv"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"variants": mine}))
    words = ["--variants-file", "mine.yaml", "--variants", "popularity,theirs", "--seeds", "2", "--parallel", "2"]
    again = compare(*words, "--json", str(out), folder=folder, api=prefect_api, at=tmp_path)
    assert again.returncode == 0, again.stderr
    by_seed = json.loads(out.read_text())["table"]["variants"]["theirs"]["by_seed"]["ndcg_at_10"]
    assert by_seed == [theirs["by_seed"]["ndcg_at_10"][1]] * 2


def test_what_is_wrong_with_lists_is_told_before_anything_is_trained(
    tmp_path: Path, prefect_api: str, begin_store: Callable[[Path], None]
) -> None:
    folder, lists = tmp_path / "artifacts", tmp_path / "theirs.csv"
    begin_store(folder)
    lists.write_text("split,user_id,item_id,rank\ntest,nobody,P1,1\n")
    done = compare("--variants", "prorec", "--lists", f"theirs={lists}", folder=folder, api=prefect_api)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "column 'user_id' has an id that the data set lacks" in done.stderr.splitlines()[-1]
    assert {run.data.tags.get("prorec.stage", "comparison") for run in _runs(folder)} == {"preprocess", "comparison"}
    done = compare("--lists", f"theirs={lists}", "--json", str(lists), folder=folder, api=prefect_api)
    assert done.returncode == 2 and "nobody" in lists.read_text(), done.stderr
