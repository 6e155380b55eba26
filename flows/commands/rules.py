"""Rules on the command line: options that say what may be recommended, and `prorec lists` for those with names.

Knows how they are written there; knows nothing of what they mean in a catalogue.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prorec.flows.terminal.screen import console, say
from prorec_core.errors import UserError

Only = Annotated[
    str | None, typer.Option("--only", metavar="ITEM,ITEM,…", help="Recommend nothing but these item ids.")
]
OnlyList = Annotated[
    str | None, typer.Option("--only-list", metavar="LIST", help="Nothing but what this named list has (prorec lists).")
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="YAML",
        help="Nothing but items that meet conditions on columns of data.attribute_columns, as '{brand: [A, B], price: "
        "{gte: 5, lt: 20}}'.",
    ),
]
Exclude = Annotated[str | None, typer.Option("--exclude", metavar="ITEM,ITEM,…", help="Leave these item ids out.")]
ExcludeList = Annotated[
    str | None, typer.Option("--exclude-list", metavar="LIST", help="Leave out what this named list has.")
]
ExcludeWhere = Annotated[
    str | None, typer.Option("--exclude-where", metavar="YAML", help="Leave out items that meet any such conditions.")
]

lists_app = typer.Typer(no_args_is_help=True, help="Named lists of item ids, as what is in stock.")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(lists_app, name="lists")


def choice(side: str, items: str | None, named: str | None, where: str | None) -> dict[str, Any] | None:
    """What the options of one side say, in the form of a request; None where nothing was given.

    Args:
        side: only or exclude.
        items: ids with commas.
        named: name of a list.
        where: conditions as YAML.

    Raises:
        UserError: they cannot be read.
    """
    found: dict[str, Any] = {}
    if items is not None:
        found["items"] = [part.strip() for part in items.split(",") if part.strip()]
    if named is not None:
        found["list"] = named
    if where is not None:
        found["where"] = _conditions("--where" if side == "only" else "--exclude-where", where)
    return found or None


def _conditions(option: str, text: str) -> Any:
    from prorec.flows.configuration import plain_yaml

    try:
        found = plain_yaml.parse(text) if text.strip() else None
    except plain_yaml.PlainYAMLError as error:
        raise UserError(f"this is no valid YAML: {error.problem}", place=option, cure=error.cure) from error
    if not isinstance(found, dict):
        raise UserError("conditions are wanted", place=option, cure="Give '{COLUMN: VALUE}', in quotes")
    return found


@lists_app.command("ls")
def show_lists() -> None:
    """Show all lists."""
    import time

    from rich.table import Table

    from prorec.flows.terminal.sizes import age
    from prorec.tasks.registry.lists import ListStore

    found, problems = ListStore().look_through()
    for problem in problems:
        say(problem, error=True)
    if not found:
        say("There is none that can be used." if problems else "There is no list yet.")
        return
    table = Table("list", "items", "age")
    for kept in found:
        since = age(time.time() - kept.updated.timestamp())
        table.add_row(kept.content.name, f"{len(kept.content.items):,}", since)
    console().print(table)


@lists_app.command("put")
def put(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9, - and _, no sign first.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .txt with an id a line, or a table (Parquet, Arrow, CSV, TSV, JSON Lines)."
        ),
    ],
    item_column: Annotated[str, typer.Option(help="Column of ids in a table.")] = "item_id",
) -> None:
    """Keep the item ids of a file as a list, in place of the one of this name; a service of this folder sees it."""
    from prorec.tasks.registry.lists import ListStore
    from prorec_core.data.id_lists import read_ids
    from prorec_core.paths import path_of

    kept = ListStore().put(name, read_ids(path_of(str(file)), item_column, "--item-column"))
    say(f"{name}: {len(kept.content.items):,} items")


@lists_app.command("delete")
def delete(name: Annotated[str, typer.Argument(metavar="NAME", help="The list.")]) -> None:
    """Forget a list."""
    from prorec.tasks.registry.lists import ListStore

    ListStore().delete(name)
