"""A few seconds of the campaign over configurations, always the same draws; and that it sees what it looks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorec_core.errors import UserError
from prorec_core.quantization.quantized import CodeTable

from . import configurations
from .configurations import (
    CHOICES,
    Workspace,
    WrongResultError,
    campaign,
    check_codes,
    check_metrics,
    draw,
    try_one,
)

pytestmark = pytest.mark.pipeline


def test_a_few_pipelines_are_refused_or_run() -> None:
    figures = campaign(seconds=10, seed=0, most=4)
    assert figures.bad == [], json.dumps(figures.bad, indent=1)
    assert figures.ended["ran"] >= 1


def test_draws_are_repeatable_and_differ() -> None:
    draws = [draw(0, number) for number in range(200)]
    assert draws == [draw(0, number) for number in range(200)] and draws[0] != draw(1, 0)
    assert {name for settings in draws for name in settings} == set(CHOICES)


def test_what_cannot_be_is_seen(tmp_path: Path) -> None:
    CodeTable(np.zeros((2, 2), np.uint16), ["a", "b"]).save(tmp_path / "codes.parquet")
    with pytest.raises(WrongResultError, match="share a tuple"):
        check_codes(tmp_path)
    (tmp_path / "report.html").write_text("x")
    for metrics in ({"test": {"fused": {"recall_at_10": 1.5}}}, {"test": {"fused": {"mrr": float("nan")}}}):
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        with pytest.raises(WrongResultError, match="is "):
            check_metrics(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (UserError("no"), "refused by a stage"),
        (UserError("no", place="a\nb"), "refused by a stage"),
        (ValueError("shape"), "failed"),
        (WrongResultError("x"), "wrong"),
        (None, "ran"),
    ],
)
def test_each_end_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception | None, how: str) -> None:
    def run(*_: Any) -> None:
        if error:
            raise error

    monkeypatch.setattr(configurations.Workspace, "run", run)
    assert try_one({}, Workspace(tmp_path))[0] == how
    assert try_one({"generator.heads": 3}, Workspace(tmp_path)) == (
        "refused by validation",
        "generator: heads (3) must divide dim (8).",
    )
