"""A run in this process as the command line does it: with a display, then the result. Knows nothing of what is run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from prorec.flows.terminal.screen import console, say
from prorec.tasks.local import paths
from prorec_core.errors import UserError, did_you_mean
from prorec_core.threads import WAITING

if TYPE_CHECKING:
    from prorec_core.config import Experiment

T = TypeVar("T")

TRAINING = {
    # glibc gives big tensors back to the kernel at every step unless told not to.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    **WAITING,
}
"""What is set before a process starts that trains."""


def debugging() -> bool:
    """Whether tracebacks and all logs are to be shown."""
    return "--debug" in sys.argv[1:]


def expect_stages(option: str, names: Iterable[str]) -> None:
    """Refuse names of stages that do not exist."""
    if not (names := list(names)):
        return
    from prorec.tasks.stages.pipeline import STAGES

    for name in names:
        if name not in STAGES:
            raise UserError(f"unknown stage '{name}'", place=option, cure=did_you_mean(name, STAGES))


def expect_output(option: str, file: Path | None, *inputs: str | Path | None, parquet: bool = False) -> None:
    """Refuse a file that cannot be written, or in whose place there is another, if one is asked for, before any work.

    Args:
        option: by which it is asked for.
        file: what is to be written.
        inputs: what the same command reads, by names that may stand for no file.
        parquet: it is to be Parquet, and not JSON.
    """
    if file is not None:
        paths.expect_output(file, f"{option} {file}", filter(None, inputs), parquet=parquet)


def prepare_training() -> None:
    """Start this program again, once, with the environment for training (glibc only); to be called before anything else
    is imported or read, since all of that would be done twice.
    """
    try:
        glibc = bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError, AttributeError):
        glibc = False
    if glibc and not all(name in os.environ for name in TRAINING):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**TRAINING, **os.environ})


def write_output(option: str, file: Path | None, value: object) -> None:
    """Write a result as JSON, if a file is asked for; where that fails, nothing of the work is lost."""
    if file is None:
        return
    from prorec_core.artifacts import write_json

    try:
        write_json(file, value)
    except OSError as error:
        raise UserError(
            f"it cannot be written ({error.strerror or error})",
            place=f"{option} {file}",
            cure="Name another file and run it again: all that was made is cached",
        ) from error


def run_flow(
    experiment: Experiment, force: frozenset[str], tags: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Run all stages in this process, shown on the screen; returns what the flow does."""
    from prorec.tasks.stages.pipeline import STAGES

    def call() -> dict[str, Any]:
        from prorec.flows.full import forcing, prorec, tagging

        with forcing(force), tagging(tags):
            return prorec(experiment=experiment)

    return in_process(list(STAGES), call)


def in_process(stages: Sequence[str], flow: Callable[[], T]) -> T:
    """Call a flow in this process, its stages shown on the screen; it imports Prefect, which is only then set up."""
    from prorec.flows.local.embedded import quiet, start_prefect, stop_like_ctrl_c
    from prorec.flows.local.importing import kept_for_good
    from prorec.flows.terminal.display import make_display
    from prorec.tasks.execution.events import listening
    from prorec.tasks.local.stopping import stops_kept

    with make_display(list(stages)) as display, listening(display.handle):
        display.say("starting Prefect and MLflow …")
        if not debugging():
            quiet(display.handle)
        stop_like_ctrl_c()
        with kept_for_good():
            ready = start_prefect()
            from prorec.tasks.tracking.mlflow_runs import client

            client()
            ready()
        display.say("")
        with stops_kept():
            return flow()


def show_result(summary: dict[str, Any]) -> None:
    """Print the table of results, and where everything is."""
    from prorec.flows.local.embedded import mlflow_lines, program
    from prorec.flows.terminal.display import plain_table, result_table
    from prorec.flows.terminal.screen import plain
    from prorec_core.reports.tables import new_item_line, new_item_rows

    console().print(result_table(summary["metrics"]))
    if new := summary["metrics"].get("new_items"):
        console().print(plain_table(new_item_line(new), new_item_rows(new)))
    for text in summary["metrics"].get("warnings", ()):
        console().print(plain(f"{text}.", "yellow"), soft_wrap=True)
    history = shlex.quote(",".join(summary["items"]))
    lines = {
        "report": _short(summary["report"]),
        "artifacts": _short(str(paths.store())) if not paths.tracks_over_http() else paths.tracking_uri(),
        "model": summary["model"],
        "recommend": f"{program('prorec')} recommend --model {summary['model']} --history {history}",
        **mlflow_lines(summary["mlflow"]),
    }
    for name, text in lines.items():
        if text:
            say(f"{name:<10} {text}")


def _short(place: str) -> str:
    """A path as seen from here, where that is shorter."""
    path = paths.local_path(place) or Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
