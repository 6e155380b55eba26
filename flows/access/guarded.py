"""The servers of Prefect and of MLflow behind the guard: `python -m prorec.flows.access.guarded prefect|mlflow …`.

Knows how both are started in this process, and what they ask for: Prefect what `PREFECT_SERVER_API_AUTH_STRING` says,
as USER:PASSWORD, MLflow the user and the password that its clients find in `MLFLOW_TRACKING_USERNAME` and
`MLFLOW_TRACKING_PASSWORD`. Without them neither starts. `prefect server start` and `mlflow server` guard less: the one
takes requests by any name, the other asks nobody who they are.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from typing import TYPE_CHECKING, Any

from prorec.flows.access.guard import Guard
from prorec.flows.access.proxies import stay_direct
from prorec.flows.access.secret import MLFLOW_PASSWORD, MLFLOW_USER, PREFECT_ASKS
from prorec.flows.terminal import streams
from prorec.tasks.local.databases import prepare_mlflow, prepare_prefect
from prorec.tasks.local.machine_errors import explained
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prefect.settings import Settings

_HOSTS, _ORIGINS = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
"""MLflow's own checks read these; with several processes each has to find them there."""


def prefect_app() -> Guard:
    """Prefect's server, which asks for its password itself, so that its pages can."""
    os.environ["PREFECT__SERVER_FINAL"] = "1"
    from prefect.server.api.server import create_app

    return Guard(create_app(), _listed(_HOSTS), _listed(_ORIGINS))


def mlflow_app() -> Guard:
    """MLflow's server, whose stores `_name_stores` named."""
    from mlflow.server.fastapi_app import app

    login = f"{os.environ[MLFLOW_USER]}:{os.environ[MLFLOW_PASSWORD]}"
    return Guard(app, _listed(_HOSTS), _listed(_ORIGINS), login, ["/health"])


def _listed(variable: str) -> list[str]:
    return [each.strip() for each in os.environ.get(variable, "").split(",") if each.strip()]


def _serve_prefect(chosen: argparse.Namespace) -> None:
    _expect(PREFECT_ASKS)
    # Empty would be a name that no origin has; its default is all.
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = chosen.allowed_origins
    import uvicorn
    from prefect.settings import get_current_settings

    prepare_prefect()
    settings: Settings = get_current_settings()
    uvicorn.run(
        prefect_app(),
        host=chosen.host,
        port=chosen.port,
        timeout_keep_alive=settings.server.api.keepalive_timeout,
        ws_ping_interval=settings.server.api.websocket_ping_interval,
        ws_ping_timeout=settings.server.api.websocket_ping_timeout,
        log_level=settings.server.logging_level.lower(),
    )


def _serve_mlflow(chosen: argparse.Namespace) -> None:
    _expect(MLFLOW_USER, MLFLOW_PASSWORD)
    import uvicorn

    _name_stores(chosen)
    from mlflow.server import _UVICORN_LOG_CONFIG

    uvicorn.run(
        "prorec.flows.access.guarded:mlflow_app",
        factory=True,
        host=chosen.host,
        port=chosen.port,
        workers=chosen.workers,
        log_config=str(_UVICORN_LOG_CONFIG),
    )


def _name_stores(chosen: argparse.Namespace) -> None:
    """Do what `mlflow server` does before it starts the application in processes of their own."""
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    from mlflow.environment_variables import _MLFLOW_IN_JOB_EXECUTOR, _MLFLOW_SERVER_BOOT_ID, _MLFLOW_SGI_NAME
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores

    prepare_mlflow(chosen.backend_store_uri)
    root = chosen.artifact_root or "mlflow-artifacts:/"
    variables: dict[str, Any] = {
        constants.BACKEND_STORE_URI_ENV_VAR: chosen.backend_store_uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: chosen.backend_store_uri,
        constants.ARTIFACT_ROOT_ENV_VAR: root,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true" if chosen.artifacts_destination else None,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: chosen.artifacts_destination,
        _MLFLOW_SGI_NAME.name: "uvicorn",
        _MLFLOW_SERVER_BOOT_ID.name: uuid.uuid4().hex,
        _MLFLOW_IN_JOB_EXECUTOR.name: "false",
    }
    for name, value in variables.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    initialize_backend_stores(chosen.backend_store_uri, chosen.backend_store_uri, root)


def _expect(*variables: str) -> None:
    for name in variables:
        if not os.environ.get(name):
            raise UserError("it is not set", place=name, cure="The server asks for it: without, it would ask nobody")


def _parser() -> argparse.ArgumentParser:
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--host", required=True, help="the address to listen at")
    every.add_argument("--port", required=True, type=int)
    every.add_argument(
        "--allowed-hosts",
        required=True,
        help="names with ports by which it may be called, with commas; NAME:* any port",
    )
    every.add_argument(
        "--allowed-origins", default="", help="whose pages may call it besides its own: http://NAME:PORT, with commas"
    )
    parser = argparse.ArgumentParser(
        prog="python -m prorec.flows.access.guarded", description="A server that asks who is there."
    )
    servers = parser.add_subparsers(required=True)
    prefect = servers.add_parser("prefect", parents=[every], help="Prefect's server; its database: PREFECT_SERVER_…")
    prefect.set_defaults(serve=_serve_prefect)
    mlflow = servers.add_parser("mlflow", parents=[every], help="MLflow's server")
    mlflow.add_argument("--workers", type=int, default=1, help="processes")
    mlflow.add_argument("--backend-store-uri", required=True, help="the database")
    kept = mlflow.add_mutually_exclusive_group(required=True)
    kept.add_argument("--artifacts-destination", help="where files go that clients send to the server")
    kept.add_argument("--artifact-root", help="where clients put files themselves")
    mlflow.set_defaults(serve=_serve_mlflow)
    return parser


def main() -> None:
    """Serve until told to stop; exit status 2 where something is missing."""
    chosen = _parser().parse_args()
    stay_direct()
    os.environ[_HOSTS], os.environ[_ORIGINS] = chosen.allowed_hosts, chosen.allowed_origins
    try:
        chosen.serve(chosen)
    except Exception as error:
        if (problem := explained(error)) is None:
            raise
        streams.print_error(f"prorec: {problem}")
        sys.exit(2)


if __name__ == "__main__":
    main()
