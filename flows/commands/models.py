"""`prorec models` and `prorec promote`: registered versions, and which of them is the champion."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from prorec.flows.terminal.screen import console, say
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from prorec.tasks.registry.promotion import Judgement


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("models")(list_models)
    app.command()(promote)


def list_models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model, for instance prorec-demo.")] = None,
) -> None:
    """List registered versions with their test metrics, aliases and age."""
    from rich.table import Column, Table

    from prorec.flows.terminal.sizes import age
    from prorec.tasks.registry import models
    from prorec_core.metrics.table import columns, figure, label

    found = models.versions(name)
    if name and not found:
        raise UserError(f"there is no model '{name}'", cure=models.known_versions(name))
    if not found:
        say("There is no model yet.")
        return
    table = Table(
        Column("version", no_wrap=True),
        "alias",
        "seed",
        "scorer",
        *(label(metric) for metric in columns("headline")),
        "age",
    )
    for version in found:
        tags = version.tags
        table.add_row(
            version.title,
            ", ".join(version.aliases),
            tags.get(models.SEED_TAG, ""),
            tags.get(models.SCORER_TAG, "not evaluated")
            + ", validation trained on" * (models.VALIDATION_TAG in tags)
            + (f", of {tags[of]}" if (of := models.EVALUATION_OF_TAG) in tags else ""),
            *(
                figure(metric, float(tags[key])) if (key := f"test.{metric}") in tags else ""
                for metric in columns("headline")
            ),
            age(time.time() - version.created),
        )
    console(wide=True).print(table)


def promote(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN|VERSION", help="A run in MLflow or Prefect, or a version such as prorec-demo/3."),
    ],
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if it is worse or cannot be compared.")] = False,
) -> None:
    """Make a version the champion, unless it is worse than the present one beyond chance."""
    promote_over(what, anyway=anyway)


def promote_over(what: str, *, anyway: bool = False, over: str | None = None) -> None:
    """Promote and tell; `over` as `promotion.judge` has it."""
    from prorec.tasks.local import paths
    from prorec.tasks.registry import models, promotion
    from prorec.tasks.registry.recommenders import CHAMPION

    if paths.nothing_tracked():
        raise UserError("there is no model yet", place=what, cure="Run `prorec run demo` first")
    with paths.lock("promotion"):
        judged = promotion.judge(what, say, over=over)
        version = judged.challenger.version
        console().print(_table(judged))
        for each in (judged.challenger.version, judged.holder):
            if each is not None and (of := each.tags.get(models.EVALUATION_OF_TAG)):
                say(f"{each.title} was made without training and carries the evaluation of {of}.")
        if judged.already:
            say(f"{version.title} is the champion already.")
            return
        promotion.promote(judged, anyway=anyway)
    after = f" after {judged.holder.title}" if judged.holder else ""
    say(f"{version.title} is the champion{after}: models:/{version.name}@{CHAMPION}")
    if judged.objection:
        say(f"Although {judged.objection}.")


def _table(judged: Judgement) -> Table:
    from rich.table import Table

    from prorec_core.metrics.table import columns, figure, label

    beside = [judged.champion] if judged.champion and not judged.already else []
    table = Table(title=f"Test, {judged.challenger.test_users:,} users")
    table.add_column("metric")
    for measured in [*beside, judged.challenger]:
        table.add_column(f"{measured.version.title}\n{measured.scorer}", justify="right", no_wrap=True)
    if judged.differences:
        table.add_column("difference\n95% interval", no_wrap=True)
    for metric in columns("terminal"):
        values = [measured.test.get(metric) for measured in [*beside, judged.challenger]]
        cells = [figure(metric, value) if value is not None else "" for value in values]
        if found := judged.differences.get(metric):
            cells.append(f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})")
        table.add_row(label(metric), *cells)
    return table
