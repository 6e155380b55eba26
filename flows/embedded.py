"""Prefect and MLflow without servers of their own: what to set before a run in this process, and where to look after.

Knows environment variables and logging; knows no stage.
"""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.local_server import LocalServer
from prorec_core.errors import UserError
from tasks import places, stopping
from tasks.events import Notice

if TYPE_CHECKING:
    from flows.display import Display


def start_prefect() -> Callable[[], None]:
    """Start a Prefect server for the runs of this process, unless `PREFECT_API_URL` names one.

    It starts while the process goes on, and ends with it. To be called before Prefect is imported.

    Returns:
        What is to be called before the server is used.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return lambda: _expect(url)
    home = places.prefect_home()
    os.environ.setdefault("PREFECT_HOME", str(home))
    alone = ExitStack()
    if not (home / "prefect.db").exists():
        # Two servers that make the tables at the same time are in each other's way.
        alone.enter_context(places.lock("prefect-database"))
    server = LocalServer(home / "server.log")
    # What is registered first is called last: after Prefect has sent off its logs and events.
    atexit.register(server.stop)
    os.environ["PREFECT_API_URL"] = server.url
    os.environ[places.EMBEDDED_VARIABLE] = "1"

    def ready() -> None:
        with alone:
            server.wait()

    return ready


def _expect(url: str) -> None:
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=30.0)
    except httpx.HTTPError as error:
        raise UserError(
            f"no Prefect server answers there ({error})",
            place=f"PREFECT_API_URL {url}",
            cure="Start it, or unset the variable to run without one",
        ) from error


def stop_like_ctrl_c() -> None:
    """Have a request to end (SIGTERM) close what is open, as an interruption does; after either this process is gone
    in a few seconds, and at once after a second Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _stop)
    stopping.end_when_asked(interruptions=True)


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def quiet(display: Display) -> None:
    """Keep the logs of libraries off the screen, and show the warnings of this project on `display`."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TQDM_DISABLE", "1")

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            display.hear(Notice(record.getMessage()))

    for name in ("tasks", "prorec_core"):
        ours = logging.getLogger(name)
        ours.addHandler(Shown(logging.WARNING))
        ours.propagate = False


def program(name: str) -> str:
    """A program of this environment as it can be typed here, where the environment is not active either."""
    path = Path(sys.executable).parent / name
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def mlflow_page(run: Mapping[str, Any]) -> tuple[str | None, str]:
    """How to see a run in MLflow: the command that shows it, if one is needed, and the address of its page."""
    if run["page"]:
        return None, str(run["page"])
    uri = places.tracking_uri()
    near = uri.removeprefix(f"sqlite:///{Path.cwd()}/")
    uri = uri if near == uri else f"sqlite:///{near}"
    path = f"#/experiments/{run['experiment_id']}/runs/{run['run_id']}"
    command = f"{program('mlflow')} ui --backend-store-uri {shlex.quote(uri)} --port 5000"
    return command, f"then open http://127.0.0.1:5000/{path}"


def predict(model: str, history: str, k: int) -> list[dict[str, Any]]:
    """What a registered model recommends after a history: `rank`, `item_id`, `title` and `score` each.

    Raises:
        UserError: there is no such model, or it cannot take this history.
    """
    items = [item.strip() for item in history.split(",") if item.strip()]
    if not items:
        raise UserError("the history is empty", place="--history", cure="Give item ids with commas between them")
    from tasks import registered

    recommender = registered.load(registered.find(model))
    if unknown := recommender.unknown(items):
        text = f"unknown items: {', '.join(unknown)}"
        if len(unknown) == len(set(items)):
            raise UserError(text, place="--history", cure=recommender.suggest(unknown[0]))
        print(f"prorec: {text}; the others count.", file=sys.stderr)
    best = recommender.recommend([items], k)[0]
    return [{"rank": rank, **asdict(each)} for rank, each in enumerate(best, start=1)]
