"""What the settings on ratings, unknown items, items without text and repetitions mean for a log, and what they took.

Knows the catalogue, and counts of the log by item; knows nothing of where its rows are, or of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import shown
from prorec_core.data.filtering import Count, Funnel
from prorec_core.data.partition import Rules
from prorec_core.data.raw import Catalogue, Log
from prorec_core.errors import UserError

_TOLD_FROM = 0.02
"""Share of the interactions with unknown items from which on it is told."""


def rules_of(config: DataConfig, item_ids: pl.Series, stock: Catalogue) -> Rules:
    """Which interactions stay, given the ids of the log's items."""
    drops = config.items_without_text == "drop"
    return Rules(
        n_items=item_ids.len(),
        known=None if config.unknown_items == "keep" else (~_unknown(item_ids, stock)).to_numpy(),
        with_text=(~_blank(config, item_ids, stock)).to_numpy() if drops else None,
        min_rating=config.min_rating,
        duplicates=config.duplicates,
        numbered=config.ties == "shuffle",
    )


def funnelled(
    config: DataConfig, rules: Rules, counts: Sequence[Count], log: Log, stock: Catalogue, warnings: list[str]
) -> tuple[Funnel, pl.DataFrame, dict[str, dict[str, Any]]]:
    """What each filter took, the catalogue as the policies leave it, and what each of these concerned.

    Args:
        config: the policies.
        rules: what was filtered by.
        counts: of all rows, and of those after each of the rules' steps.
        log: what is known of the interactions.
        stock: the catalogue.
        warnings: what is odd of either.

    Raises:
        UserError: a policy allows no such items, or nothing is left.
    """
    catalogue, ids = stock.items, log.ids["item"]
    funnel = Funnel(counts[0], log.place, warnings)
    settings = dict(rules.steps())
    after = dict(zip(settings, counts[1:], strict=True))

    def note(name: str) -> None:
        if name in after:
            funnel.note(name, after[name], settings[name])

    note("rating")
    missing, missed = _concerned(_unknown(ids, stock), funnel.count, ids)
    if config.unknown_items == "error":
        _none_may_be(missing, "has interactions but is not in the items file", stock.place, "data.unknown_items")
    if config.unknown_items == "keep":
        added = pl.DataFrame({"item_id": missing}).with_columns(title=pl.lit(""), text=pl.lit(""))
        catalogue = pl.concat([catalogue, added])
    note("unknown_items")
    textless, silent_rows = _concerned(_blank(config, ids, stock), funnel.count, ids)
    if config.items_without_text == "error":
        _none_may_be(textless, "has no text", stock.place, "data.items_without_text")
    note("items_without_text")
    repeated = funnel.count.interactions
    note("duplicates")
    repeated -= funnel.count.interactions
    policies: dict[str, dict[str, Any]] = {
        "unknown_items": {"policy": config.unknown_items, "items": missing.len(), "interactions": missed},
        "items_without_text": {
            "policy": config.items_without_text,
            "items": textless.len(),
            "interactions": silent_rows,
        },
        "duplicates": {"policy": config.duplicates, "interactions": repeated},
    }
    named = [pl.when(pl.col(name) == "").then("item_id").otherwise(name).alias(name) for name in ("title", "text")]
    return funnel, catalogue.with_columns(named), policies


def told_of_items(
    policies: Mapping[str, Mapping[str, Any]], steps: list[dict[str, Any]], log: Log, stock: Catalogue
) -> list[str]:
    """What is said of interactions with items that the items file lacks, or has no text of, where they are many."""
    total = steps[0]["after" if steps[0]["filter"] == "rating" else "before"]["interactions"]
    ids, own = log.ids["item"], stock.items["item_id"]
    unknown, silent = policies["unknown_items"], dict(policies["items_without_text"])
    if unknown["policy"] == "keep":
        # What is kept though the catalogue lacks it has no text either.
        silent |= {name: silent[name] - unknown[name] for name in ("items", "interactions")}

    def told(name: str, policy: Mapping[str, Any], what: str) -> str:
        done = "are left out" if policy["policy"] == "drop" else "are kept, their ids standing for their texts"
        items = "1 item" if policy["items"] == 1 else f"{policy['items']:,} items"
        return (
            f"{policy['interactions'] / total:.1%} of the interactions ({policy['interactions']:,} of {total:,}) are "
            f"with {items} {what}: they {done} (data.{name}={policy['policy']})"
        )

    found = []
    if unknown["interactions"] > _TOLD_FROM * total:
        lacking = ids.filter(~ids.is_in(own.implode()))
        known = f" (it has ids like {shown(own[0])})" if own.len() else ""
        found.append(told("unknown_items", unknown, f"that {stock.place} lacks, as {shown(lacking[0])}{known}"))
    if silent["interactions"] > _TOLD_FROM * total:
        blank = stock.items.filter((pl.col("text") == "") & pl.col("item_id").is_in(ids.implode()))["item_id"]
        what = f"of which {stock.place} has no text, as {shown(blank[0])}"
        found.append(told("items_without_text", silent, what))
    return found


def _unknown(item_ids: pl.Series, stock: Catalogue) -> pl.Series:
    return ~item_ids.is_in(stock.items["item_id"].implode())


def _blank(config: DataConfig, item_ids: pl.Series, stock: Catalogue) -> pl.Series:
    """Which items have no text; those that are kept though the catalogue lacks them have none either."""
    blank = item_ids.is_in(stock.items.filter(pl.col("text") == "")["item_id"].implode())
    return blank | _unknown(item_ids, stock) if config.unknown_items == "keep" else blank


def _concerned(chosen: pl.Series, count: Count, item_ids: pl.Series) -> tuple[pl.Series, int]:
    """The chosen items that still have interactions, and how many those are."""
    rows = pl.Series(count.of_items)
    return item_ids.filter(chosen & (rows > 0)), int(rows.filter(chosen).sum())


def _none_may_be(items: pl.Series, problem: str, place: str, setting: str) -> None:
    if not items.is_empty():
        others = f" (and {items.len() - 1:,} more)" if items.len() > 1 else ""
        raise UserError(f"the item '{items[0]}'{others} {problem}", place=place, cure=f"Add it, or set {setting}=drop")
