"""The command line as a user meets it, each time in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from mlflow import MlflowClient

from prorec.flows.local.embedded import predict, start_prefect
from prorec.tasks.local import paths
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.upkeep.retention import take_inventory
from prorec_core import train
from prorec_core.artifacts import MANIFEST, Manifest
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.text.location import find_encoder
from tests.tiny import tiny, tiny_words

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path | None, api: str = "") -> dict[str, str]:
    """What a program is started with: the store, and the Prefect server's address, or none that other tests use."""
    found = {**os.environ, **({"PROREC_ARTIFACTS": str(folder)} if folder else {})}
    if api:
        return {**found, "PREFECT_API_URL": api}
    return {name: value for name, value in found.items() if name not in {"PREFECT_HOME", "PREFECT_API_AUTH_STRING"}}


def prorec(*words: str, folder: Path | None = None, api: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; `api` is the Prefect server's, which the command else starts itself."""
    command = [sys.executable, "-m", "prorec", *words]
    env = environment(folder, api)
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=300)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "dmo"], "unknown experiment 'dmo'. Did you mean 'demo'?"),
        (["run", "demo", "--set", "generator.epochs=0"], "generator.epochs: must be >= 1 (got 0)."),
        (["run", "demo", "--force", "quantise"], "--force: unknown stage 'quantise'. Did you mean 'quantize'?"),
        (["run", "demo", "--json", "no/such/folder.json"], "--json no/such/folder.json: the folder does not exist."),
        (["run", "configs/yelp.yaml", "--json", "configs/yelp.yaml"], "--json configs/yelp.yaml: this file is read,"),
        (["compare", "demo", "--json", "README.md"], "--json README.md: a file that is no JSON stands there,"),
        (["tune", "demo", "--json", "README.md"], "--json README.md: a file that is no JSON stands there,"),
        (
            ["run", "demo", "--set", "evaluate.lists_file=x"],
            "evaluate.lists_file: lists that another program made stand",
        ),
        (
            ["tune", "demo", "--set", "evaluate.lists_file=x"],
            "evaluate.lists_file: lists that another program made stand",
        ),
        (["data", "split", "demo", "--output", "/proc/x"], "/proc: the folder cannot be written."),
        (
            ["data", "split", "demo", "--set", "start_from=models:/x/1", "--output", "../nowhere-x"],
            "start_from: what a model",
        ),
        (["config", "show", "xyzzy"], "unknown experiment 'xyzzy'."),
        (["recommend", "--model", "models:/none/1", "--history", " , "], "--history: the history is empty."),
        (["promote", "prorec-demo/1"], "prorec-demo/1: there is no model yet."),
        (["recommend-all"], "the model models:/prorec-demo@champion: there is no model yet."),
        (["artifacts", "show", "abc"], "abc: there is no such artifact."),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], message: str, tmp_path: Path) -> None:
    done = prorec(*words, folder=tmp_path / "artifacts")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("prorec: ") and message in done.stderr
    assert not (tmp_path / "artifacts").exists()


def test_debug_shows_where_it_happened() -> None:
    done = prorec("run", "dmo", "--debug")
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_unknown_commands_and_options_are_status_2() -> None:
    assert prorec("rnu").returncode == 2
    assert prorec("run", "--sett", "a=1").returncode == 2


