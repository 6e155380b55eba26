"""Counts that others found after the same filters, held against those found here. Knows counts; knows no data."""

from __future__ import annotations

from collections.abc import Mapping

from prorec_core.config_data import DataConfig


def differences(config: DataConfig, kept: Mapping[str, int]) -> list[str]:
    """A sentence where a count is another one than `data.expected` says; with new items held out nothing is said.

    Args:
        config: what is expected.
        kept: `users`, `items` and `interactions` after filtering.
    """
    if config.new_items > 0:
        return []
    wanted = {name: count for name, count in config.expected.model_dump(include=set(kept)).items() if count}
    odd = [
        f"{kept[name]:,} {name} where {count:,} are expected" for name, count in wanted.items() if kept[name] != count
    ]
    if not odd:
        return []
    source = f" ({config.expected.source})" if config.expected.source else ""
    return [f"after filtering there are {', '.join(odd)}{source}: other files, or other filters than were meant"]
