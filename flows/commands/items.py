"""`prorec items`: new items for a registered model, and items that are withdrawn, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prorec.flows.commands.models import promote_over
from prorec.flows.terminal.screen import say
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.tasks.registry.items import How, Outcome

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME/VERSION or models:/NAME@ALIAS.")]
_Promote = Annotated[bool, typer.Option("--promote", help="Make it the champion, as `prorec promote` does.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="New and withdrawn items of a model, without training.")
    group.command()(add)
    group.command()(remove)
    app.add_typer(group, name="items")


def add(
    model: _Model,
    items: Annotated[Path, typer.Option(metavar="FILE", help="New items, with the columns of the shop's items file.")],
    promote: _Promote = False,
    encoder: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Where the model's text encoder is, if elsewhere by now.")
    ] = None,
    bonus: Annotated[
        float, typer.Option(min=0, max=20, metavar="NATS", help="Added to the score of each: with 0.7 it counts twice.")
    ] = 0.0,
    device: Annotated[str, typer.Option(help="Where texts are embedded: auto, cpu, cuda.")] = "auto",
) -> None:
    """Register a version with new items: placed by their texts, codes of their own, nothing trained."""
    from prorec.tasks.registry.items import How

    _change(model, "add", items, How(encoder=encoder, bonus=bonus, device=device), promote)


def remove(
    model: _Model,
    ids: Annotated[Path, typer.Option(metavar="FILE", help="A .txt with an item id a line, or a table of items.")],
    promote: _Promote = False,
) -> None:
    """Register a version without some items: never recommended, passed over in histories."""
    from prorec.tasks.registry.items import How

    _change(model, "remove", ids, How(), promote)


def _change(model: str, kind: Literal["add", "remove"], file: Path, how: How, promote: bool) -> None:
    from prorec.flows.local.embedded import quiet, stop_like_ctrl_c
    from prorec.flows.terminal.display import make_display
    from prorec.tasks.execution.events import listening
    from prorec.tasks.local import paths
    from prorec.tasks.registry.changes import Change
    from prorec.tasks.registry.items import NAME, update
    from prorec_core.paths import path_of

    if paths.nothing_tracked():
        raise UserError("there is no model yet", place=model, cure="Run `prorec run demo` first")
    change = Change.of(kind, path_of(str(file)))
    with make_display([NAME]) as display, listening(display.handle):
        quiet(display.handle)
        stop_like_ctrl_c()
        outcome = update(model, [change], how)
    say(told(outcome))
    if promote:
        promote_over(outcome.uri.removeprefix("models:/"), over=outcome.over(model))


def told(outcome: Outcome) -> str:
    """What was done, in a line."""
    counts = {"added": outcome.added, "withdrawn": outcome.withdrawn, "back": outcome.back}
    parts = [f"{count:,} item{'s' * (count != 1)} {name}" for name, count in counts.items() if count]
    if not parts:
        return f"Nothing was to be done: {outcome.base} stays as it is."
    return f"{', '.join(parts)}: {outcome.uri}, made from {outcome.base}, whose evaluation it carries."
