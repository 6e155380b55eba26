"""`prorec export`: a registered version as a folder of its own. Knows the command; knows nothing of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prorec.flows.terminal.screen import say


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A version such as prorec-demo/3 or NAME@champion.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    push: Annotated[
        str | None, typer.Option("--push", metavar="REPO", help="Upload it to the Hugging Face hub, as OWNER/NAME.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: a repository that is made is public.")] = False,
) -> None:
    """Write a model into a folder that needs no store: its files and a card with its figures and limits."""
    from prorec.tasks.registry import export as exporting

    files = exporting.export(model, folder)
    say(f"{len(files)} files in {folder}, {exporting.CARD} says what they are.")
    if push is not None:
        say(exporting.push(folder, push, public=public))
