"""Batch recommendations as a Prefect flow: one task, and what it wrote shown in Prefect. Knows no model's inside."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from tasks.recommend import BatchRequest
from tasks.recommend import recommend as write
from tasks.stopping import end_when_asked, stops_kept
from tasks.tidy import tidy_first


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
                f"{summary['users']:,} users, {summary['rows']:,} rows: `{summary['output']}`",
                "",
                f"sha256 `{summary['sha256']}`, MLflow run {linked}",
            ]
        ),
        description=f"Recommendations of {summary['model']}",
    )
    return summary
