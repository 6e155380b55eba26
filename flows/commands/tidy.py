"""The command `prorec tidy`."""

from __future__ import annotations

import os

import typer

from flows.screen import say


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tidy)


def tidy() -> None:
    """Close the runs, in MLflow and in Prefect, of processes that died. Runs that are alive are left alone."""
    from flows.embedded import start_prefect
    from tasks import patience
    from tasks.tidy import tidy as close

    # Whoever calls this every minute had rather hear soon that a server is away.
    os.environ.setdefault(patience.PATIENCE_VARIABLE, "20")

    def ask_prefect() -> None:
        start_prefect()()

    say(str(close(ask_prefect)), lines=True)
