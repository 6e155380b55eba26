"""The command line `prorec`. Knows commands and how mistakes are told; what takes long to import waits for its use."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands import compare
from prorec_core.errors import UserError, did_you_mean
from tasks.patience import TrackingAwayError

if TYPE_CHECKING:
    from prorec_core.config import Experiment

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="PRORec: recommendations by generated codes that fuse what items are and who uses them.",
)
artifacts_app = typer.Typer(no_args_is_help=True, help="What runs left.")
config_app = typer.Typer(no_args_is_help=True, help="What an experiment is made of.")
app.add_typer(artifacts_app, name="artifacts")
app.add_typer(config_app, name="config")
compare.add_to(app)

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""glibc gives big tensors back to the kernel at every step unless these are set before a process starts."""

_INTERRUPTED = 130


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all logs.")] = False,
) -> None:
    """Recommendations by generated codes."""


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(metavar="NAME_OR_YAML", help="A preset, or a YAML file.")] = "demo",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value; may be given again."),
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option("--force", metavar="STAGE", help="Make this stage anew whatever is cached; may be given again."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write stages and metrics to this file.")
    ] = None,
) -> None:
    """Run an experiment in this process, with no server; what is cached is not made again."""
    from flows.experiments import load
    from prorec_core.artifacts import STAGES, write_json

    chosen = load(experiment, settings or ())
    for stage in force or ():
        if stage not in STAGES:
            raise UserError(f"unknown stage '{stage}'", place="--force", cure=did_you_mean(stage, STAGES))
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError("the folder does not exist", place=f"--json {json_file}", cure="Make it first")
    _keep_memory()
    summary = _run_flow(chosen, frozenset(force or ()))
    if json_file is not None:
        write_json(json_file, summary)
    _show_result(summary)


def _keep_memory() -> None:
    """Start this program again, once, with an allocator that keeps its memory (glibc only)."""
    try:
        glibc = bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError, AttributeError):
        glibc = False
    if glibc and not any(name in os.environ for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR})


def _run_flow(experiment: Experiment, force: frozenset[str]) -> dict[str, Any]:
    from flows.display import make_display
    from flows.embedded import quiet, start_prefect, stop_like_ctrl_c
    from prorec_core.artifacts import STAGES
    from tasks.events import listening

    with make_display(list(STAGES)) as display, listening(display.hear):
        display.say("starting Prefect and MLflow …")
        if not _debugging():
            quiet(display)
        stop_like_ctrl_c()
        ready = start_prefect()
        from flows.full import forcing, prorec
        from tasks.tracking import client

        client()
        ready()
        display.say("")
        with forcing(force):
            return prorec(experiment=experiment)


def _show_result(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from flows.display import result_table
    from flows.embedded import mlflow_page, program
    from tasks import places

    console = Console()
    console.print(result_table(summary["metrics"]))
    command, page = mlflow_page(summary["mlflow"])
    history = shlex.quote(",".join(summary["items"]))
    lines = {
        "report": _short(summary["report"]),
        "artifacts": _short(str(places.store())) if not places.tracks_over_http() else places.tracking_uri(),
        "model": summary["model"],
        "recommend": f"{program('prorec')} recommend --model {summary['model']} --history {history}",
        "MLflow": command,
        "": page,
    }
    for name, text in lines.items():
        if text:
            console.print(f"{name:<10} {text}", highlight=False, markup=False, soft_wrap=True)


def _short(place: str) -> str:
    """A path as seen from here, where that is shorter."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place


@app.command()
def recommend(
    model: Annotated[str, typer.Option(metavar="MODEL_URI", help="For instance models:/prorec-demo/1.")],
    history: Annotated[str, typer.Option(metavar="ITEM,ITEM,…", help="Ids of a user's items, the oldest first.")],
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Items to recommend.")] = 10,
) -> None:
    """Recommend items to someone with this history."""
    from rich.console import Console
    from rich.table import Table

    from flows.embedded import predict

    table = Table("rank", "item", "title", "score")
    for row in predict(model, history, k):
        table.add_row(str(row["rank"]), row["item_id"], row["title"], f"{row['score']:.3f}")
    Console().print(table)


@artifacts_app.command()
def verify() -> None:
    """Check every manifest and file hash in the store; exit status 1 if something is wrong."""
    from tasks.store import verify_all

    looked_at, problems = verify_all()
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{looked_at} artifacts looked at, {len(problems)} problems.")
    if problems:
        raise typer.Exit(1)


@config_app.command()
def show(
    experiment: Annotated[str, typer.Argument(metavar="NAME_OR_YAML", help="A preset, or a YAML file.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value.")
    ] = None,
) -> None:
    """Print an experiment with every value, as YAML."""
    import yaml

    from flows.experiments import load

    values = load(experiment, settings or ()).model_dump(mode="json")
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@config_app.command()
def schema() -> None:
    """Print the JSON schema of an experiment: every field with its range, default and meaning."""
    import json

    from prorec_core.config import Experiment

    typer.echo(json.dumps(Experiment.model_json_schema(), indent=2, ensure_ascii=False))


def _debugging() -> bool:
    return "--debug" in sys.argv[1:]


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2, an interruption status 130."""
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        app(args=arguments, prog_name="prorec")
    except UserError as error:
        if _debugging():
            raise
        print(f"prorec: {error}", file=sys.stderr)
        sys.exit(2)
    except TrackingAwayError as error:
        if _debugging():
            raise
        print(f"prorec: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as error:
        if error.code == _INTERRUPTED:
            print("Stopped. What was finished is kept: the same command goes on from there.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