def test_help_imports_nothing_slow() -> None:
    script = (
        "import sys; sys.argv = ['prorec', '--help']\n"
        "from prorec.flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'prefect', 'mlflow', 'torch', 'polars', 'pandas', 'pyarrow', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "recommend" in done.stdout


def test_config_is_shown() -> None:
    done = prorec("config", "show", "demo", "--set", "seed=4")
    assert Experiment.model_validate(yaml.safe_load(done.stdout)) == Experiment(seed=4)
    schema = json.loads(prorec("config", "schema").stdout)
    assert schema["properties"]["name"]["description"] and schema["additionalProperties"] is False


def test_config_as_it_is_shown_is_the_same_config(tmp_path: Path) -> None:
    """Also where a name of a column looks like a number."""
    shown = prorec("config", "show", "demo", "--set", "data.user_column='1e5'").stdout
    (tmp_path / "pinned.yaml").write_text(shown)
    assert prorec("config", "show", str(tmp_path / "pinned.yaml")).stdout == shown
    assert yaml.safe_load(shown)["data"]["user_column"] == "1e5"


def test_an_unknown_model_is_told(tmp_path: Path) -> None:
    done = prorec("recommend", "--model", "models:/prorec-demo/1", "--history", "a", folder=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "the model models:/prorec-demo/1: there is no model yet" in done.stderr


def test_an_empty_store_is_whole(tmp_path: Path) -> None:
    done = prorec("artifacts", "verify", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "0 artifacts looked at, 0 problems.\n")


TINY_WORDS = tiny_words({"generator.epochs": 2})


def tiny_run(folder: Path, out: Path, *words: str, api: str = "") -> dict[str, Any]:
    """Run it, and read what `--json` wrote."""
    done = prorec("run", "demo", *TINY_WORDS, "--json", str(out), *words, folder=folder, api=api)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the slow tests share, so that what one has made the next finds cached.

    Its name is as hard as names are: a symbolic link with letters that URLs have other uses for, to a long one.
    """
    folder = tmp_path_factory.mktemp("artifacts") / ("x" * 200)
    folder.mkdir()
    odd = folder.parent / "a%2Fb c#d?e=é%20$f"
    odd.symlink_to(folder)
    return odd


@pytest.fixture(scope="module")
def first(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the first run in that store, which began with nothing, wrote."""
    return tiny_run(shared_folder, tmp_path_factory.mktemp("first") / "one.json")


def local(uri: object) -> Path:
    """Where an artifact's files are."""
    path = paths.local_path(str(uri))
    assert path is not None
    return path


def inputs_of(run_id: str, folder: Path) -> list[Any]:
    """The data sets that a stage's MLflow run read."""
    client = MlflowClient(tracking_uri=paths.sqlite_uri(folder / "mlflow.db"))
    return list(client.get_run(run_id).inputs.dataset_inputs)


def test_a_prefect_server_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with pytest.raises(UserError, match=r"PREFECT_API_URL http://127\.0\.0\.1:1/api: no Prefect server answers there"):
        start_prefect()()


@pytest.mark.pipeline
def test_the_whole_pipeline(
    shared_folder: Path,
    first: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shared_folder
    names = [stage["name"] for stage in first["stages"]]
    assert len(names) == 8 and not any(stage["cached"] for stage in first["stages"])
    assert all(set(stage) == {"name", "cached", "seconds", "run_id", "digest", "uri"} for stage in first["stages"])
    for scorer in ("generative", "dense", "fused", "ranked", "popularity"):
        values = first["metrics"]["test"][scorer]
        assert 0 <= values["ndcg_at_10"] <= values["recall_at_10"] <= 1
    # As a library the same experiment leaves the same bytes.
    library = train(Experiment.model_validate(tiny({"generator.epochs": 2})), tmp_path / "library", quiet=True)
    assert library.evaluation.metrics == first["metrics"]
    for stage in first["stages"][:-1]:
        manifest = Manifest.model_validate_json((library.folder / stage["name"] / MANIFEST).read_bytes())
        assert manifest.digest == stage["digest"], stage["name"]

    stored = local(next(stage["uri"] for stage in first["stages"] if stage["name"] == "quantize"))
    assert stored.is_relative_to(folder) and {each.name for each in folder.parent.iterdir()} == {folder.name, "x" * 200}
    (stored / "codes.parquet").write_bytes(b"x")
    second = tiny_run(folder, tmp_path / "two.json")
    assert [stage["name"] for stage in second["stages"] if not stage["cached"]] == ["quantize"]
    assert [stage["digest"] for stage in second["stages"]] == [stage["digest"] for stage in first["stages"]]
    assert second["metrics"] == first["metrics"] and second["model"] == first["model"]
    checked = prorec("artifacts", "verify", folder=folder)
    assert (checked.returncode, checked.stdout) == (0, "8 artifacts looked at, 0 problems.\n")
    sources = {
        each.dataset.name: each.dataset.digest for each in inputs_of(str(second["stages"][-1]["run_id"]), folder)
    }
    assert set(sources) == {"demo/sequences", "demo/items"} and all(sources.values())
    assert not list((folder / "prefect").glob("storage/*"))
    assert not [path for path in (folder / "store").rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth"}]

    monkeypatch.setenv("PROREC_ARTIFACTS", str(folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())
    known = [str(item) for item in first["items"]]
    best = predict(str(first["model"]), ", ".join([known[0], "no-such-item", known[1]]), 5)
    assert [row["rank"] for row in best] == [1, 2, 3, 4, 5] and all(row["title"] for row in best)
    assert len({row["item_id"] for row in best}) == 5 and not {row["item_id"] for row in best} & set(known)
    assert "unknown items: no-such-item; the others count." in capsys.readouterr().err
    ruled = {"exclude": {"items": [best[0]["item_id"], "no-such-item"]}}
    left = predict(str(first["model"]), known[0], 5, ruled)
    assert best[0]["item_id"] not in {row["item_id"] for row in left}
    assert "1 items that the rule names are unknown to the model (no-such-item)." in capsys.readouterr().err
    with pytest.raises(UserError, match="unknown items: nothing"):
        predict(str(first["model"]), "nothing", 5)
    with pytest.raises(UserError, match="Known: models:/prorec-demo/1"):
        predict("models:/prorec-dmeo/1", known[0], 5)


@pytest.mark.pipeline
@pytest.mark.usefixtures("first")
def test_a_failed_stage_is_run_again_alone(shared_folder: Path, tmp_path: Path, prefect_api: str) -> None:
    model = tmp_path / "model"
    failed = prorec("run", "demo", *TINY_WORDS, "--set", f"text.model={model}", folder=shared_folder, api=prefect_api)
    assert failed.returncode == 2 and "was not found" in failed.stderr.splitlines()[-1]
    model.symlink_to(find_encoder(Experiment().text.model))
    again = prorec("rerun", "--stage", "quantize", folder=shared_folder)
    assert again.returncode == 0, again.stderr
    made = [line.split(":")[0] for line in again.stderr.splitlines() if ": done in" in line]
    assert made == ["embed_text", "quantize", "report"] and "Recall@10" in again.stdout

    client = MlflowClient(tracking_uri=paths.sqlite_uri(shared_folder / "mlflow.db"))
    experiment = client.get_experiment_by_name("prorec-demo")
    wholes = client.search_runs([experiment.experiment_id], "tags.`prorec.experiment` = 'demo'")
    newest, before = wholes[0], wholes[1]
    assert (before.info.status, newest.info.status) == ("FAILED", "FINISHED")
    assert before.data.tags["prorec.failure"].startswith("embed_text: text.model: the text encoder")
    assert before.data.tags["prorec.rerun_by"] == newest.info.run_id
    assert before.data.tags["prorec.folder"] == str(ROOT), "whatever it names is looked for from there"
    assert newest.data.tags["prorec.rerun_of"] == before.info.run_id
    page = newest.data.tags["mlflow.note.content"]
    assert (
        all(f"| {stage} | " in page for stage in STAGES)
        and "/artifacts/artifact/report.html?workflowType=machine_learning)" in page
    )


def test_a_ranker_that_is_not_there_is_told_before_the_first_stage(
    tmp_path: Path, prefect_api: str, begin_store: Callable[[Path], None]
) -> None:
    begin_store(tmp_path / "artifacts")
    given = {"train_on_validation": "true", "evaluate.fusion_weights": "[2]", "generator.ranker_file": "none.json"}
    done = prorec("run", "demo", *tiny_words(given), folder=tmp_path / "artifacts", api=prefect_api)
    assert done.returncode == 2 and "preprocess: started" not in done.stderr
    assert "generator.ranker_file=none.json: there is no such file" in done.stderr.splitlines()[-1]


def test_rerun_knows_what_it_cannot_run(tmp_path: Path) -> None:
    for words, message in (
        ([], "prorec: there is no run yet. Run `prorec run demo` first."),
        (["abc"], "prorec: abc: there is no such run. Run `prorec run demo` first."),
        (["--stage", "aline"], "prorec: --stage: unknown stage 'aline'. Did you mean 'align'?"),
    ):
        done = prorec("rerun", *words, folder=tmp_path)
        assert (done.returncode, done.stderr.strip()) == (2, message)


def test_tidy_of_an_empty_store(tmp_path: Path) -> None:
    done = prorec("tidy", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "0 MLflow runs and 0 flow runs closed.\n")


def test_a_model_is_promoted_and_recommends_to_all(
    shared_folder: Path,
    first: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_api: str,
) -> None:
    # The same model made anew by force is no version of its own.
    second = tiny_run(shared_folder, tmp_path / "two.json", "--force", "train_generator", api=prefect_api)
    assert second["model"] == first["model"] and second["stages"][-1]["cached"]

    done = prorec("promote", second["mlflow"]["run_id"], folder=shared_folder)
    assert done.returncode == 0, done.stderr
    assert "is the champion: models:/prorec-demo@champion" in done.stdout and "NDCG@10" in done.stdout
    shown = prorec("models", folder=shared_folder).stdout
    measured = first["metrics"]["test"][first["metrics"]["recommended"]]
    assert "champion" in shown and f"{measured['ndcg_at_10']:.4f}" in shown

    output = tmp_path / "best.parquet"
    done = prorec("recommend-all", "--k", "3", "--chunk", "50", "--output", str(output), folder=shared_folder)
    assert done.returncode == 0, done.stderr
    users = local(first["stages"][0]["uri"]) / "users.parquet"
    rows = pl.read_parquet(output)
    assert rows["user_id"].unique(maintain_order=True).to_list() == pl.read_parquet(users)["user_id"].to_list()
    assert rows["rank"].to_list() == [1, 2, 3] * (rows.height // 3) and rows.height == 3 * 120
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    client = MlflowClient(tracking_uri=paths.sqlite_uri(shared_folder / "mlflow.db"))
    experiment = client.get_experiment_by_name("prorec-demo")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`prorec.kind` = 'recommend'")
    assert run.data.tags["prorec.output_sha256"] == digest and digest in done.stdout
    assert run.info.status == "FINISHED" and run.data.metrics["users"] == 120

    monkeypatch.setenv("PROREC_ARTIFACTS", str(shared_folder))
    stored = take_inventory(0)
    of_run = {stage["run_id"] for stage in second["stages"]}
    assert {each.ref.run_id for each in stored.stored if stored.kept_by(each)} == of_run


@pytest.mark.pipeline
def test_an_interrupted_run_says_so(shared_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "prorec", "run", "demo", *TINY_WORDS, "--set", "collaborative.epochs=500"],
        cwd=ROOT,
        env=environment(shared_folder),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job hands on that interruptions are ignored; here one is what is tested.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("train_collaborative: epoch"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert rest.splitlines()[-1].startswith("Stopped.") and "Traceback" not in rest
    deadline = time.monotonic() + 30
    while _servers(shared_folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _servers(shared_folder)


def _servers(folder: Path) -> list[str]:
    """Processes that hold the log of a local server in `folder` open."""
    shown = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    pids = [line.split()[0] for line in shown.splitlines() if "prorec.flows.local.prefect_server" in line]
    found = []
    for pid in pids:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"PROREC_ARTIFACTS={folder}\0".encode() in environment:
            found.append(pid)
    return found
