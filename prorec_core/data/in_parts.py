"""A log that is read in pieces and filtered in parts by users, by others: what this process tells them and adds up.

Knows pieces, parts and counts; knows nothing of who works on them (`Crew`), or where. Twice all files are read: once to
find what only all of them tell, once for the rows. Here stand the items, and at last what is left of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import Field
from prorec_core.data.filtering import BoolArray, Count, Few, Funnel
from prorec_core.data.forms import Oddities, joined, oddities
from prorec_core.data.ids import Distinct, IdColumn, as_places, sorted_ids
from prorec_core.data.partition import ROW, Part, Rows, Rules
from prorec_core.data.parts import Kinds
from prorec_core.data.pieces import Look, Piece, Plan, Reading, added, look, pieces_of, rows_in
from prorec_core.data.policies import rules_of
from prorec_core.data.raw import NO_CLOCK, Catalogue, Log, begun, met, remarks_on_log, rows_of
from prorec_core.data.sequences import Longs
from prorec_core.data.sources import FileSource
from prorec_core.data.units import decided
from prorec_core.progress import Progress, Report

_ROWS_OF_PART = 1 << 21
_LOOKS = 16
"""Pieces whose ids are kept before they are added up."""

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Arranged:
    """What is told of a part: users and counts before and after each filter, and what is odd of its users' ids."""

    counts: Sequence[tuple[int, Few]]
    users: Oddities


Read = Callable[[Given], Iterator[pl.DataFrame]]
"""Gives the rows of what is given, as `rows_in` does."""
Arrange = Callable[[pl.DataFrame], tuple[Rows, Arranged]]
"""Makes of the rows of a part, in whatever order, what is held of it and what is told."""


class Held(Protocol):
    """Parts that others hold."""

    def each(self, do: Callable[[Rows], Made]) -> Iterator[tuple[int, Made]]:
        """What is made of each part, by the number of the part, in whatever order."""
        ...


class Crew(Protocol):
    """Others who work."""

    workers: int

    def each(self, do: Callable[[Given], Made], given: Sequence[Given]) -> Iterator[tuple[int, Made]]:
        """What is made of each, by its place, in whatever order."""
        ...

    def in_parts(
        self, read: Read[Given], given: Sequence[Given], parts: int, make: Arrange
    ) -> tuple[Held, Iterator[Arranged]]:
        """Read all, bring together the rows of each part (`PART`), and hold what is made of them, told as it comes.

        Raises:
            UserError: the one that was met in the first of what was given.
        """
        ...


