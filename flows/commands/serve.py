"""The command that serves a registered model. Knows its options; the work is done in `prorec.flows.service`."""

from __future__ import annotations

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command `serve`."""

    @app.command()
    def serve(
        model: Annotated[
            str,
            typer.Option(metavar="MODEL_URI", help="A registered model: models:/NAME@ALIAS or models:/NAME/VERSION."),
        ] = "models:/prorec-demo@champion",
        host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
        poll: Annotated[
            float, typer.Option(min=0, help="Seconds between looks at which version the model's alias names; 0: never.")
        ] = 5.0,
        threads: Annotated[int, typer.Option(min=0, help="Threads of inference; 0: all cores but one.")] = 0,
        queue: Annotated[int, typer.Option(min=1, help="Histories that may wait; beyond that requests get 503.")] = 512,
        names: Annotated[
            str,
            typer.Option(
                "--allowed-hosts",
                help="Names by which it may be called besides its own, with commas: a proxy's, as shop.example or "
                "shop.example:*.",
            ),
        ] = "",
    ) -> None:
        """Serve recommendations over HTTP: /recommend, /ready, /health, /metrics, and /docs that explains them."""
        from prorec.flows.service.server import serve as serve_until_stopped

        allowed = [each.strip() for each in names.split(",") if each.strip()]
        serve_until_stopped(model, host, port, poll=poll, threads=threads, most_waiting=queue, names=allowed)
