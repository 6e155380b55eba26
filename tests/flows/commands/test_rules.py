"""Rules on the command line: how they are written, and the lists that have names."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from prorec.flows.cli import app
from prorec.flows.commands.rules import choice
from prorec.flows.local.embedded import _rule
from prorec.tasks.registry.lists import ListStore
from prorec.tasks.registry.recommend import BatchRequest
from prorec_core.errors import UserError
from prorec_core.generation.rules import Choice

RUN = CliRunner()


def test_options_are_a_choice() -> None:
    assert choice("only", None, None, None) is None
    given = choice("only", " a, b,,", "in-stock", "{brand: [A, B], price: {gte: 5, lt: 20}, since: 2024-01-31}")
    where = {"brand": ["A", "B"], "price": {"gte": 5, "lt": 20}, "since": "2024-01-31"}
    assert given == {"items": ["a", "b"], "list": "in-stock", "where": where}
    assert BatchRequest.model_validate({"only": given}).only == Choice(**given)
    assert BatchRequest.model_validate({"exclude": ["a"]}).exclude == Choice(items=["a"])


@pytest.mark.parametrize("text", ["", "price", "[1]", "{price: [}", "7"])
def test_conditions_that_are_none_are_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^--exclude-where: "):
        choice("exclude", None, None, text)


@pytest.mark.usefixtures("artifacts_folder")
def test_a_rule_that_is_none_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^--only\.where: of the column 'price': a range has gt, gte, lt, lte"):
        _rule({"only": {"where": {"price": {"above": 3}}}})
    with pytest.raises(UserError, match=r"^exclude\.list: there is no list 'none'"):
        _rule({"exclude": {"list": "none"}})
    assert _rule({"only": None}) is None


def test_lists_are_put_from_files(tmp_path: Path, artifacts_folder: Path) -> None:
    lines, table = tmp_path / "stock.txt", tmp_path / "stock.csv"
    lines.write_text("\ufeffa\n\n b \na\n", encoding="utf-8")
    pl.DataFrame({"sku": ["x", "y"]}).write_csv(table)
    assert RUN.invoke(app, ["lists", "put", "stock", str(lines)]).stdout == "stock: 2 items\n"
    assert RUN.invoke(app, ["lists", "put", "other", str(table), "--item-column", "sku"]).exit_code == 0
    assert (ListStore().content("stock").items, ListStore().content("other").items) == (["a", "b"], ["x", "y"])
    shown = RUN.invoke(app, ["lists", "ls"]).stdout
    assert "stock" in shown and "other" in shown
    assert RUN.invoke(app, ["lists", "delete", "stock"]).exit_code == 0
    assert ListStore().names() == ["other"]
    for words in (["delete", "stock"], ["put", "Bad Name", str(lines)], ["put", "a", str(tmp_path / "none.txt")]):
        assert isinstance(RUN.invoke(app, ["lists", *words]).exception, UserError)
