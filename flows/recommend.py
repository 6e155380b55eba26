"""Batch recommendations as a Prefect flow: one task, and what it wrote shown in Prefect. Knows no model's inside."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from prorec.tasks.local.stopping import end_when_asked, stops_kept
from prorec.tasks.registry.recommend import BatchRequest, short_lists_note
from prorec.tasks.registry.recommend import recommend as write
from prorec.tasks.upkeep.tidy import tidy_first
from prorec_core.visible import code_in_markdown


@flow(
    name="recommend",
    description="The best items of every user, written to a Parquet file.",
    flow_run_name="recommend · {request.model}",
)
def recommend(request: BatchRequest = BatchRequest()) -> dict[str, Any]:  # noqa: B008 Prefect shows the default
    """Write recommendations for all users of a data set or of a file; returns what the task does.

    Raises:
        UserError: a mistake that the user can put right.
    """
    end_when_asked()
    get_run_logger().info("Left by processes that died: %s", tidy_first())
    with stops_kept():
        summary = write(request)
    run = summary["mlflow"]
    linked = f"[{run['run_id']}]({run['page']})" if run["page"] else f"`{run['run_id']}`"
    create_markdown_artifact(
        key="recommendations",
        markdown="\n".join(
            [
                f"# Recommendations of {summary['model']}",
                "",
                f"{summary['users']:,} users, {summary['rows']:,} rows: {code_in_markdown(summary['output'])}",
                *([note, ""] if (note := short_lists_note(summary)) else []),
                f"sha256 `{summary['sha256']}`, MLflow run {linked}",
            ]
        ),
        description=f"Recommendations of {summary['model']}",
    )
    return summary