def read_in_parts(
    config: DataConfig, source: FileSource, crew: Crew, report: Report
) -> tuple[InParts, Rules, Log, Catalogue]:
    """The log of a source, filtered but for the k-core; by what; what is known of it; the items.

    Raises:
        UserError: as one process would tell it that reads all in order.
    """
    log, stock = source.interactions(), source.items()
    columns, catalogue, beside = begun(config, log, stock)
    how, pieces = Reading(config, columns, beside), pieces_of(source, log.columns())
    looks, met_items = [Look()] * len(pieces), [Look().items]
    for done, (place, found) in enumerate(crew.each(partial(look, how=how), pieces), start=1):
        # The ids of all pieces are added up as they come: each has most of those that the others have.
        met_items.append(found.items)
        if len(met_items) > _LOOKS:
            met_items = [added(met_items)]
        looks[place] = replace(found, items=Look().items)
        report(Progress(done, len(pieces), "piece"))
    _expect_sound(pieces, looks)
    rows = sum(found.rows for found in looks)
    if not rows:
        Funnel(Count(0, np.zeros(0, np.int64)), log.place)
    unit = None
    if config.timestamp_column is not None:
        fields = [Field(config.timestamp_column, piece.table().place) for piece in pieces]
        seen = [(field, about) for field, found in zip(fields, looks, strict=True) for about in found.times]
        unit = decided(seen, config.timestamp_format)
    counts = added(met_items)
    items = Distinct(counts["id"], counts["rows"].to_numpy(), np.arange(counts.height))
    called, same = met(items, catalogue, config, log.place)
    ids, places = sorted_ids(items, called)
    rules = rules_of(config, ids, catalogue)
    plan = Plan(how, items.ids, places, unit, max(crew.workers, -(-rows // _ROWS_OF_PART)))
    starts = np.cumsum([0, *(found.rows for found in looks)])[:-1].tolist()
    held, told = crew.in_parts(
        partial(_rows_of_piece, plan=plan),
        list(zip(pieces, starts, strict=True)),
        plan.parts,
        partial(arranged, rules=rules, name=config.user_column),
    )
    totals: list[Count] = []
    users = []
    for each in told:
        totals = totals or [Count(0, np.zeros(rules.n_items, np.int64)) for _ in each.counts]
        for place, (total, (n_users, few)) in enumerate(zip(totals, each.counts, strict=True)):
            few.add_to(total.of_items)
            totals[place] = replace(total, users=total.users + n_users)
        users.append(each.users)
    odd = {"user": joined(users), "item": oddities(ids, rows_of(items, places), ids=True)}
    negative = sum(found.negative for found in looks)
    remarks = remarks_on_log(config, log.place, negative, sum(found.unrated for found in looks), odd)
    known = Log({"item": ids}, NO_CLOCK if unit is None else unit.name, log.place, remarks, same)
    return InParts(held, totals), rules, known, catalogue


def arranged(frame: pl.DataFrame, rules: Rules, name: str) -> tuple[Rows, Arranged]:
    """The rows of a part in whatever order, filtered and in order of user and time; and what is told of them.

    Args:
        frame: as `rows_in` gives them.
        rules: what is filtered by.
        name: of the column of users.
    """
    frame = frame.sort(ROW)
    column = IdColumn(Field(name, ""))
    numbers = column.numbers(frame["user"], 0)
    distinct = column.distinct(numbers)
    users, table = sorted_ids(distinct, distinct.ids)
    odd = oddities(users, rows_of(distinct, table), ids=True)
    part = Part(frame.with_columns(user=pl.Series(as_places(numbers, table))), users, rules.n_items)
    del frame, numbers
    part.narrow(rules)
    return Rows.of(part), Arranged([(each.users, Few.of(each.of_items)) for each in part.counts], odd)


class InParts:
    """A log in parts; `counts` are those of all its rows, and of those after each filter."""

    def __init__(self, held: Held, counts: list[Count]) -> None:
        self.counts = counts
        self._held = held

    def core(self, least_user: int, least_item: int) -> Part:
        """The k-core in one place. Counts over all parts until the items that have enough stay the same."""
        enough = np.ones(len(self.counts[-1].of_items), np.bool_)
        while True:
            found = np.zeros(len(enough), np.int64)
            for _, counts in self._held.each(partial(Rows.core_counts, least=least_user, enough=enough)):
                counts.add_to(found)
            before, enough = enough, found >= least_item
            if np.array_equal(before, enough):
                return self._gathered(least_user, enough)

    def whole(self) -> Part:
        """All of it in one place."""
        return self._gathered(1, np.ones(len(self.counts[-1].of_items), np.bool_))

    def _gathered(self, least: int, enough: BoolArray) -> Part:
        heads = sorted(self._held.each(partial(_heads, least=least, enough=enough)), key=lambda head: head[0])
        users = pl.concat([ids for _, (ids, _) in heads])
        order = users.arg_sort().to_numpy()
        ids = users.gather(order)
        if ids.n_unique() < ids.len():
            raise RuntimeError("a user is in two parts")
        lengths = np.concatenate([each for _, (_, each) in heads])
        starts = np.empty(len(order), np.int64)
        starts[order] = np.cumsum(lengths[order]) - lengths[order]
        ends = np.cumsum([0, *(len(each) for _, (_, each) in heads)]).tolist()
        firsts = {number: first for (number, _), first in zip(heads, ends[:-1], strict=True)}
        columns: dict[str, npt.NDArray[Any]] = {
            "user": np.repeat(np.arange(len(order), dtype=np.int32), lengths[order])
        }
        for number, rows in self._held.each(partial(Rows.core, least=least, enough=enough)):
            begins = np.cumsum(rows.lengths) - rows.lengths
            of_users = starts[firsts[number] :][: len(rows.lengths)]
            places = np.arange(len(rows.items)) + np.repeat(of_users - begins, rows.lengths)
            for name, values in rows.columns().items():
                columns.setdefault(name, np.empty(len(columns["user"]), values.dtype))[places] = values
        return Part(pl.DataFrame(columns), ids, len(enough))


def _heads(rows: Rows, least: int, enough: BoolArray) -> tuple[pl.Series, Longs]:
    """The users that are left of a part, and how many interactions each has."""
    left = rows.core(least, enough)
    return left.users, left.lengths


def _rows_of_piece(piece: tuple[Piece, int], plan: Plan) -> Iterator[pl.DataFrame]:
    return rows_in(*piece, plan)


def _expect_sound(pieces: Sequence[Piece], looks: Sequence[Look]) -> None:
    """Refuse what one process refuses that reads all in order.

    Raises:
        UserError: of several mistakes the one that it would meet first.
    """
    kinds = Kinds(pieces[0].folder)
    for piece, found in zip(pieces, looks, strict=True):
        for name, dtype, start in found.types if piece.named else ():
            if found.failed is None or start <= found.failed[0]:
                kinds.expect(name, dtype, piece.file)
        if found.failed is not None:
            raise found.failed[1]
    for side in ("user", "item"):
        told = [found.without_id[side] for found in looks if side in found.without_id]
        # One that is not there at all is told before one that only counts as missing.
        for _, error in sorted(told, key=lambda each: not each[0]):
            raise error
