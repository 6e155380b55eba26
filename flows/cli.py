"""The command line `prorec`. Knows commands and how mistakes are told; what takes long to import waits for its use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from prorec.flows.access.proxies import stay_direct
from prorec.flows.commands import (
    artifacts,
    compare,
    data,
    export,
    items,
    models,
    recommend_all,
    rerun,
    rules,
    serve,
    stack,
    tidy,
    tune,
)
from prorec.flows.local.running import (
    debugging,
    expect_output,
    expect_stages,
    prepare_training,
    run_flow,
    show_result,
    write_output,
)
from prorec.flows.stack.state import connect
from prorec.flows.terminal import streams
from prorec.flows.terminal.screen import console, say
from prorec_core.errors import SeveralMistakesError, UserError
from prorec_core.visible import visible

if TYPE_CHECKING:
    from prorec_core.config import Experiment

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="PRORec: recommendations by generated codes that fuse what items are and who uses them.",
)
config_app = typer.Typer(no_args_is_help=True, help="What an experiment is made of.")
app.add_typer(config_app, name="config")
for topic in (data, compare, tune, stack, rerun, tidy, models, items, export, serve, rules, recommend_all, artifacts):
    topic.add_to(app)

_INTERRUPTED = 130


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all logs.")] = False,
) -> None:
    """Recommendations by generated codes."""


@app.command()
def run(
    experiment: Annotated[
        str, typer.Argument(metavar="NAME_OR_YAML", help="A preset, as demo or ml-100k, or a YAML file.")
    ] = "demo",
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
    """Run an experiment in this process; what is cached is not made again."""
    from prorec.flows.configuration.experiments import load
    from prorec_core.stages.ahead import expect_no_lists

    prepare_training()
    chosen = load(experiment, settings or ())
    expect_no_lists(chosen)
    expect_stages("--force", force or ())
    expect_output("--json", json_file, experiment, chosen.data.path)
    data.have(experiment, chosen)
    summary = run_flow(chosen, frozenset(force or ()))
    show_result(summary)
    write_output("--json", json_file, summary)


@app.command()
def recommend(
    model: Annotated[str, typer.Option(metavar="MODEL_URI", help="For instance models:/prorec-demo/1.")],
    history: Annotated[str, typer.Option(metavar="ITEM,ITEM,…", help="Ids of a user's items, the oldest first.")],
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Items to recommend.")] = 10,
    only: rules.Only = None,
    only_list: rules.OnlyList = None,
    where: rules.Where = None,
    exclude: rules.Exclude = None,
    exclude_list: rules.ExcludeList = None,
    exclude_where: rules.ExcludeWhere = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also say why each item is there.")] = False,
) -> None:
    """Recommend items to someone with this history."""
    from rich.table import Table

    from prorec.flows.local.embedded import predict

    rule = {
        "only": rules.choice("only", only, only_list, where),
        "exclude": rules.choice("exclude", exclude, exclude_list, exclude_where),
    }
    found = predict(model, history, k, rule, explained=explain)
    table = Table("rank", "item", "title", "score")
    for row in found:
        table.add_row(str(row["rank"]), visible(row["item_id"]), visible(row["title"]), f"{row['score']:.3f}")
    if found:
        console().print(table)
    for row in found if explain else ():
        say(f"{row['rank']}. {visible(row['title'])}")
        for line in row["why"]:
            say(f"   {visible(line)}")
    if len(found) < k:
        say(_few(len(found), k, "what may be recommended" if any(rule.values()) else "the catalogue"), error=True)


def _few(found: int, k: int, of: str) -> str:
    """Why there are fewer items than asked for."""
    if not found:
        whole = of.replace("the catalogue", "the whole catalogue").replace("what", "all that")
        return f"Nothing is left to recommend: the history holds {whole}."
    return f"{found:,} of {k:,} items: {of} has no more that the history lacks."


@config_app.command()
def show(
    experiment: Annotated[
        str, typer.Argument(metavar="NAME_OR_YAML", help="A preset, as demo or ml-100k, or a YAML file.")
    ] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value.")
    ] = None,
    of_data: Annotated[
        bool, typer.Option("--data", help="Read the data, and put numbers where 'auto' leaves them to these.")
    ] = False,
) -> None:
    """Print an experiment with every value, as YAML."""
    from prorec.flows.configuration.experiments import load
    from prorec_core.yaml_text import dump

    chosen = load(experiment, settings or ())
    if of_data:
        data.have(experiment, chosen)
        chosen = _of_its_data(chosen)
    values = chosen.model_dump(mode="json")
    say(dump(values).rstrip("\n"), lines=True)


def _of_its_data(experiment: Experiment) -> Experiment:
    """The experiment as its data have it, told in a comment before it."""
    from prorec.tasks.stages.fitting import fitted_to
    from prorec.tasks.stages.preprocess import located
    from prorec_core import fitting
    from prorec_core.data.stage import preprocess

    if not fitting.open_fields(experiment):
        say("# It leaves nothing to its data.")
        return experiment
    profile = preprocess(located(experiment.data)).profile
    found = fitted_to(experiment, profile)
    for text in (fitting.told(experiment, found, fitting.Size.of(profile)), *profile["warnings"]):
        say(f"# {text}")
    return found


@config_app.command()
def schema() -> None:
    """Print the JSON schema of an experiment: every field with its range, default and meaning."""
    import json

    from prorec_core.config import Experiment

    say(json.dumps(Experiment.model_json_schema(), indent=2, ensure_ascii=False), lines=True)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2, an interruption status 130."""
    streams.set_up()
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    stay_direct()
    try:
        if not set(arguments[:1]) & set(stack.COMMANDS):
            connect()
        app(args=arguments, prog_name="prorec")
    except SystemExit as error:
        if error.code == _INTERRUPTED:
            streams.print_error("Stopped. What was finished is kept: the same command goes on from there.")
        if problem := streams.output_lost():
            _end(UserError(problem, cure="Look at where it leads, and at the room there"))
        raise
    except Exception as error:
        if debugging():
            raise
        if problem := streams.output_lost():
            _end(UserError(problem, cure="Look at where it leads, and at the room there"))
        _end(error)


def _end(error: Exception) -> NoReturn:
    """Tell an error in one line and end, but for one of the program's own: that keeps its traceback."""
    from prorec.tasks.local.machine_errors import explained
    from prorec.tasks.tracking.retries import TrackingAwayError

    away = isinstance(error, TrackingAwayError)
    told = error if away else explained(error) or error
    if not away and not isinstance(told, UserError):
        raise told
    text = str(told) if isinstance(told, SeveralMistakesError) else " ".join(str(told).splitlines())
    streams.print_error(f"prorec: {visible(text, lines=True)}")
    sys.exit(1 if away else 2)


if __name__ == "__main__":
    main()
