"""What CONTRIBUTING says of adding something, done: toys are registered, and not another line is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from prorec_core.artifacts import read_json
from prorec_core.data.embeddings import read_embeddings

ROOT = Path(__file__).resolve().parents[2]
WITH_TOYS = "from tests.toys import register; register(); from prorec.flows.cli import main; main()"
CHOSEN = {
    "data.source": "rows",
    "data.min_item_interactions": 1,
    "text.encoder": "letters",
    "collaborative.model": "last_item",
    "collaborative.epochs": 1,
    "collaborative.dim": 16,
    "align.epochs": 1,
    "quantize.method": "signs",
    "quantize.levels": 4,
    "quantize.codes": 2,
    "generator.epochs": 1,
    "generator.dim": 16,
    "generator.validation_users": 30,
    "evaluate.bootstrap_samples": 100,
}


def _prorec(folder: Path, api: str, *words: str) -> str:
    settings = [word for name, value in CHOSEN.items() for word in ("--set", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-c", WITH_TOYS, *words, *settings],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PROREC_ARTIFACTS": str(folder), "PREFECT_API_URL": api, "COLUMNS": "160"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str, begin_store: Callable[[Path], None]
) -> tuple[Path, str]:
    """A store in which two variants were compared, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("toys")
    begin_store(folder)
    variants = {"toys": {"about": "the full method, of toys"}, "by-number": {"scorer": "by_number"}}
    (folder / "variants.yaml").write_text(yaml.safe_dump({"variants": variants}))
    words = ("--variants-file", str(folder / "variants.yaml"), "--variants", "toys,by-number", "--seeds", "1")
    return folder, _prorec(folder, prefect_api, "compare", "demo", *words, "--json", str(folder / "compared.json"))


@pytest.mark.pipeline
def test_all_of_them_go_through_a_comparison(store: tuple[Path, str]) -> None:
    folder, shown = store
    assert "Steep gain@10" in shown and "│ by-number │ by number │" in shown
    found = json.loads((folder / "compared.json").read_text())["table"]["variants"]
    assert found["by-number"]["scorer"] == "by_number"
    for about in found.values():
        assert about["test"]["steep_at_10"]["mean"] <= about["test"]["recall_at_10"]["mean"]
    assert set(found["by-number"]["against"]) == {"recall_at_10", "ndcg_at_10", "steep_at_10"}
    assert found["toys"]["codes"]["levels"] == 4 and found["toys"]["codes"]["codes"] == 2
    page = next(text for text in _pages(folder) if "by-number" in text)
    assert "Steep gain@10" in page and "Difference" in page


@pytest.mark.pipeline
def test_all_of_them_go_through_a_run(store: tuple[Path, str], prefect_api: str) -> None:
    folder, _ = store
    shown = _prorec(folder, prefect_api, "run", "demo", "--json", str(folder / "run.json"))
    assert "│ by number" in shown and "Steep gain@10" in shown
    found = json.loads((folder / "run.json").read_text())
    made = {each["name"]: each for each in found["stages"]}
    assert list(made)[-1] == "lengths" and all(each["cached"] for each in made.values())
    assert read_json(Path(made["lengths"]["uri"]) / "lengths.json") == [8] * 60
    assert {"by_number", "ranked", "aligned"} <= found["metrics"]["test"].keys()
    assert found["metrics"]["test"]["by_number"]["steep_at_10_standard_error"] > 0
    assert read_json(Path(made["preprocess"]["uri"]) / "profile.json")["source"] == "rows"
    assert read_embeddings(Path(made["embed_text"]["uri"]) / "embeddings.parquet", "embed_text").shape == (24, 26)
    page = (Path(made["report"]["uri"]) / "report.html").read_text()
    assert "Steep gain@10" in page and "by number</dt><dd>the lowest first" in page


def _pages(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.glob("store/*/artifacts/artifact/report.html")]
