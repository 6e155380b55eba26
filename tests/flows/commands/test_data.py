"""What `prorec data` prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prorec.flows.commands import data
from prorec.flows.configuration.experiments import load
from prorec.flows.datasets.kept import VARIABLE
from prorec_core.errors import UserError
from tests.prorec_core.data.test_peek import shop


@pytest.fixture(autouse=True)
def _a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


def test_what_peek_prints_is_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shop(tmp_path / "shop")
    data.peek(str(folder))
    printed = capsys.readouterr().out
    for word in ("orders 2024.csv.gz: 48 rows, interactions (a guess)", "k_core", "Customer ID", "times run from"):
        assert word in printed
    text = printed[printed.index("name: shop") :]
    (tmp_path / "shop.yaml").write_text(text)
    assert (
        load(str(tmp_path / "shop.yaml")).data.user_column == "Customer ID" and yaml.safe_load(text)["name"] == "shop"
    )


def test_what_would_stop_a_run_is_told_in_the_same_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shop(tmp_path / "shop", times="{0}x")
    data.peek(str(folder))
    assert "It would stop here: " in (printed := capsys.readouterr().out) and "holds what is no time" in printed


def test_data_sets_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    data.list_data_sets("ml-")
    printed = capsys.readouterr().out
    assert "ml-1m" in printed and "amazon" not in printed
    data.show("ml-1m")
    shown = capsys.readouterr().out
    for word in (
        "c4d9eecfca2ab87c1945afe126590906",
        "(untried)",
        "not yet (--accept-licence)",
        "Harper",
        "users: 6040",
    ):
        assert word in shown
    with pytest.raises(UserError, match="no data set has 'nothing'"):
        data.list_data_sets("nothing")


def test_fetching_by_hand_says_where_to_click(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kaggle"):
        data.fetch("hm", accept_licence=False, from_=None)
    with pytest.raises(UserError, match="no such folder"):
        data.fetch("hm", accept_licence=False, from_=tmp_path / "nowhere")
