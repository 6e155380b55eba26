"""Prefect and MLflow without servers of their own: what to set before a run in this process, and where to look after.

Knows environment variables and logging; knows no stage.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.flows.access import secret
from prorec.flows.local.prefect_server import LocalServer
from prorec.flows.terminal.screen import say
from prorec.tasks.execution.events import Event, Notice
from prorec.tasks.local import paths, stopping
from prorec.tasks.tracking import mlflow_runs
from prorec_core.errors import UserError
from prorec_core.visible import shortened

if TYPE_CHECKING:
    from prorec_core.generation.rules import Rule


_LONGEST_LINE = 500


def start_prefect(home: Path | None = None) -> Callable[[], None]:
    """Start a Prefect server for the runs of this process, unless `PREFECT_API_URL` names one.

    It starts while the process goes on, and ends with it. To be called before Prefect is imported.

    Args:
        home: where it keeps what is its own; by default in the folder of artifacts.

    Returns:
        What is to be called before the server is used.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return lambda: expect_prefect(url)
    home = home or paths.prefect_home()
    os.environ.setdefault("PREFECT_HOME", str(home))
    server = LocalServer(home / "server.log")
    # What is registered first is called last: after Prefect has sent off its logs and events.
    atexit.register(server.stop)
    os.environ.update({"PREFECT_API_URL": server.url, **secret.for_prefect(server.password)})
    os.environ[paths.EMBEDDED_VARIABLE] = "1"

    def ready() -> None:
        _expect_settings()
        server.wait()

    return ready


def _expect_settings() -> None:
    """Have Prefect read its settings, and raise what is wrong with them; it would go on, and print that, too."""
    with contextlib.redirect_stderr(io.StringIO()):
        from prefect.settings import get_current_settings

        get_current_settings()


def expect_prefect(url: str) -> None:
    """Make sure that a Prefect server answers there, and takes the password that it is given.

    Raises:
        UserError: it does not.
    """
    import httpx

    _expect_settings()
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=30.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"no Prefect server answers there ({error})",
            place=f"PREFECT_API_URL {url}",
            cure="Start it, or unset the variable to run without one",
        ) from error
    expect_welcome(url)


def expect_welcome(url: str) -> None:
    """Make sure that the Prefect server in use, which answers, takes the password that it is given.

    Raises:
        UserError: it does not.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        try:
            client.request("GET", "/admin/version")
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in {401, 403}:
                return
            raise UserError(
                "the Prefect server there does not take the password that it is given",
                place=f"PREFECT_API_URL {url}",
                cure="Set PREFECT_API_AUTH_STRING to USER:PASSWORD; that of the local stack is what "
                "`prorec status --env` prints",
            ) from error


def stop_like_ctrl_c() -> None:
    """Have a request to end (SIGTERM) close what is open, as an interruption does; after either this process is gone
    in a few seconds, and at once after a second Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _stop)
    stopping.end_when_asked(interruptions=True)


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def quiet(handle: Callable[[Event], None]) -> None:
    """Keep the logs of libraries off the screen, and show the warnings of this project by way of `handle`."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TQDM_DISABLE", "1")

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            handle(Notice(record.getMessage()))

    for name in ("prorec", "prorec_core"):
        ours = logging.getLogger(name)
        ours.addHandler(Shown(logging.WARNING))
        ours.propagate = False


def program(name: str) -> str:
    """A program of this environment as it can be typed here, where the environment is not active either."""
    path = Path(sys.executable).parent / name
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def mlflow_lines(run: Mapping[str, Any]) -> dict[str, str]:
    """How to see a run in MLflow: the command that shows its pages, if one is needed, its own and the table of all."""
    found = {}
    base = str(run["page"] or "").partition("#")[0]
    if not base:
        uri = paths.tracking_uri()
        file = paths.sqlite_path(uri)
        if file is not None and file.is_relative_to(Path.cwd()):
            uri = paths.sqlite_uri(file.relative_to(Path.cwd()))
        found["MLflow"] = f"{program('mlflow')} ui --backend-store-uri {shlex.quote(uri)} --port 5000"
        base = "http://127.0.0.1:5000/"
    found["this run"] = base + mlflow_runs.path_of_page(run["experiment_id"], run["run_id"])
    found["all runs"] = base + mlflow_runs.path_of_table(run["experiment_id"])
    return found


def predict(
    model: str, history: str, k: int, rule: Mapping[str, Any] | None = None, *, explained: bool = False
) -> list[dict[str, Any]]:
    """What a registered model recommends after a history: `rank`, `item_id`, `title` and `score` each.

    Args:
        model: its address.
        history: item ids with commas.
        k: items at most.
        rule: `only` and `exclude` in the form of a request, each None where nothing was said.
        explained: also `why`, lines that say why each is there.

    Raises:
        UserError: there is no such model, or it cannot take this history or follow this rule.
    """
    items = [item.strip() for item in history.split(",") if item.strip()]
    if not items:
        raise UserError("the history is empty", place="--history", cure="Give item ids with commas between them")
    from prorec.tasks.registry import recommenders

    wanted = _rule(rule or {})
    recommender = recommenders.load(recommenders.find(model))
    left = None if wanted is None else recommender.rules.left(wanted)
    if left is not None and left.unknown:
        say(f"prorec: {left.unknown_told}.", error=True)
    rules = None if left is None else [left.allowed]
    if unknown := recommender.unknown(items):
        text = f"unknown items: {', '.join(unknown)}"
        if len(unknown) == len(set(items)):
            raise UserError(text, place="--history", cure=recommender.suggest(unknown[0]))
        say(f"prorec: {shortened(text, _LONGEST_LINE)}; the others count.", error=True)
    if not explained:
        best = recommender.recommend([items], k, rules=rules)[0]
        return [{"rank": rank, **asdict(each)} for rank, each in enumerate(best, start=1)]
    from prorec_core.generation.explain import explain, reasons, told

    found = explain(recommender, recommender.numbered([items]), k, rules=rules)
    best = recommender.named(found.lists)[0]
    lines = [told(recommender, reason) for reason in reasons(recommender, found, 0)]
    return [
        {"rank": rank, **asdict(each), "why": why}
        for rank, (each, why) in enumerate(zip(best, lines, strict=True), start=1)
    ]


def _rule(given: Mapping[str, Any]) -> Rule | None:
    from pydantic import TypeAdapter, ValidationError

    from prorec.tasks.registry.lists import ListStore
    from prorec_core.generation.rules import Chosen, Rule

    chosen = {}
    for side in ("only", "exclude"):
        try:
            chosen[side] = TypeAdapter(Chosen | None).validate_python(given.get(side))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(["--" + side, *(str(part) for part in first["loc"])])
            raise UserError(first["msg"].removeprefix("Value error, "), place=place) from None
    return Rule.of(chosen["only"], chosen["exclude"], ListStore().content)
