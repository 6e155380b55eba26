"""Requests that ask why, around a real model, and the rows of a batch that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from prorec.flows.service.batching import Loaded
from prorec_core.data.histories import FileHistories
from prorec_core.generation.batch import BatchSettings, recommend_all
from prorec_core.generation.explain import explain, reasons, told
from tests.tiny_model import IDS, TITLES, tiny_recommender

from .conftest import Service, version_of

MakeService = Callable[..., Service]


@pytest.fixture
def explained(make_service: MakeService) -> Service:
    service = make_service()
    service.keeper.current = Loaded(version_of(1), tiny_recommender())
    return service


def ask(service: Service, **more: Any) -> Any:
    body = {"histories": [{"history": IDS[:2]}, {"history": ["nobody"]}], "k": 4, **more}
    answer = service.client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def test_reasons_come_with_the_same_lists(explained: Service) -> None:
    rule = {"exclude": IDS[5:9]}
    plain, why = ask(explained, **rule), ask(explained, explain=True, **rule)
    for before, after in zip(plain, why, strict=True):
        for item, other in zip(before["items"], after["items"], strict=True):
            assert "why" not in item and {**item, "why": other["why"]} == other
    first, popular = why[0]["items"][0], why[1]["items"][0]["why"]
    added = sum(part["contribution"] for part in first["why"]["parts"])
    assert added == pytest.approx(first["score"] - first["why"]["baseline"], abs=1e-4)
    assert first["why"]["scorer"] == "ranked" and len(first["why"]["codes"]) == 2
    assert {"tea", "cup", "pot"} & set(first["why"]["codes"][0]["words"])
    text = next(part for part in first["why"]["parts"] if part["name"] == "text")
    assert text["item_id"] in IDS[:2] and text["title"] == TITLES[IDS.index(text["item_id"])]
    assert (popular["scorer"], popular["baseline"], popular["parts"]) == ("popular", None, [])


def test_who_asks_why_waits_in_a_queue_of_its_own(explained: Service) -> None:
    ask(explained)
    batches = explained.metric("prorec_batch_histories_count")
    ask(explained, explain=True)
    assert explained.metric("prorec_batch_histories_count") == batches
    bad = explained.client.post(
        "/recommend", json={"histories": [{"history": []}], "explain": True, "only": {"where": {"colour": 1}}}
    )
    assert bad.status_code == 409


def test_lines_for_people() -> None:
    model = tiny_recommender()
    found = explain(model, model.numbered([IDS[:2], []]), 2)
    lines = told(model, reasons(model, found, 0)[0])
    assert len(lines) == 9 and lines[-1].startswith("codes: ") and "the history's mean candidate" in lines[-2]
    assert told(model, reasons(model, found, 1)[0])[0] == "nothing of the history is known: popular"


def test_a_batch_that_says_why(tmp_path: Path) -> None:
    model = tiny_recommender()
    frame = pl.DataFrame(
        {"user_id": ["a", "b"], "history": [IDS[:2], []]}, schema_overrides={"history": pl.List(pl.String)}
    )
    frame.write_parquet(tmp_path / "users.parquet")
    settings = BatchSettings(3, True, 1, "models:/m/1", "d")
    for explained in (False, True):
        asked = BatchSettings(**{**vars(settings), "explain": explained})
        recommend_all(model, FileHistories(tmp_path / "users.parquet"), asked, tmp_path / f"{explained}.parquet")
    plain, why = (pl.DataFrame(pl.from_arrow(pq.read_table(tmp_path / f"{each}.parquet"))) for each in (False, True))
    assert why.select(plain.columns).equals(plain)
    parts = ["generative", "dense", "successor", "text", "popularity", "predecessor", "item_knn"]
    assert why.columns[len(plain.columns) :] == ["baseline", *parts, "followed", "similar", "codes"]
    ann = why.filter(user_id="a")
    added = ann.select(pl.sum_horizontal(*parts)).to_series()
    assert (added - (ann["score"] - ann["baseline"])).abs().max() < 1e-4  # type: ignore[operator]
    assert set(ann["similar"]) <= set(IDS[:2])
    bob = why.filter(user_id="b")
    assert bob.select("baseline", *parts, "followed", "similar").null_count().row(0) == (3,) * 10
    assert all(words[0] for words in bob["codes"].to_list())
