"""Which fields of a configuration came to be, or were named anew, from each version of what is stored to the next.

Knows names and what was done before them; knows nothing of what they mean.
"""

from __future__ import annotations

from prorec_core.sections import Added, Change

_TO_THE_SECOND: tuple[Change, ...] = (
    Added("steps", "eager"),
    Added("start_from", None),
    Added("continuing", {}),
    Added("continuing.epochs_share", 0.3),
    Added("continuing.rate_share", 0.5),
    Added("continuing.codes", "keep"),
    Added("data.attribute_columns", []),
    Added("data.attribute_kinds", []),
    Added("text.backend", "torch"),
    Added("text.vectors", []),
    Added("data.demo.repeats", 0.0),
    Added("data.split", "leave_one_out"),
    Added("data.validation_from", None),
    Added("data.test_from", None),
    Added("data.validation_share", 0.1),
    Added("data.test_share", 0.1),
    Added("data.targets", "all"),
    Added("data.negative_times", "error"),
    Added("data.repeated_items", "error"),
    Added("data.items_without_id", "error"),
    Added("data.expected", {}),
    Added("data.expected.users", 0),
    Added("data.expected.items", 0),
    Added("data.expected.interactions", 0),
    Added("data.expected.source", ""),
    Added("data.sql", {}),
    Added("data.sql.connection", "PROREC_SQL"),
    Added("data.sql.interactions", "SELECT * FROM interactions ORDER BY timestamp"),
    Added("data.sql.items", "SELECT * FROM items ORDER BY item_id"),
    Added("data.sql.snapshot", None),
    Added("align.start_norm", None),
    Added("align.graph_window", 1),
    Added("quantize.table", None),
    Added("generator.stage_one_state", False),
    Added("generator.ranker_file", None),
    Added("evaluate.lists_file", None),
    Added("compute", {}),
    Added("compute.engine", "local"),
    Added("compute.address", None),
    Added("compute.workers", 2),
    Added("compute.gpus_per_worker", 0),
    Added("compute.cpus_per_worker", 1),
)

CHANGES: tuple[tuple[Change, ...], ...] = (_TO_THE_SECOND,)
"""From each version of what is stored to the next, from version 1 on: which of these fields were added or renamed."""
