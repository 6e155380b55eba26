"""What is printed is text: no markup, no order to the terminal, wherever it comes from."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from typer.testing import CliRunner

from prorec.flows import cli
from prorec.flows.commands import recommend_all
from prorec.flows.local import embedded
from prorec.flows.local.running import show_result
from prorec.flows.terminal.display import LiveDisplay, PlainDisplay, plain_table
from prorec.flows.terminal.screen import PlainConsole, console, plain, say
from prorec.tasks.execution.events import Notice, PartEnded, PartStarted
from prorec.tasks.local import paths
from prorec_core.errors import UserError
from prorec_core.visible import block_in_markdown, code_in_markdown, in_markdown

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "[/] [bold]x[/bold] :smile: [link=http://evil]y[/link]\x1b[31m\x9b2J\r\u202eevil\u200b\x07"
SHOWN = r"[/] [bold]x[/bold] :smile: [link=http://evil]y[/link]\x1b[31m\x9b2J\r\u202eevil\u200b\x07"


def _console(width: int = 200) -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=width)


def _text(console: PlainConsole) -> str:
    found: str = console.file.getvalue()  # type: ignore[attr-defined]
    return found


def test_a_console_shows_every_text_as_it_is() -> None:
    screen = _console()
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    screen.print(table, HOSTILE, plain(HOSTILE, "bold"), plain_table(HOSTILE, [[HOSTILE], [HOSTILE]]))
    assert _text(screen).count(SHOWN) == 9
    assert all(line.isprintable() for line in _text(screen).splitlines())


def test_a_line_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{HOSTILE}\nmore")
    say("two\nlines", lines=True)
    say(HOSTILE, error=True)
    printed = capsys.readouterr()
    assert printed.out == f"{SHOWN}\\nmore\ntwo\nlines\n" and printed.err == f"{SHOWN}\n"


@pytest.mark.parametrize("live", [True, False])
def test_a_display_shows_every_text_as_it_is(live: bool, capsys: pytest.CaptureFixture[str]) -> None:
    screen = _console()
    display = LiveDisplay([], screen) if live else PlainDisplay()
    with display:
        display.handle(PartStarted(HOSTILE, (), 1, 2, None))
        display.say(HOSTILE)
        display.handle(Notice(f"{HOSTILE}\nmore"))
        display.handle(PartEnded(HOSTILE))
    shown = _text(screen) if live else capsys.readouterr().err
    assert f"{SHOWN}\\nmore" in shown and shown.count(SHOWN) >= 3
    assert all(line.isprintable() for line in shown.splitlines())


def test_recommendations_show_titles_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"rank": 1, "item_id": HOSTILE, "title": f"a\nb{HOSTILE}", "score": -1.0}]
    monkeypatch.setattr(embedded, "predict", lambda *_, **__: found)
    result = CliRunner(env={"COLUMNS": "400"}).invoke(
        cli.app, ["recommend", "--model", "m", "--history", "a", "--k", "1"]
    )
    assert result.exit_code == 0, result.output
    assert result.output.count(SHOWN) == 2 and r"a\nb[/]" in result.output
    assert all(line.isprintable() for line in result.output.splitlines())


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "Nothing is left to recommend: the history holds the whole catalogue."),
        (2, "2 of 3 items: the catalogue has no more that the history lacks."),
        (3, ""),
    ],
)
def test_fewer_recommendations_than_asked_for_are_told(monkeypatch: pytest.MonkeyPatch, count: int, told: str) -> None:
    found = [{"rank": n, "item_id": f"item-{n}", "title": "T", "score": -1.0} for n in range(1, count + 1)]
    monkeypatch.setattr(embedded, "predict", lambda *_, **__: found)
    result = CliRunner().invoke(cli.app, ["recommend", "--model", "m", "--history", "a", "--k", "3"])
    assert result.exit_code == 0 and result.stderr.strip() == told
    assert ("item-1" in result.stdout) == bool(count)


def test_users_who_got_fewer_are_told_at_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    summary = {"users": 1000, "rows": 9, "model": "m", "output": "o", "sha256": "s", "k": 10}
    users = tmp_path / "users.csv"
    users.touch()
    monkeypatch.setattr(paths, "nothing_tracked", lambda: False)
    for short, empty, told in (
        (0, 0, None),
        (12, 0, "12 of 1,000 users got fewer than 10 items: the catalogue has no more that they lack."),
        (12, 2, "12 of 1,000 users got fewer than 10 items, 2 of them none: the catalogue has no more that they lack."),
    ):
        ended = {**summary, "users_short": short, "users_empty": empty}
        monkeypatch.setattr(recommend_all, "_run", lambda _, ended=ended: ended)
        result = CliRunner().invoke(cli.app, ["recommend-all", "--users", str(users)])
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[2:] == ([told] if told else [])


def test_options_that_cannot_be_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend_all, "in_process", lambda stages, call: call())
    for wrong, message in (
        ({"user_column": ""}, "user_column: string should have at least 1 character (got '')."),
        ({"users": "x" * 10_000}, "users: string should have at most 4096 characters (got 'xxx"),
        ({"output": "a\0b"}, "output: must match"),
    ):
        with pytest.raises(UserError) as caught:
            recommend_all._run(wrong)
        assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_results_show_ids_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_result(
        {
            "metrics": {"test": {HOSTILE: {"recall_at_10": 0.5}}},
            "report": f"/x/{HOSTILE}",
            "model": HOSTILE,
            "items": [HOSTILE],
            "mlflow": {"page": HOSTILE, "experiment_id": "1", "run_id": "2"},
        }
    )
    printed = capsys.readouterr().out
    assert printed.count(r"\x1b[31m") >= 4 and all(line.isprintable() for line in printed.splitlines())


def test_mistakes_show_ids_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise UserError(f"unknown item {HOSTILE}\nand more", place=HOSTILE)

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(sys, "argv", ["prorec", "recommend"])
    monkeypatch.setattr(cli, "connect", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and printed.count(SHOWN) == 2 and len(printed.splitlines()) == 1


def test_a_terminal_that_lacks_characters_gets_escapes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from prorec.flows.cli import main; main()", "config", "schema"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"Weights \u03bb of the dense score" in done.stdout


def test_markdown_shows_text_as_it_is() -> None:
    assert in_markdown("items.parquet: no such column.") == "items.parquet: no such column."
    for text in ("![x](http://evil/a.png)", "[x](http://evil)", "<img src=x>", "**a**", "`a`", "a|b", "a\nb", "~~a~~"):
        shown = in_markdown(text)
        assert "\n" not in shown and not any(
            start in shown for start in ("](", "![", "<img") if f"\\{start}" not in shown
        )
    assert in_markdown("a|b `c` <d> ![e](f)") == r"a\|b \`c\` \<d\> \!\[e\](f)"
    assert code_in_markdown("a`b``c\x1b") == r"```a`b``c\x1b```" and code_in_markdown("`a") == "`` `a ``"
    assert block_in_markdown("a: '```'\n", "yaml") == "````yaml\na: '```'\n````"


def _calls(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


PRINTING = {
    "print",
    "typer.echo",
    "typer.secho",
    "Console",
    "rich.print",
    "Text",
    "Text.from_markup",
    "sys.stdout.write",
}
EXCEPT = {"flows/terminal/screen.py"}
FOR_A_SHELL = {("flows/commands/stack.py", "print")}
LAST_WORDS = {("flows/terminal/streams.py", "print"), ("prorec_core/stages/in_folder.py", "print")}
"""What is made plain there, or was by its callers."""


def test_text_is_printed_in_one_place_alone() -> None:
    """Whoever prints past `prorec.flows.terminal.screen` prints what data say to a terminal."""
    found = []
    for folder in ("flows", "tasks", "prorec_core"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            found += [
                f"{name}:{line}: {call}"
                for call, line in _calls(path)
                if call in PRINTING and name not in EXCEPT and (name, call) not in FOR_A_SHELL | LAST_WORDS
            ]
    assert found == []


def test_a_wide_console_has_room_where_nobody_looks() -> None:
    assert console(wide=True).width == 240
