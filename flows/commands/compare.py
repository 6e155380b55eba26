"""The command `prorec compare`. Knows options and what is printed; the flow does the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prorec.flows.commands.data import have
from prorec.flows.local.running import expect_output, in_process, prepare_training, write_output
from prorec.flows.terminal.screen import console, plain, say
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.flows.configuration.variants import Variants
    from prorec_core.config import Experiment


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    experiment: Annotated[
        str, typer.Argument(metavar="NAME_OR_YAML", help="A preset, as demo or ml-100k, or a YAML file.")
    ] = "demo",
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="Variants or groups: core, paper, untrained, dense, ablation, codes, again, all. By default core, or "
            "prorec and what is your own: the variants of a file, lists.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="COUNT", help="How many, from 0; or which: 3,7 (one alone: 3,)")] = "1",
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Hold the others against this variant; by default prorec or the first."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value for all; may be given again."),
    ] = None,
    variants_file: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Variants of your own, as in configs/variants/standard.yaml.")
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Lists that another program made, as a variant of this name: a table of split (validation and test), "
            "user_id, item_id, and rank or score; {seed} in FILE: a file a seed. May be given again.",
        ),
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=256, help="Run N side by side, in processes that share the cores or a Ray cluster."
        ),
    ] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the table to this file.")
    ] = None,
) -> None:
    """Compare variants of an experiment: each with the same seeds, measured on the same users."""
    from prorec.flows.configuration.experiments import load
    from prorec.flows.configuration.given import with_lists
    from prorec.flows.configuration.variants import load_variants
    from prorec.flows.local.members import expect_members
    from prorec_core.evaluation.given_table import file_of

    prepare_training()
    chosen, known = load(experiment, settings or ()), load_variants(variants_file)
    known, of_others = with_lists(known, lists or ())
    words = known.by_default() if variants is None else [word.strip() for word in variants.split(",") if word.strip()]
    words += [name for name in of_others if name not in words]
    counted = _seeds(seeds)
    given = [each.partition("=")[0].strip() for each in settings or ()]
    if "seed" in given:
        raise UserError("a comparison has no one seed", place="--set seed", cure="Give --seeds a count, or some seeds")
    plan = known.plan(words, chosen, counted, against)
    expect_members(parallel, chosen)
    files = [str(file_of(each.evaluate, seed)) for (_, seed), each in plan.given().items()]
    expect_output("--json", json_file, experiment, variants_file, chosen.data.path, *files)
    for place, own in plan.overridden(chosen, given).items():
        values = ", ".join(f"{name} {value}" for name, value in own.items())
        say(f"{place}: these variants keep a value of their own: {values}")
    for name, before in plan.repeated(known).items():
        say(f"{name} will have the figures of {before}: what it sets is the same there, or not read by what recommends")
    have(experiment, chosen)
    summary = _run(chosen, words, counted, against, known, parallel)
    _show(summary)
    write_output("--json", json_file, {"table": summary["table"], "failed": summary["failed"]})
    if summary["failed"]:
        raise typer.Exit(1)


def _seeds(text: str) -> int | list[int]:
    """A count, or seeds with commas.

    Raises:
        UserError: it is neither.
    """
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if "," in text and found and min(found) >= 0:
        return found
    if "," not in text and found and found[0] > 0:
        return found[0]
    raise UserError(f"'{text}' is neither a count nor seeds", place="--seeds", cure="Write 3, or 0,4,7")


def _run(
    experiment: Experiment,
    variants: Sequence[str],
    seeds: int | list[int],
    against: str | None,
    known: Variants,
    parallel: int,
) -> dict[str, Any]:
    def call() -> dict[str, Any]:
        from prorec.flows.compare import IncompleteComparisonError, compare

        try:
            return compare(experiment, list(variants), seeds, against, known, parallel)
        except IncompleteComparisonError as error:
            return error.summary

    return in_process([], call)


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    from prorec.flows.local.embedded import mlflow_lines
    from prorec.flows.terminal.display import plain_table
    from prorec_core.evaluation.marks import marked, marks_of
    from prorec_core.metrics import scorers
    from prorec_core.metrics.table import columns, label
    from prorec_core.reports.comparison.page import failure, new_item_rows, spread
    from prorec_core.reports.tables import new_item_line, signed

    screen, found = console(wide=True), summary["table"]
    shown = columns("headline")
    table = Table(title=f"Test, whole catalogue, item level, seeds {', '.join(map(str, found['seeds']))}")
    table.add_column("variant", no_wrap=True)
    table.add_column("scorer")
    for heading in (*map(label, shown), f"NDCG@10 − {found['reference']}", "95% interval"):
        table.add_column(heading, justify="right")
    for name, about in found["variants"].items():
        against = about["against"].get("ndcg_at_10")
        interval = f"{signed(against['low'])} … {signed(against['high'])}" if against else ""
        table.add_row(
            marked(name, about),
            scorers.label(about["scorer"]),
            *(spread(metric, about["test"].get(metric)) for metric in shown),
            signed(against["difference"]) if against else "",
            interval,
        )
    screen.print(table)
    if found["reference"] not in found["variants"]:
        say(f"{found['reference']} was not measured, so nothing is held against it")
    if rows := new_item_rows(found):
        screen.print(plain_table(new_item_line(found["new_items"]), rows, names=2))
    for name, about in found["variants"].items():
        for text in about["remarks"]:
            say(f"{name}: {text}")
    for mark, means in marks_of(found).items():
        say(f"{mark} {means}")
    for each in summary["failed"]:
        screen.print(plain(f"failed: {failure(each)}", "red"), soft_wrap=True)
    for name, text in {"report": summary["report"], **mlflow_lines(summary["mlflow"])}.items():
        if text:
            say(f"{name:<10} {text}")
