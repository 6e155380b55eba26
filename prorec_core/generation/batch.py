"""Recommendations for many users as one Parquet file, made chunk by chunk.

Knows recommenders, histories and Parquet. Whatever kills it, the next call with the same arguments goes on with the
chunks that are there; the file itself appears whole or not at all. Memory grows with a chunk, not with the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prorec_core.artifacts import sha256_file, sha256_json
from prorec_core.data.histories import Chunk, Histories
from prorec_core.errors import UserError
from prorec_core.generation.allowed import AllowedItems
from prorec_core.generation.explain import Explained, explain
from prorec_core.generation.explained_rows import SCHEMA, explained_columns, explained_schema
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.rules import Rule
from prorec_core.kept import find_piece, keep_piece
from prorec_core.metrics.top import TopItems
from prorec_core.progress import Progress, Report, silent

SCHEMA_VERSION = 1
"""Version of the columns and metadata of the file."""

_EXAMPLES = 3
_ROWS = 2**20
"""Rows whose texts are put together at a time: one Arrow array of texts holds 2 GiB at most."""
_SUFFIX = ".parquet"


@dataclass(frozen=True)
class BatchSettings:
    """What is asked for.

    Attributes:
        k: items a user; fewer where the catalogue has no more that the user lacks.
        mask_history: leave out what a user already has.
        chunk: users at a time; results are kept chunk by chunk.
        model: the model's address, noted in the file.
        model_digest: digest of the model's files; chunks of another model are not used.
        rule: what alone may be recommended.
        explain: add the columns of `explained_schema`.
    """

    k: int
    mask_history: bool
    chunk: int
    model: str
    model_digest: str
    rule: Rule | None = None
    explain: bool = False


@dataclass(frozen=True)
class BatchResult:
    """What came of it.

    Attributes:
        users: all of them.
        rows: of the file.
        sha256: of the file, hex.
        users_found: whose rows were there already.
        users_short: who got fewer than k items, since no more may be recommended that they lack.
        users_empty: who got none, since they have all that may be.
    """

    users: int
    rows: int
    sha256: str
    users_found: int
    users_short: int
    users_empty: int


def check_catalogue(recommender: Recommender, histories: Histories, *, whole: bool, drop_unknown: bool) -> int:
    """Refuse histories of another catalogue than the model's; returns how many of their items the model lacks.

    Args:
        recommender: the model.
        histories: whose item ids are looked at.
        whole: they are of a whole catalogue, so that the model may have no other items either.
        drop_unknown: let items pass that the model lacks.

    Raises:
        UserError: says how many items differ, and names some.
    """
    every, theirs = pl.Series("item_id", recommender.item_ids, pl.String), histories.item_ids()
    unknown = theirs.filter(~theirs.is_in(every.implode()))
    # What came to the model after its training is in no data that it was trained on.
    own = every.filter(pl.Series(recommender.catalogue.since == 0))
    more = own.filter(~own.is_in(theirs.implode())) if whole else own.clear()
    if (unknown.len() and not drop_unknown) or more.len():
        told = [
            f"{ids.len():,} of {of:,} items {where} ({', '.join(ids.head(_EXAMPLES))}{' …' * (ids.len() > _EXAMPLES)})"
            for ids, of, where in (
                (unknown, theirs.len(), "are unknown to the model"),
                (more, own.len(), "of the model are not in the data"),
            )
            if ids.len()
        ]
        raise UserError(
            f"the catalogue is not that of the model: {' and '.join(told)}",
            place=histories.place,
            cure="Train on these data first" + (" or pass over unknown items (--unknown-items drop)" * (not whole)),
        )
    return unknown.len()


Making = Callable[[Iterator[tuple[str, Chunk]]], Iterator[tuple[str, bytes]]]
"""Takes chunks with their keys, as fast as it can make their rows, and gives the content of a Parquet file for each, in
whatever order they are made."""


def making(recommender: Recommender, settings: BatchSettings) -> Making:
    """Has this process make one chunk after the other."""
    make = rows_of(recommender, settings)
    return lambda chunks: ((key, make(chunk)) for key, chunk in chunks)


def rows_of(recommender: Recommender, settings: BatchSettings) -> Callable[[Chunk], bytes]:
    """What makes a chunk's rows, as the content of a Parquet file.

    Raises:
        UserError: the rule cannot be asked of the model, or leaves nothing.
    """
    allowed = None if settings.rule is None else recommender.rules.left(settings.rule).allowed
    return lambda chunk: _content(_rows(recommender, chunk, settings, allowed))


def recommend_all(
    recommender: Recommender,
    histories: Histories,
    settings: BatchSettings,
    output: Path,
    report: Report = silent,
    make: Making | None = None,
) -> BatchResult:
    """Write the best items of every user to a Parquet file (columns: `SCHEMA`).

    Args:
        recommender: the model.
        histories: the users.
        settings: what is asked for.
        output: the file; chunks wait in a hidden folder beside it until all are there.
        report: told of every chunk, in users.
        make: makes the rows; by default `making`, in this process.

    Raises:
        UserError: the output cannot be written; the rule cannot be asked of the model, or leaves nothing.
    """
    make = make or making(recommender, settings)
    schema = explained_schema(recommender.scoring) if settings.explain else SCHEMA
    parts = output.parent / f".{output.name}.parts"
    order: list[str] = []
    there: dict[str, Path] = {}
    users: dict[str, int] = {}
    found, done, total = 0, 0, histories.n_users

    def tell(key: str) -> None:
        nonlocal done
        done += users[key]
        report(Progress(done, total, "user"))

    def missing() -> Iterator[tuple[str, Chunk]]:
        nonlocal found
        for chunk in histories.chunks(settings.chunk):
            key = _key(chunk, settings)
            order.append(key)
            users[key] = len(chunk.user_ids)
            if (part := find_piece(parts, key, _SUFFIX)) is None:
                yield key, chunk
                continue
            there[key] = part
            found += users[key]
            tell(key)

    try:
        parts.mkdir(parents=True, exist_ok=True)
        for key, content in make(missing()):
            there[key] = keep_piece(parts, key, _SUFFIX, content)
            tell(key)
        # The last name is given to a file that is whole, on the same file system.
        whole = parts / "whole"
        names = [there[key] for key in order]
        rows, served, full = _join(names, whole, schema.with_metadata(_metadata(settings)), settings.k)
        sha256 = sha256_file(whole)
        whole.replace(output)
        shutil.rmtree(parts)
    except OSError as error:
        raise UserError(
            f"the file cannot be written ({error.strerror or error})",
            place=str(output),
            cure="Make room or choose another place; what is done is kept",
        ) from error
    return BatchResult(total, rows, sha256, found, total - full, total - served)


def _key(chunk: Chunk, settings: BatchSettings) -> str:
    """Equal for two chunks whose rows must be equal."""
    asked = [SCHEMA_VERSION, settings.model_digest, settings.k, settings.mask_history]
    if settings.rule is not None:
        asked.append(settings.rule.key)
    if settings.explain:
        asked.append("explained")
    content = hashlib.sha256(sha256_json(asked).encode())
    lengths = chunk.histories.list.len()
    content.update(lengths.to_numpy().tobytes())
    for texts in (chunk.user_ids, chunk.histories.filter(lengths > 0).explode()):
        # Where one text ends and the next begins counts too.
        content.update(texts.str.len_bytes().to_numpy().tobytes())
        content.update(texts.str.join("").item().encode())
    return content.hexdigest()


def _rows(recommender: Recommender, chunk: Chunk, settings: BatchSettings, allowed: AllowedItems | None) -> pa.Table:
    known = recommender.known(chunk.histories)
    rules = None if allowed is None else [allowed] * known.n_users
    told: Explained | None = None
    if settings.explain:
        told = explain(recommender, known, settings.k, mask_history=settings.mask_history, rules=rules)
        best = TopItems(told.items_UK, told.scores_UK)
    else:
        best = recommender.top(known, settings.k, mask_history=settings.mask_history, rules=rules)
    users, places = np.nonzero(best.items_UK >= 0)
    user_ids = chunk.user_ids.to_arrow().cast(pa.string())
    schema = SCHEMA if told is None else explained_schema(recommender.scoring)

    def part(rows: slice) -> pa.Table:
        user, place = users[rows], places[rows]
        item = pa.array(best.items_UK[user, place])
        columns = [
            user_ids.take(pa.array(user)),
            pa.array(place + 1, pa.int32()),
            recommender.item_id_column.take(item),
            recommender.title_column.take(item),
            pa.array(best.scores_UK[user, place], pa.float32()),
        ]
        if told is not None:
            columns += explained_columns(recommender, told, user, place)
        return pa.table(columns, schema=schema)

    return pa.concat_tables(part(slice(start, start + _ROWS)) for start in range(0, max(len(users), 1), _ROWS))


def _content(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _metadata(settings: BatchSettings) -> Mapping[bytes, bytes]:
    values = {
        "prorec_schema_version": SCHEMA_VERSION,
        "prorec_model": settings.model,
        "prorec_model_digest": settings.model_digest,
        "prorec_k": settings.k,
        "prorec_history_masked": str(settings.mask_history).lower(),
        **({} if settings.rule is None else {"prorec_rule": settings.rule.key}),
        **({"prorec_explained": "true"} if settings.explain else {}),
    }
    return {name.encode(): str(value).encode() for name, value in values.items()}


def _join(parts: list[Path], target: Path, schema: pa.Schema, k: int) -> tuple[int, int, int]:
    """Write all parts to one file; returns the number of rows, of users who have one, and of those who have k."""
    rows = served = full = 0
    with target.open("wb") as stream:
        with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            for table in _tables(parts, schema.remove_metadata()):
                writer.write_table(table)
                rows += table.num_rows
                ranks = table["rank"].to_numpy()
                served += int((ranks == 1).sum())
                full += int((ranks == k).sum())
        stream.flush()
        os.fsync(stream.fileno())
    return rows, served, full


def _tables(parts: list[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    for path in parts:
        yield pq.read_table(path, schema=schema)
