"""Stage `preprocess`: raw tables in, users' histories and items' texts out.

Knows the order of reading, filtering and indexing. Knows nothing of file formats or of what is trained later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.attributes import described
from prorec_core.data.columns import shown
from prorec_core.data.counting import gathered, occurrences
from prorec_core.data.dataset import Dataset, NewItems
from prorec_core.data.expectation import differences
from prorec_core.data.filtering import BoolArray, Funnel, k_core
from prorec_core.data.new_items import HeldOut, hold_out
from prorec_core.data.ordering import in_order_of_time, shuffled_ties, ties_share, without_duplicates
from prorec_core.data.raw import Catalogue, Log, read_tables
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.data.sources import open_source
from prorec_core.data.split import Moments, borders_by_position, borders_by_time, keep_by_time, moments_of, record
from prorec_core.errors import UserError
from prorec_core.progress import Progress, Report, silent

_STEPS = 4
_TARGETS = (Split.VALIDATION, Split.TEST)
_TOLD_FROM = 0.02
"""Share of the interactions with unknown items from which on it is told."""


def source_digest(config: DataConfig) -> str:
    """Hex sha256 of what the data are made from: the content of the source files, or the demo's own section.

    Raises:
        UserError: the files are not there.
    """
    return open_source(config).digest()


def preprocess(config: DataConfig, report: Report = silent) -> Dataset:
    """Read a source, filter it, order every user's items in time and number users and items.

    The filters, in this order: ratings, items that the items file lacks, items without text, duplicates, k-core,
    new items held out. The new items stand apart (`Dataset.new_items`); all else is as if the shop
    did not have them yet. By time the k-core is that of the training interactions, and later items outside it are new.
    Users and items that remain are numbered in the order of their ids as strings, so the order of rows in the files
    does not change the numbers.

    Files are read in batches by several threads, which change nothing: an id's number is its place among the sorted
    ids, and rows are ordered by user, time and their place in the file, or in the files of a pattern one after the
    other.

    Args:
        config: source, columns and policies; the demo shop and the shuffling of ties have seeds of their own in it, so
            that experiments with several training seeds share one data set.
        report: told after reading, filtering, ordering and indexing.

    Raises:
        UserError: files, columns or values that cannot be used, or nothing left after filtering.
    """
    source = open_source(config)
    rows, log, stock = read_tables(config, source.interactions(), source.items())
    ids, warnings = log.ids, [*stock.remarks, *log.remarks]
    report(Progress(1, _STEPS, "step"))

    funnel = Funnel(rows, log.place, warnings)
    del rows
    catalogue, policies = _filter(config, funnel, log, stock)
    moments, known = _core(config, funnel, log)
    warnings += _unknown_told(policies["unknown_items"], funnel.steps, log, stock)
    report(Progress(2, _STEPS, "step"))

    if config.ties == "shuffle":
        funnel.frame = shuffled_ties(funnel.frame, config.ties_seed)
    ordered = funnel.frame
    held = None
    if config.new_items > 0:
        log_items = ordered["item"].to_numpy()
        held = hold_out(ordered["user"].to_numpy(), log_items, config.new_items, config.new_items_seed)
        if held.keep.any() and not len(held.users):
            raise UserError(
                f"nobody took one of the {len(held.items):,} new items last, so there is nothing to measure them on",
                place="data.new_items",
                cure="Raise it, or give another data.new_items_seed",
            )
        funnel.apply("new_items", held.keep, "data.new_items")
        ordered = funnel.frame
    report(Progress(3, _STEPS, "step"))

    users, user_codes = _number(ordered["user"], ids["user"])
    kept, item_codes = _number(ordered["item"], ids["item"])
    lengths = occurrences(user_codes, len(users))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    times = ordered["timestamp"].to_numpy()
    unseen, borders = kept.clear(), None
    if known is not None:
        kept, unseen, item_codes = _known_first(kept, item_codes, ids["item"].filter(pl.Series(known)))
    if config.split == "by_position":
        borders = borders_by_position(offsets, config)
    if moments is not None:
        borders = borders_by_time(offsets, times, moments, config)
    sequences = Sequences(item_codes, offsets, len(kept), borders=borders)
    texts = _texts(kept, catalogue)
    counts = {"users": len(users), "items": len(kept), "interactions": len(item_codes)}
    warnings += differences(config, counts)
    profile = {
        "source": config.source,
        **source.facts(),
        "timestamp_unit": log.unit,
        "filters": funnel.steps,
        "kept": counts,
        "policies": policies,
        "history_length": _length_profile(lengths),
        "ties": {"order": config.ties, "seed": config.ties_seed, "share": ties_share(ordered)},
        "distinct_texts": texts["text"].n_unique(),
        "targets_in_history": {split.name.lower(): int(sequences.taken_before(split).sum()) for split in _TARGETS},
        "warnings": warnings,
    }
    if log.same_ids:
        profile["items_in_another_form"] = log.same_ids
    new = None if held is None else _new_items(held, ids, users, catalogue)
    if new is not None:
        profile["new_items"] = {"items": len(new), "test_interactions": len(new.users), "seed": config.new_items_seed}
    if borders is not None:
        profile["split"] = record(config, sequences, times, log.unit, moments)
    if unseen.len():
        new = NewItems.of_sequences(_texts(unseen, catalogue).select("item_id", "title", "text"), sequences)
        profile["new_items"] = {"items": len(new), "test_interactions": len(new.users)}
    attributes = None
    if config.attribute_columns:
        attributes = _attributes(stock, kept if new is None else pl.concat([kept, new.items["item_id"]]))
        profile["attributes"] = described(attributes)
    report(Progress(_STEPS, _STEPS, "step"))
    return Dataset(
        items=texts.select(
            pl.int_range(pl.len(), dtype=pl.Int32).alias("item"),
            "item_id",
            "title",
            "text",
            pl.Series("train_count", sequences.train_counts(), dtype=pl.Int64),
        ),
        users=pl.DataFrame({"user": np.arange(len(users), dtype=np.int32), "user_id": users}),
        sequences=sequences,
        timestamps=times,
        profile=profile,
        new_items=new,
        attributes=attributes,
    )


def _attributes(stock: Catalogue, item_ids: pl.Series) -> pl.DataFrame:
    """The columns kept for rules of some items; null for one that the items file lacks."""
    # By place: a column may have any name.
    rows = pl.DataFrame({"item_id": stock.items["item_id"], "row": pl.int_range(stock.items.height, eager=True)})
    places = pl.DataFrame({"item_id": item_ids}).join(rows, on="item_id", how="left", maintain_order="left")["row"]
    return pl.DataFrame([column.gather(places) for column in stock.attributes.get_columns()])


def _new_items(held: HeldOut, ids: Mapping[str, pl.Series], users: pl.Series, catalogue: pl.DataFrame) -> NewItems:
    """The items held out with their texts, and their test interactions in the numbers of the users that are left."""
    texts = _texts(ids["item"].gather(held.items), catalogue)
    # Ids are sorted, and so are the codes into them: places among those left are found by bisection.
    who = users.search_sorted(ids["user"].gather(held.users)).to_numpy()
    which = np.searchsorted(held.items, held.targets)
    return NewItems(texts.select("item_id", "title", "text"), who.astype(np.int32), which.astype(np.int32))


def _filter(
    config: DataConfig, funnel: Funnel, log: Log, stock: Catalogue
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """Apply all filters before the k-core; gives the catalogue as the policies leave it, and what each concerned."""
    ids, catalogue, place = log.ids, stock.items, stock.place
    if config.min_rating is not None:
        liked = (funnel.frame["rating"] >= config.min_rating).fill_null(False)
        funnel.apply("rating", liked, "data.min_rating")
        funnel.frame = funnel.frame.drop("rating")

    unknown = ~ids["item"].is_in(catalogue["item_id"].implode())
    missing, missed = _concerned(unknown, funnel, ids["item"])
    if config.unknown_items == "error":
        _none_may_be(missing, "has interactions but is not in the items file", place, "data.unknown_items")
    if config.unknown_items == "keep":
        added = pl.DataFrame({"item_id": missing}).with_columns(title=pl.lit(""), text=pl.lit(""))
        catalogue = pl.concat([catalogue, added])
    else:
        funnel.apply("unknown_items", _by_item(~unknown, funnel), "data.unknown_items")

    blank = ids["item"].is_in(catalogue.filter(pl.col("text") == "")["item_id"].implode())
    textless, silent_rows = _concerned(blank, funnel, ids["item"])
    if config.items_without_text == "error":
        _none_may_be(textless, "has no text", place, "data.items_without_text")
    if config.items_without_text == "drop":
        funnel.apply("items_without_text", _by_item(~blank, funnel), "data.items_without_text")

    repeated = funnel.frame.height
    funnel.frame = in_order_of_time(funnel.frame, numbered=config.ties == "shuffle")
    funnel.apply("duplicates", without_duplicates(funnel.frame, config.duplicates), "data.duplicates")
    repeated -= funnel.frame.height
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
    return catalogue.with_columns(named), policies


def _core(config: DataConfig, funnel: Funnel, log: Log) -> tuple[Moments | None, BoolArray | None]:
    """Apply the k-core; by time gives back when validation and test begin, and which items training knows."""
    users, items, times = (funnel.frame[name].to_numpy() for name in ("user", "item", "timestamp"))
    setting = "data.min_user_interactions and data.min_item_interactions"
    if config.split != "by_time":
        core = k_core(users, items, config.min_user_interactions, config.min_item_interactions)
        funnel.apply("k_core", core, setting)
        return None, None
    moments = moments_of(users, times, config, log.unit, log.place)
    kept = keep_by_time(users, items, times, moments, config, log.ids["item"].len(), log.place)
    funnel.apply("k_core", kept.rows, f"{setting}, of what is trained on")
    return moments, kept.known


def _known_first(ids: pl.Series, codes: IntArray, known: pl.Series) -> tuple[pl.Series, pl.Series, IntArray]:
    """The ids that training knows, the others, and each row's index among the former and then the latter."""
    is_known = ids.is_in(known.implode()).to_numpy()
    order = np.argsort(~is_known, kind="stable")
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return ids.filter(pl.Series(is_known)), ids.filter(pl.Series(~is_known)), gathered(place, codes)


