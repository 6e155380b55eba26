"""The command `prorec tidy`."""

from __future__ import annotations

import os

import typer

from prorec.flows.terminal.screen import say


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tidy)


def tidy() -> None:
    """Close the runs, in MLflow and in Prefect, of processes that died. Runs that are alive are left alone."""
    from prorec.flows.local.embedded import start_prefect
    from prorec.tasks.tracking import retries
    from prorec.tasks.upkeep.tidy import tidy as close

    # Whoever calls this every minute had rather hear soon that a server is away.
    os.environ.setdefault(retries.PATIENCE_VARIABLE, "20")

    def ask_prefect() -> None:
        start_prefect()()

    say(str(close(ask_prefect)), lines=True)
