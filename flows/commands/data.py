"""`prorec data`: what a file or folder holds and which experiment it could be; public data sets by name.

Knows what is shown and in which words; the looking and the fetching are elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prorec.flows.terminal.screen import console, plain, say
from prorec.flows.terminal.transfers import transfers
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.flows.datasets.declared import DataSet
    from prorec_core.config import Experiment
    from prorec_core.data.peek.look import Seen, TableSeen

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A data set, as `prorec data list` names them.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Data: your own, and public data sets by name.")
    group.command()(peek)
    group.command("list")(list_data_sets)
    group.command()(show)
    group.command()(fetch)
    group.command()(split)
    app.add_typer(group, name="data")


def peek(
    path: Annotated[str, typer.Argument(metavar="FILE|FOLDER", help="What is to be looked at.")],
) -> None:
    """Tell what data look like, what each filter would take, and the experiment as YAML; its guesses are guesses."""
    from prorec_core.data.peek.look import look

    seen = look(path)
    screen = console(wide=True)
    screen.print(plain(f"{seen.place}: {seen.layout}", "bold"))
    for table in seen.tables:
        screen.print(_columns(table))
    for note in seen.notes:
        say(f"- {note}")
    if seen.profile:
        screen.print(_filters(seen.profile))
    if seen.problem:
        say(f"It would stop here: {seen.problem}")
    if seen.values:
        say(
            f"The experiment, as far as it can be guessed; keep it as {seen.values['name']}.yaml, check it, and run it:"
        )
        say("")
        say(_yaml(seen), lines=True)


def list_data_sets(
    word: Annotated[str, typer.Argument(metavar="WORD", help="Only those whose name or title has this word.")] = "",
) -> None:
    """List the public data sets that are known by name, and say which are here."""
    from prorec.flows.datasets import kept
    from prorec.flows.datasets.declared import data_sets

    families: dict[str, list[DataSet]] = {}
    for each in data_sets().values():
        if word.lower() in f"{each.name} {each.title}".lower():
            families.setdefault(each.family, []).append(each)
    if not families:
        raise UserError(f"no data set has '{word}' in its name or title", cure="prorec data list names all of them")
    screen = console(wide=True)
    for family, sets in families.items():
        screen.print(plain(family, "bold"))
        names = [f"{each.name}{' (here)' if kept.is_whole(each) else ''}" for each in sets]
        screen.print(plain(f"  {', '.join(names)}"))
    say(f"prorec data show NAME tells more, prorec data fetch NAME fetches one into {kept.root()}.")


def show(name: _Name) -> None:
    """Tell where a data set is from, what its licence forbids, whom to cite, and how it is read."""
    from prorec.flows.datasets import kept
    from prorec.flows.datasets.declared import find
    from prorec_core.yaml_text import dump

    dataset = find(name)
    say(f"{dataset.name}: {dataset.title}")
    say(f"page:     {dataset.page}")
    say(f"licence:  {dataset.licence.name} ({dataset.licence.url})")
    if dataset.licence.forbids:
        say(f"forbids:  {dataset.licence.forbids}")
    if dataset.licence.accept:
        say(f"accepted: {'yes' if kept.accepted(dataset.licence) else 'not yet (--accept-licence)'}")
    say(f"cite:     {dataset.citation}")
    for file in dataset.files:
        checksum = file.checksum()
        told = f", {checksum[0]} {checksum[1]}" if checksum else ", its sha256 is noted when it first comes"
        say(f"file:     {file.name}{told if file.addresses else ''}")
        for address in file.addresses:
            say(f"          {address} (untried)")
    if dataset.by_hand:
        say(f"by hand:  {dataset.by_hand}")
    if dataset.note:
        say(f"note:     {dataset.note}")
    say(f"here:     {kept.folder_of(dataset) if kept.is_whole(dataset) else 'no'}")
    say(f"run:      prorec run {dataset.name}")
    say(dump({"data": dataset.data}).rstrip("\n"), lines=True)


def fetch(
    name: _Name,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Say that its licence was read and is accepted; this is kept.")
    ] = False,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="A folder in which its files already are.")
    ] = None,
) -> None:
    """Fetch a data set, or take over what was fetched by hand; a download that was begun is gone on with."""
    from prorec.flows.datasets import kept
    from prorec.flows.datasets.declared import find
    from prorec.flows.datasets.fetching import fetch as run

    dataset = find(name)
    if from_ is not None and not from_.is_dir():
        raise UserError("there is no such folder", place=f"--from {from_}", cure="Name the folder with the files")
    if accept_licence:
        kept.accept(dataset.licence)
    with transfers() as report_of:
        folder = run(dataset, say, report_of, from_)
    say(f"{name} is in {folder}. Run it with: prorec run {name}")


def split(
    experiment: Annotated[
        str, typer.Argument(metavar="NAME_OR_YAML", help="A preset, as demo or ml-100k, or a YAML file.")
    ],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Not there yet, or empty.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value.")
    ] = None,
) -> None:
    """Write what an experiment trains on and asks for as tables, for another program to train on and be compared."""
    from prorec.flows.configuration.experiments import load
    from prorec.tasks.stages.preprocess import located
    from prorec_core.artifacts import expect_empty, new_folder, write_parquet
    from prorec_core.data import split_table
    from prorec_core.data.stage import preprocess
    from prorec_core.stages.inputs import held_back

    expect_empty(output)
    chosen = load(experiment, settings or ())
    if chosen.start_from is not None:
        raise UserError(
            "what a model has seen is left out of its targets only where one goes on from it",
            place="start_from",
            cure="Leave it out: the tables are those of a training that begins anew",
        )
    have(experiment, chosen)
    dataset = held_back(preprocess(located(chosen.data)), chosen)
    for text in dataset.profile["warnings"]:
        say(f"- {text}")
    rows, catalogue = split_table.interactions(dataset), split_table.items(dataset)
    with new_folder(output) as beside:
        write_parquet(beside / "interactions.parquet", rows.to_arrow())
        write_parquet(beside / "items.parquet", catalogue.to_arrow())
    asked = rows.filter("target")
    for name in ("train", "history", "validation", "test"):
        if count := rows.filter(split=name).height:
            targets = asked.filter(split=name).height
            say(f"{name:<10} {count:,} interactions{f', {targets:,} of them asked for' if targets else ''}")
    if chosen.data.new_items:
        say("What is held out with new items (data.new_items) is not there: lists are not measured on it.")
    say(f"{output} has them and {catalogue.height:,} items. Lists made of them: prorec compare … --lists NAME=FILE")


def have(name: str, experiment: Experiment) -> None:
    """Fetch the public data set that an experiment of its name reads, where that may be done without asking.

    Raises:
        UserError: it must be asked for; says how.
    """
    from prorec.flows.datasets import presets

    with transfers() as report_of:
        presets.have(name, experiment, say, report_of)


def _columns(table: TableSeen) -> Any:
    from rich.table import Table

    guess = f", {table.guess} (a guess)" if table.guess else ""
    title = f"{table.name}: {table.rows:,} rows{guess}"
    found = Table("column", "type", "for instance", "taken for (a guess)", title=title, title_justify="left")
    for column in table.columns:
        found.add_row(column.name, column.type, column.example, column.guess)
    return found


def _filters(profile: dict[str, Any]) -> Any:
    from rich.table import Table

    kinds = ("users", "items", "interactions")
    found = Table("filter", *kinds, title="What each filter would leave", title_justify="left")
    steps = profile["filters"]
    after = [(f"{step['filter']} ({step['setting']})", step["after"]) for step in steps]
    for name, counts in [("all", steps[0]["before"]), *after]:
        found.add_row(name, *(f"{counts[each]:,}" for each in kinds))
    return found


def _yaml(seen: Seen) -> str:
    from prorec_core.yaml_text import dump

    return dump(seen.values).rstrip("\n")