def _texts(item_ids: pl.Series, catalogue: pl.DataFrame) -> pl.DataFrame:
    frame = pl.DataFrame({"item_id": item_ids})
    return frame.join(catalogue, on="item_id", how="left", maintain_order="left")


def _unknown_told(policy: dict[str, Any], steps: list[dict[str, Any]], log: Log, stock: Catalogue) -> list[str]:
    """What is said of interactions with items that the items file lacks, where they are many."""
    total = steps[0]["after" if steps[0]["filter"] == "rating" else "before"]["interactions"]
    if policy["interactions"] <= _TOLD_FROM * total:
        return []
    lacking = log.ids["item"].filter(~log.ids["item"].is_in(stock.items["item_id"].implode()))
    done = "are left out" if policy["policy"] == "drop" else "are kept, their ids standing for their texts"
    items = "1 item" if policy["items"] == 1 else f"{policy['items']:,} items"
    known = f" (it has ids like {shown(stock.items['item_id'][0])})" if stock.items.height else ""
    return [
        f"{policy['interactions'] / total:.1%} of the interactions ({policy['interactions']:,} of {total:,}) are with "
        f"{items} that {stock.place} lacks, as {shown(lacking[0])}{known}: they {done} "
        f"(data.unknown_items={policy['policy']})"
    ]


