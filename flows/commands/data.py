"""`prorec data`: what a file or folder holds and which experiment it could be; public data sets by name.

Knows what is shown and in which words; the looking and the fetching are elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prorec.flows.terminal.screen import console, plain, say

if TYPE_CHECKING:
    from prorec_core.data.peek.look import Seen, TableSeen


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Data: your own, and public data sets by name.")
    group.command()(peek)
    app.add_typer(group, name="data")


def peek(
    path: Annotated[str, typer.Argument(metavar="FILE|FOLDER", help="What is to be looked at.")],
) -> None:
    """Tell what data look like, what each filter would take, and the experiment as YAML; its guesses are guesses."""
    from prorec_core.data.peek.look import look

    seen = look(path)
    screen = console(wide=True)
    screen.print(plain(f"{seen.place}: {seen.layout}", "bold"))
    for table in seen.tables:
        screen.print(_columns(table))
    for note in seen.notes:
        say(f"- {note}")
    if seen.profile:
        screen.print(_filters(seen.profile))
    if seen.problem:
        say(f"It would stop here: {seen.problem}")
    if seen.values:
        say(
            f"The experiment, as far as it can be guessed; keep it as {seen.values['name']}.yaml, check it, and run it:"
        )
        say("")
        say(_yaml(seen), lines=True)


def _columns(table: TableSeen) -> Any:
    from rich.table import Table

    guess = f", {table.guess} (a guess)" if table.guess else ""
    title = f"{table.name}: {table.rows:,} rows{guess}"
    found = Table("column", "type", "for instance", "taken for (a guess)", title=title, title_justify="left")
    for column in table.columns:
        found.add_row(column.name, column.type, column.example, column.guess)
    return found


def _filters(profile: dict[str, Any]) -> Any:
    from rich.table import Table

    kinds = ("users", "items", "interactions")
    found = Table("filter", *kinds, title="What each filter would leave", title_justify="left")
    steps = profile["filters"]
    after = [(f"{step['filter']} ({step['setting']})", step["after"]) for step in steps]
    for name, counts in [("all", steps[0]["before"]), *after]:
        found.add_row(name, *(f"{counts[each]:,}" for each in kinds))
    return found


def _yaml(seen: Seen) -> str:
    import yaml

    return yaml.safe_dump(seen.values, sort_keys=False, allow_unicode=True).rstrip("\n")
