"""Stage `preprocess`: raw tables in, users' histories and items' texts out.

Knows the order of reading, filtering and indexing. Knows nothing of file formats or of what is trained later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.attributes import described
from prorec_core.data.counting import gathered, occurrences
from prorec_core.data.dataset import Dataset, NewItems
from prorec_core.data.expectation import differences
from prorec_core.data.filtering import BoolArray, Funnel
from prorec_core.data.in_parts import Crew, InParts, read_in_parts
from prorec_core.data.new_items import HeldOut, hold_out
from prorec_core.data.ordering import shuffled_ties, ties_share
from prorec_core.data.partition import Part, Rules
from prorec_core.data.pieces import worth_sharing
from prorec_core.data.policies import funnelled, rules_of, told_of_items
from prorec_core.data.raw import Catalogue, Log, read_tables
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.data.sources import FileSource, Source, open_source
from prorec_core.data.split import Moments, borders_by_position, borders_by_time, keep_by_time, moments_of, record
from prorec_core.data.times import odd_times
from prorec_core.errors import UserError
from prorec_core.progress import Progress, Report, silent

_STEPS = 4
_TARGETS = (Split.VALIDATION, Split.TEST)

Spread = Callable[[], AbstractContextManager[Crew]]
"""Has others work while the context lasts."""


def source_digest(config: DataConfig) -> str:
    """Hex sha256 of what the data are made from: the content of the source files, or the demo's own section.

    Raises:
        UserError: the files are not there.
    """
    return open_source(config).digest()


def preprocess(config: DataConfig, report: Report = silent, spread: Spread | None = None) -> Dataset:
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
    if spread is not None and isinstance(source, FileSource) and worth_sharing(source):
        with spread() as crew:
            read, rules, log, stock = read_in_parts(config, source, crew, report)
            return _made(config, source, read, rules, log, stock, report)
    rows, log, stock = read_tables(config, source.interactions(), source.items())
    report(Progress(1, _STEPS, "step"))
    rules, part = rules_of(config, log.ids["item"], stock), Part(rows, log.ids["user"], log.ids["item"].len())
    del rows
    part.narrow(rules)
    return _made(config, source, part, rules, log, stock, report)


def _made(
    config: DataConfig,
    source: Source,
    filtered: Part | InParts,
    rules: Rules,
    log: Log,
    stock: Catalogue,
    report: Report,
) -> Dataset:
    """The data set, of a log that is filtered but for the k-core."""
    warnings = [*stock.remarks, *log.remarks]
    funnel, catalogue, policies = funnelled(config, rules, filtered.counts, log, stock, warnings)
    rows, moments, known = _core(config, funnel, filtered, log)
    warnings += told_of_items(policies, funnel.steps, log, stock)
    report(Progress(2, _STEPS, "step"))

    if config.ties == "shuffle":
        rows.frame = shuffled_ties(rows.frame, config.ties_seed)
    ids, ordered = {"user": rows.users, "item": log.ids["item"]}, rows.frame
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
        funnel.note("new_items", rows.keep(held.keep), "data.new_items")
        ordered = rows.frame
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
    # A time that was set to 0 is told of where that is told.
    told_times = times[times > 0] if config.negative_times == "zero" else times
    warnings += [*odd_times(told_times, log.unit), *differences(config, counts)]
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


def _new_items(held: HeldOut, ids: dict[str, pl.Series], users: pl.Series, catalogue: pl.DataFrame) -> NewItems:
    """The items held out with their texts, and their test interactions in the numbers of the users that are left."""
    texts = _texts(ids["item"].gather(held.items), catalogue)
    # Ids are sorted, and so are the codes into them: places among those left are found by bisection.
    who = users.search_sorted(ids["user"].gather(held.users)).to_numpy()
    which = np.searchsorted(held.items, held.targets)
    return NewItems(texts.select("item_id", "title", "text"), who.astype(np.int32), which.astype(np.int32))


def _core(
    config: DataConfig, funnel: Funnel, filtered: Part | InParts, log: Log
) -> tuple[Part, Moments | None, BoolArray | None]:
    """What the k-core leaves; by time also when validation and test begin, and which items training knows."""
    setting = "data.min_user_interactions and data.min_item_interactions"
    if config.split != "by_time":
        rows = filtered.core(config.min_user_interactions, config.min_item_interactions)
        funnel.note("k_core", rows.counts[-1], setting)
        return rows, None, None
    rows = filtered.whole()
    users, items, times = (rows.frame[name].to_numpy() for name in ("user", "item", "timestamp"))
    moments = moments_of(users, times, config, log.unit, log.place)
    kept = keep_by_time(users, items, times, moments, config, log.ids["item"].len(), log.place)
    funnel.note("k_core", rows.keep(kept.rows), f"{setting}, of what is trained on")
    return rows, moments, kept.known


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


def _number(codes: pl.Series, ids: pl.Series) -> tuple[pl.Series, IntArray]:
    """Ids still in use, in their order, and each row's index among them."""
    values = codes.to_numpy()
    used = occurrences(values, ids.len()) > 0
    return ids.filter(pl.Series(used)), gathered(np.cumsum(used, dtype=np.int32) - 1, values)


def _length_profile(lengths: npt.NDArray[np.int64]) -> dict[str, float]:
    quantiles = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = {name: float(np.quantile(lengths, share)) for name, share in quantiles.items()}
    return {**found, "mean": round(float(lengths.mean()), 4)}
