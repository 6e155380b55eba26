"""`prorec recommend-all`: the flow `recommend` in this process, with a display."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from prorec.flows.commands import rules
from prorec.flows.local.running import expect_output, in_process
from prorec.flows.terminal.screen import say
from prorec_core.errors import UserError


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recommend-all")(recommend_all)


def recommend_all(
    model: Annotated[
        str, typer.Option(metavar="MODEL_URI", help="models:/NAME@ALIAS or models:/NAME/VERSION.")
    ] = "models:/prorec-demo@champion",
    users: Annotated[
        str, typer.Option(metavar="all|FILE", help="All users of the model's data set, or a file of histories.")
    ] = "all",
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Items a user.")] = 10,
    output: Annotated[Path | None, typer.Option(metavar="OUT.parquet", help="The file to write.")] = None,
    keep_history: Annotated[
        bool | None,
        typer.Option(
            "--keep-history/--leave-out-history",
            help="Recommend also what a user has, or not; by default as the model was measured.",
            show_default=False,
        ),
    ] = None,
    unknown_items: Annotated[
        Literal["error", "drop"], typer.Option(help="Items in the file that the model does not know.")
    ] = "error",
    chunk: Annotated[int, typer.Option(min=1, max=100_000, help="Users at a time.")] = 1000,
    user_column: Annotated[str, typer.Option(help="Column of users in the file.")] = "user_id",
    history_column: Annotated[str, typer.Option(help="Column of histories in the file.")] = "history",
    item_column: Annotated[str, typer.Option(help="Column of items in a file of interactions.")] = "item_id",
    timestamp_column: Annotated[
        str, typer.Option(help="Column of times in a file of interactions; '' where it is in order.")
    ] = "timestamp",
    timestamp_format: Annotated[
        str | None, typer.Option(help="How times are written in a file of interactions, as data.timestamp_format.")
    ] = None,
    quotes: Annotated[bool, typer.Option(help="Quotes enclose fields of a CSV or TSV file.")] = True,
    multiline: Annotated[
        bool, typer.Option("--multiline", help="Quoted fields may have lines that look like rows.")
    ] = False,
    only: rules.Only = None,
    only_list: rules.OnlyList = None,
    where: rules.Where = None,
    exclude: rules.Exclude = None,
    exclude_list: rules.ExcludeList = None,
    exclude_where: rules.ExcludeWhere = None,
    explain: Annotated[bool, typer.Option("--explain", help="Add columns that say why each item is there.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="compute.KEY=VALUE", help="Who computes, as compute.engine=ray."),
    ] = None,
) -> None:
    """Write the best items of every user to a Parquet file; a run that was killed goes on where it was."""
    from prorec.tasks.local import paths
    from prorec_core.data.formats import is_file
    from prorec_core.paths import path_of
    from prorec_core.values import known_format

    if paths.nothing_tracked():
        raise UserError("there is no model yet", place=f"the model {model}", cure="Run `prorec run demo` first")
    if users != "all" and not is_file(path_of(users)):
        raise UserError(
            "there is no such file",
            place=f"--users {users}",
            cure="URLs are not read: copy the file and name the copy" if "://" in users else "Name a file, or say all",
        )
    if timestamp_format is not None:
        try:
            timestamp_format = known_format(timestamp_format)
        except ValueError as error:
            raise UserError(str(error), place="--timestamp-format", cure="Correct it") from None
    expect_output("--output", output and path_of(str(output)), path_of(users), parquet=True)
    summary = _run(
        {
            "model": model,
            "users": users,
            "k": k,
            "output": None if output is None else str(path_of(str(output)).absolute()),
            "mask_history": None if keep_history is None else not keep_history,
            "unknown_items": unknown_items,
            "chunk": chunk,
            "user_column": user_column,
            "history_column": history_column,
            "item_column": item_column,
            "timestamp_column": timestamp_column or None,
            "timestamp_format": timestamp_format,
            "quotes": quotes,
            "multiline": multiline,
            "only": rules.choice("only", only, only_list, where),
            "explain": explain,
            "compute": _compute(settings or ()),
            "exclude": rules.choice("exclude", exclude, exclude_list, exclude_where),
        }
    )
    say(f"{summary['users']:,} users, {summary['rows']:,} rows by {summary['model']}: {summary['output']}")
    say(f"sha256 {summary['sha256']}")
    from prorec.tasks.registry.recommend import short_lists_note

    if note := short_lists_note(summary):
        say(note)


def _compute(settings: Iterable[str]) -> dict[str, Any]:
    """The section `compute`, of what `--set` says.

    Raises:
        UserError: it says something else.
    """
    from prorec.flows.configuration.experiments import load

    for setting in settings:
        if not setting.startswith("compute."):
            raise UserError("only fields of compute are set here", place=f"--set {setting}", cure="Use the options")
    return load("demo", list(settings)).compute.model_dump(mode="json")


def _run(settings: dict[str, Any]) -> dict[str, Any]:
    def call() -> dict[str, Any]:
        from pydantic import ValidationError

        from prorec.flows.configuration.experiments import explained
        from prorec.flows.recommend import recommend
        from prorec.tasks.registry.recommend import BatchRequest

        try:
            request = BatchRequest.model_validate(settings)
        except ValidationError as error:
            raise explained(error, "", root=BatchRequest) from error
        return recommend(request=request)

    return in_process(["recommend"], call)
