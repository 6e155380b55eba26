"""What a run's page says, as Markdown: what was read and written, how it went, where else to look.

Knows Markdown and MLflow's addresses; knows nothing of what stages do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prorec.tasks.execution.events import StageEnded
from prorec.tasks.execution.prefect_run import PrefectRun
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import ARTIFACT_FOLDER
from prorec_core.artifacts import ArtifactRef, Manifest
from prorec_core.progress import duration

Link = Callable[[str, str, str], str]
"""Text, id of an MLflow run, and a file of its artifact or nothing, to a link in Markdown."""

_FILES_SHOWN = 40


def inner(text: str, run_id: str, file: str = "") -> str:
    """A link from one page of MLflow to another, whichever server shows them."""
    return f"[{text}]({mlflow_runs.path_of_page(mlflow_runs.experiment_of(run_id), run_id, _below(file))})"


def outer(text: str, run_id: str, file: str = "") -> str:
    """A link from elsewhere to a page of MLflow; the id alone where nothing shows pages."""
    page = mlflow_runs.page(mlflow_runs.experiment_of(run_id), run_id, _below(file))
    return f"[{text}]({page})" if page else f"{text} `{run_id}`"


def _below(file: str) -> str:
    return f"{ARTIFACT_FOLDER}/{file}" if file else ""


def stage_page(
    head: str,
    reads: Mapping[str, ArtifactRef],
    parent: str,
    place: PrefectRun,
    written: tuple[str, Manifest] | None = None,
) -> str:
    """The page of a stage's MLflow run.

    Args:
        head: how it goes.
        reads: the artifacts that it reads, by stage.
        parent: the MLflow run of the whole experiment.
        place: its run in Prefect.
        written: once it is stored, the stage's own MLflow run and the artifact's manifest.
    """
    # MLflow shows the first lines and hides the rest until asked.
    lines = [head, "", f"- Part of {inner('the whole run', parent)}", f"- {place.link}"]
    if written:
        lines.append(f"- Digest: `{written[1].digest}`")
    if reads:
        lines += ["", "| reads | digest | run |", "| --- | --- | --- |"]
        lines += [
            f"| {name} | `{ref.digest[:12]}` | {inner(ref.run_id[:8], ref.run_id)} |" for name, ref in reads.items()
        ]
    if written:
        run_id, manifest = written
        lines += ["", "| wrote | size |", "| --- | ---: |"]
        lines += [
            f"| {inner(entry.path, run_id, entry.path)} | {_size(entry.bytes)} |"
            for entry in manifest.files[:_FILES_SHOWN]
        ]
        if (more := len(manifest.files) - _FILES_SHOWN) > 0:
            lines.append(f"| and {more} more | |")
    return "\n".join(lines)


def experiment_page(
    head: str, ended: Iterable[StageEnded], place: PrefectRun, link: Link, run_id: str, table: str = ""
) -> str:
    """The page of a whole run: for its MLflow run with `inner` links, for Prefect with `outer` ones.

    Args:
        head: how it goes.
        ended: the stages whose artifacts are there.
        place: its run in Prefect.
        link: makes links.
        run_id: its MLflow run.
        table: the result as a Markdown table.
    """
    events = list(ended)
    lines = [head, "", f"- {place.link}"]
    if link is not inner:
        lines.append(f"- MLflow: {link('the whole run', run_id, '')}")
    if report := next((event.ref for event in events if event.ref.stage == "report"), None):
        lines.append(f"- {link('Report with plots', report.run_id, 'report.html')}")
    if events:
        lines += ["", "| stage | time | MLflow run | digest |", "| --- | --- | --- | --- |"]
    for event in events:
        took = "cached" if event.cached else duration(event.seconds)
        shown = link(event.ref.run_id[:8], event.ref.run_id, "")
        lines.append(f"| {event.ref.stage} | {took} | {shown} | `{event.ref.digest[:12]}` |")
    return "\n".join([*lines, "", table.strip()])


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