def _concerned(chosen: pl.Series, funnel: Funnel, item_ids: pl.Series) -> tuple[pl.Series, int]:
    """The chosen items that still have interactions, and how many those are."""
    counts = pl.Series(occurrences(funnel.frame["item"].to_numpy(), item_ids.len()))
    return item_ids.filter(chosen & (counts > 0)), int(counts.filter(chosen).sum())


def _by_item(keep: pl.Series, funnel: Funnel) -> pl.Series:
    return pl.Series(gathered(keep.to_numpy(), funnel.frame["item"].to_numpy()))


def _none_may_be(items: pl.Series, problem: str, place: str, setting: str) -> None:
    if not items.is_empty():
        others = f" (and {items.len() - 1:,} more)" if items.len() > 1 else ""
        raise UserError(f"the item '{items[0]}'{others} {problem}", place=place, cure=f"Add it, or set {setting}=drop")


def _number(codes: pl.Series, ids: pl.Series) -> tuple[pl.Series, IntArray]:
    """Ids still in use, in their order, and each row's index among them."""
    values = codes.to_numpy()
    used = occurrences(values, ids.len()) > 0
    return ids.filter(pl.Series(used)), gathered(np.cumsum(used, dtype=np.int32) - 1, values)


def _length_profile(lengths: npt.NDArray[np.int64]) -> dict[str, float]:
    quantiles = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = {name: float(np.quantile(lengths, share)) for name, share in quantiles.items()}
    return {**found, "mean": round(float(lengths.mean()), 4)}
