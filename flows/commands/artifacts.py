"""`prorec artifacts`: what runs left in the store: list it, show one, check all, delete what nothing keeps."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from prorec.flows.terminal.screen import console, plain, say
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from prorec.tasks.upkeep.retention import Inventory, Stored

KEEP_DAYS = 30.0
_SHORT = 8
_KeepDays = Annotated[float, typer.Option(metavar="N", min=0, help="Runs of the last N days keep their artifacts.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="What runs left.")
    group.command("list")(list_artifacts)
    group.command()(show)
    group.command()(gc)
    group.command()(verify)
    app.add_typer(group, name="artifacts")


def list_artifacts(keep_days: _KeepDays = KEEP_DAYS) -> None:
    """List stored artifacts with size, age and what keeps them."""
    from rich.table import Column, Table

    from prorec.flows.terminal.sizes import age, size
    from prorec.tasks.upkeep.retention import take_inventory

    inventory = take_inventory(keep_days)
    table = Table(
        Column("stage", no_wrap=True),
        "experiment",
        Column("digest", no_wrap=True),
        Column("size", justify="right", no_wrap=True),
        Column("age", justify="right", no_wrap=True),
        Column("kept by", overflow="fold"),
        box=None,
    )
    for each in inventory.stored:
        freed = size(each.bytes) if each.manifest else "?"
        old = age(time.time() - each.ended)
        table.add_row(each.ref.stage, each.experiment, each.ref.digest[:_SHORT], freed, old, _keepers(inventory, each))
    if inventory.stored:
        console().print(table)
    total = sum(each.bytes for each in inventory.stored)
    say(f"{len(inventory.stored)} artifacts, {size(total)}.")


def _keepers(inventory: Inventory, artifact: Stored) -> str:
    found = inventory.kept_by(artifact)
    if not found:
        return "nothing"
    first = found[0]
    if first.startswith(("run ", "running ")):
        word, _, run = first.partition(" ")
        first = f"{word} {run[:8]}"
    return first + (f" and {len(found) - 1} more" if len(found) > 1 else "")


def show(
    what: Annotated[str, typer.Argument(metavar="RUN_OR_DIGEST", help="An MLflow run, or the start of a digest.")],
) -> None:
    """Show an artifact: its files, what it was made of, who uses it. For a run of an experiment, all that it used."""
    from prorec.tasks.upkeep.retention import take_inventory

    inventory = take_inventory(KEEP_DAYS)
    found = _find(what, inventory)
    for artifact in found:
        for part in _described(artifact, inventory, short=len(found) > 1):
            console(soft_wrap=True).print(part)


def _find(what: str, inventory: Inventory) -> list[Stored]:
    from prorec.tasks.registry.models import named_by
    from prorec.tasks.stages.pipeline import STAGES

    tags = next((run.data.tags for run in inventory.runs if run.info.run_id == what), {})
    used = {each.get("run_id") for each in named_by(tags).values()}
    found = [each for each in inventory.stored if each.ref.run_id == what or each.ref.run_id in used]
    if found:
        order = {stage: place for place, stage in enumerate(STAGES)}
        return sorted(found, key=lambda each: order.get(each.ref.stage, len(order)))
    found = [each for each in inventory.stored if len(what) >= 4 and each.ref.digest.startswith(what)]
    if len({each.ref.digest for each in found}) > 1:
        names = ", ".join(f"{each.ref.digest[:_SHORT]} ({each.ref.stage})" for each in found)
        raise UserError("several artifacts start like this", place=what, cure=f"Known: {names}")
    if not found:
        raise UserError("there is no such artifact", place=what, cure="`prorec artifacts list` shows all")
    return found[:1]


def _described(artifact: Stored, inventory: Inventory, *, short: bool) -> Iterable[str | Text | Table]:
    from rich.table import Column, Table

    from prorec.flows.terminal.sizes import age, size
    from prorec.tasks.registry import models
    from prorec.tasks.tracking import store
    from prorec_core.yaml_text import dump

    ref, manifest = artifact.ref, artifact.manifest
    yield plain(ref.stage, "bold") + plain(f" {ref.digest}")

    def uses(tags: Mapping[str, str]) -> bool:
        return any(each.get("digest") == ref.digest for each in models.named_by(tags).values())

    users = [run.info.run_id for run in inventory.runs if uses(run.data.tags)]
    versions = [each.title for each in inventory.versions if uses(each.tags)]
    lines = {
        "experiment": artifact.experiment,
        "made": f"{age(time.time() - artifact.ended)} ago by run {ref.run_id}",
        "at": ref.uri,
        "size": size(artifact.bytes),
        "upstream": ", ".join(f"{name} {digest[:_SHORT]}" for name, digest in manifest.upstream.items())
        if manifest
        else "",
        "used by": ", ".join([*versions, *(f"run {run}" for run in users)]),
        "kept by": ", ".join(inventory.kept_by(artifact)) or "nothing",
        "problems": "; ".join(store.check(ref)),
    }
    if not short and manifest:
        lines |= {
            "commit": manifest.git_commit or "",
            "libraries": ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()),
        }
    for name, text in lines.items():
        if text:
            yield plain(f"{name:<11}{text}")
    if short or not manifest:
        yield ""
        return
    table = Table("file", Column("size", justify="right"), "sha256")
    for entry in manifest.files:
        table.add_row(entry.path, size(entry.bytes), entry.sha256[:_SHORT])
    yield table
    yield dump(manifest.config).rstrip()


def gc(
    keep_days: _KeepDays = KEEP_DAYS,
    keep_versions: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Delete versions of models, too, but for each one's N newest and what is needed; else all stay.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete what neither a registered version nor a recent run needs, and old versions if asked to; runs stay."""
    from prorec.flows.terminal.sizes import size
    from prorec.tasks.local import paths
    from prorec.tasks.upkeep.collection import collect, make_plan
    from prorec.tasks.upkeep.retention import take_inventory

    if paths.nothing_tracked():
        say("Nothing to delete.")
        return
    with paths.try_lock("collection") as free:
        if not free:
            raise UserError("another `prorec artifacts gc` is at work", cure="Wait until it is done")
        plan = make_plan(take_inventory(keep_days, keep_versions), keep_days)
        things = list(plan.everything())
        if not things:
            say("Nothing to delete.")
            return
        if dry_run or not yes:
            for kind, name, count in things:
                say(f"{kind}: {name} ({size(count)})")
        screen = console()
        screen.print(_totals(things))
        if dry_run:
            say("Nothing was deleted (--dry-run).")
            return
        if not yes:
            if not sys.stdin.isatty():
                raise UserError("nothing was deleted: nobody can be asked here", cure="Say --yes, or --dry-run to look")
            typer.confirm("Delete all this?", abort=True)
        with screen.status(plain("deleting …")) as status:
            done = collect(plan, lambda name: status.update(plain(f"deleting {name}")))
    say(f"{done.count} deleted, {size(done.bytes)} freed." + f" {done.spared} came into use." * bool(done.spared))
    for failure in done.failures:
        say(f"not deleted: {failure}", error=True)
    if done.failures:
        raise typer.Exit(1)


def _totals(things: list[tuple[str, str, int]]) -> Table:
    from rich.table import Column, Table

    from prorec.flows.terminal.sizes import size

    table = Table("what", Column("number", justify="right"), Column("size", justify="right"), show_footer=False)
    for kind in dict.fromkeys(kind for kind, _, _ in things):
        sizes = [count for each, _, count in things if each == kind]
        table.add_row(kind, str(len(sizes)), size(sum(sizes)))
    table.add_section()
    table.add_row("all", str(len(things)), size(sum(count for _, _, count in things)))
    return table


def verify() -> None:
    """Check every manifest and file hash in the store; exit status 1 if something is wrong."""
    from prorec.tasks.tracking.store import verify_all

    looked_at, problems = verify_all()
    for problem in problems:
        say(problem)
    say(f"{looked_at} artifacts looked at, {len(problems)} problems.")
    if problems:
        say("The next run makes damaged artifacts anew; a damaged model: with --force train_generator. Else: a backup.")
        raise typer.Exit(1)
