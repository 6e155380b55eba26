"""The command `prorec tune`. Knows options and what is printed; the flow does the work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prorec.flows.commands.data import have
from prorec.flows.local.running import expect_output, in_process, prepare_training, write_output
from prorec.flows.terminal.screen import console, say

if TYPE_CHECKING:
    from prorec.flows.configuration.spaces import Plan

_SHOWN = 10


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


def tune(
    experiment: Annotated[
        str, typer.Argument(metavar="NAME_OR_YAML", help="A preset, as demo or ml-100k, or a YAML file.")
    ] = "demo",
    trials: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="Trials in all, those of earlier runs included.")
    ] = 20,
    space: Annotated[
        str,
        typer.Option(
            metavar="NAME,…|FILE", help="What is tuned: align, collaborative, codes, generator, graph; or a YAML file."
        ),
    ] = "align",
    stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Whose validation NDCG@10 counts; by default the earliest that all change."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The study to begin or to go on with; by default EXPERIMENT-SPACE."),
    ] = None,
    prune: Annotated[bool, typer.Option(help="End trials early that stay behind the median of the others.")] = True,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value for all; may be given again."),
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=256, help="Run N side by side, in processes that share the cores or a Ray cluster."
        ),
    ] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write trials and best values to this file.")
    ] = None,
) -> None:
    """Tune an experiment, on validation users; the same command goes on with what was stopped."""
    from prorec.flows.configuration.experiments import load
    from prorec.flows.configuration.spaces import load_space, plan
    from prorec.flows.local.members import expect_members
    from prorec_core.stages.ahead import expect_no_lists

    prepare_training()
    planned = plan(load_space(space), load(experiment, settings or ()), stage)
    expect_no_lists(planned.base)
    expect_members(parallel, planned.base)
    expect_output("--json", json_file, experiment, space, planned.base.data.path)
    have(experiment, planned.base)
    name = _study(planned, study)
    summary = _run(planned, trials, name, prune, parallel)
    _show(summary)
    write_output("--json", json_file, {name: value for name, value in summary.items() if name != "mlflow"})


def _study(planned: Plan, name: str | None) -> str:
    """The study's name, where no other study of that name is in the way, as far as the experiment alone tells."""
    from prorec.tasks.stages.preprocess import source_digest
    from prorec.tasks.tuning.study import expect_same, path
    from prorec_core.fitting import open_fields

    chosen = name or planned.study
    if path(chosen).exists() and not open_fields(planned.base):
        expect_same(chosen, planned.settings(source_digest(planned.base.data)))
    return chosen


def _run(planned: Plan, trials: int, study: str, prune: bool, parallel: int) -> dict[str, Any]:
    def call() -> dict[str, Any]:
        from prorec.flows.tune import tune

        return tune(planned.base, planned.space, trials, planned.stage, study, prune, parallel)

    return in_process([*planned.shared, *planned.varied], call)


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    from prorec.flows.local.embedded import mlflow_lines
    from prorec_core.reports.tuning import ranked

    best = summary["best"]
    table = Table(title=f"{summary['study']}: NDCG@10 of {summary['stage']} on validation users, best epoch")
    for heading in ("trial", "NDCG@10", "epochs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("values", overflow="fold")
    for each in ranked(summary["trials"])[:_SHOWN]:
        value = "failed" if each["value"] is None else f"{each['value']:.4f}"
        values = "  ".join(f"{field} {value}" for field, value in each["values"].items())
        pruned = " pruned" if each["state"] == "pruned" else ""
        table.add_row(str(each["trial"]), value, f"{each['epochs']}{pruned}", values)
    console(wide=True).print(table)
    states = [each["state"] for each in summary["trials"]]
    counts = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states]
    start = next((each for each in summary["trials"] if each["values"] == summary["as_it_stands"]), None)
    against = ""
    if start is not None and start["value"] is not None and start["trial"] != best["trial"]:
        against = f"; as it stands the experiment reaches {start['value']:.4f}"
    lines = {
        "trials": ", ".join(counts),
        "best": f"trial {best['trial']}, {best['value']:.4f}{against}",
        "set": " ".join(f"--set {each}" for each in summary["set"]),
        **mlflow_lines(summary["mlflow"]),
    }
    for name, text in lines.items():
        if text:
            say(f"{name:<10} {text}")
    say(f"\n{summary['yaml']}".rstrip("\n"), lines=True)
