"""New and withdrawn items as a Prefect flow: what lies in a folder goes into the model that serves.

Knows folders and times of files; knows nothing of how a version is made.
"""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from prorec.tasks.execution.events import Event, Notice, emit, listening
from prorec.tasks.execution.prefect_run import failed
from prorec.tasks.local import paths
from prorec.tasks.local.stopping import end_when_asked, stops_kept
from prorec.tasks.registry import promotion
from prorec.tasks.registry.changes import Change
from prorec.tasks.registry.items import How, Outcome, update
from prorec.tasks.upkeep.tidy import tidy_first
from prorec_core.data.formats import READERS, ends_in
from prorec_core.data.id_lists import LINES
from prorec_core.data.opening import format_of
from prorec_core.data.tables import reading
from prorec_core.errors import UserError, one_line
from prorec_core.paths import path_of
from prorec_core.sections import Place, Section
from prorec_core.visible import visible

FOLDERS: dict[str, Literal["add", "remove"]] = {"add": "add", "remove": "remove"}
"""Folders in the folder that is watched, and what files in them are for."""
_AHEAD = 60.0
"""Seconds by which clocks of machines may differ."""
_LATEST = 253_402_300_799.0
"""The end of the year 9999."""


class UpdateRequest(Section):
    """Which model follows which folder."""

    model: Place = Field("models:/prorec-demo@champion", description="models:/NAME@ALIAS or models:/NAME/VERSION.")
    folder: Place | None = Field(
        None,
        description="Holds the folders add (items files) and remove (.txt with an id a line, or tables); by default "
        "items in the folder of artifacts.",
    )
    promote: bool = Field(True, description="Make the new version the champion, as prorec promote does.")
    quiet_seconds: int = Field(
        60, ge=0, le=86_400, description="Files that were written later than so long ago are left for the next time."
    )
    encoder: Place | None = Field(None, description="Where the model's text encoder is, if elsewhere by now.")
    bonus: float = Field(0.0, ge=0, le=20, description="Added to the score of each new item, in nats.")


@flow(
    name="items",
    description="New and withdrawn items from a folder, into the model that serves, without training.",
    flow_run_name="items · {request.model}",
)
def items(request: UpdateRequest = UpdateRequest()) -> dict[str, Any]:  # noqa: B008 Prefect shows the default
    """Make the next version of a model with what lies in a folder, and promote it.

    Files stay where they are. A version knows by digest with which files it was made: what is in already is passed
    over, and after a training that knows nothing of it, it is done again. In the order of the files' times.

    Returns:
        `model` (URI of the version), `added`, `withdrawn`, `back`, `refused` (files, with reasons) and `promoted`.

    Raises:
        UserError: a mistake that the user can put right; files that cannot be used are told once all others are in.
    """
    end_when_asked()
    log = get_run_logger()
    log.info("Left by processes that died: %s", tidy_first())
    folder = paths.artifacts() / "items" if request.folder is None else path_of(request.folder)

    def tell(event: Event) -> None:
        if isinstance(event, Notice):
            log.warning("%s", event.text)

    with stops_kept(), listening(tell):
        changes, unread = waiting(folder, request.quiet_seconds)
        outcome = update(request.model, changes, How(strict=False, encoder=request.encoder, bonus=request.bonus))
        promoted = request.promote and outcome.changed and _promoted(outcome, outcome.over(request.model))
    refused = [*unread, *outcome.refused]
    summary = {
        "model": outcome.uri,
        "added": outcome.added,
        "withdrawn": outcome.withdrawn,
        "back": outcome.back,
        "refused": refused,
        "promoted": promoted,
    }
    if refused:
        more = f" (and {len(refused) - 1} more files)" if len(refused) > 1 else ""
        error = UserError(f"{refused[0].rstrip('.')}{more}")
        result: dict[str, Any] = failed(error, one_line(error))
        return result
    return summary


def waiting(folder: Path, quiet_seconds: float) -> tuple[list[Change], list[str]]:
    """The files in a folder that is watched, in the order of their times; not those that may still be written.

    Returns:
        The changes, and why others cannot be used, a line each. What is of no kind that is read is told.

    Raises:
        UserError: there is no such folder, it holds neither of the two, or it cannot be looked into.
    """
    with reading(str(folder)):
        there = folder.is_dir() and any((folder / name).is_dir() for name in FOLDERS)
    if not there:
        problem = f"there is no such folder, or none with {' and '.join(FOLDERS)} in it"
        raise UserError(problem, place=str(folder), cure="Make it, with the folders add and remove")
    found, changes, refused, others = [], [], [], []
    for name, kind in FOLDERS.items():
        with reading(str(folder / name)):
            for path in list((folder / name).iterdir()) if (folder / name).is_dir() else ():
                reads = format_of(path) in READERS or (kind == "remove" and path.suffix.lower() in LINES)
                # One may be taken away, or get its right name, at any time.
                with suppress(FileNotFoundError):
                    state, now = path.stat(), time.time()
                    if path.name.startswith("."):
                        continue
                    if not reads or not stat.S_ISREG(state.st_mode):
                        others.append(f"{name}/{path.name}")
                    elif state.st_mtime > now + _AHEAD:
                        refused.append(
                            f"{visible(str(path))}: it was written at a time to come ({_day(state.st_mtime)}), so what "
                            "it comes after is not known. Write it again (`touch`), by a clock that is right."
                        )
                    elif now - state.st_mtime >= quiet_seconds:
                        found.append((state.st_mtime, path.name, kind, path))
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        first = visible(f"{folder}: {min(others)}")
        emit(Notice(f"{first}{more} not taken: a file {ends_in(READERS)}, in remove .txt too"))
    for _, _, kind, path in sorted(found):
        try:
            changes.append(Change.of(kind, path))
        except UserError as error:
            if path.exists():
                refused.append(str(error))
    return changes, refused


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(min(seconds, _LATEST), UTC).isoformat(sep=" ", timespec="seconds")


def _promoted(outcome: Outcome, over: str | None) -> bool:
    """Make a version the champion in place of this one, unless it is already; whether it became so now.

    Raises:
        UserError: something speaks against it.
    """
    with paths.lock("promotion"):
        judged = promotion.judge(outcome.uri.removeprefix("models:/"), over=over)
        if judged.already:
            return False
        promotion.promote(judged, anyway=False)
    return True
