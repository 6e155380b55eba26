"""Rows of a query, batch by batch, from PostgreSQL or DuckDB. Knows their libraries, and what must not be told.

The address of a database holds its password. It is read from an environment variable when it is needed, is handed to
the library, and stands in no message: what a library says of a connection is told by its kind alone, and what it says
of a query without the parts of the address. Nothing is written: the session is read-only, and both queries see one
state of the database.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from prorec_core.errors import UserError

Ask = Callable[[str], Iterator[pa.RecordBatch]]
"""The rows of a query; at least one batch, which may hold none."""

_BATCH = 1 << 17
_EXTRA = 'Install the libraries for databases: pip install "prorec[sql]"'
_LOCAL_ONLY = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "lock_configuration": "true",
}
"""DuckDB reads the one file: a query opens no other, and loads nothing from anywhere."""
_ONE_STATE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_KNOWN = (
    (
        r"authentication failed|no password supplied|role .* does not exist|no pg_hba",
        "refuses the name or the password",
    ),
    (r"database .* does not exist", "has no database of this name"),
    (r"could not translate host|Name or service", "has a host that nobody knows"),
    (r"Connection refused|timed? ?out|timeout|No route|server closed|could not connect", "does not answer"),
    (r"SSL|certificate", "does not agree on an encrypted connection"),
    (r"not a valid DuckDB", "is no file of DuckDB"),
    (r"does not exist", "names a file that is not there"),
    (r"lock", "is in use by a program that writes to it"),
)
"""What libraries say of a connection, and how it is told without what they quote."""


def address(variable: str) -> str:
    """The address of a database, from an environment variable.

    Raises:
        UserError: it is not set.
    """
    found = os.environ.get(variable, "")
    if not found:
        raise UserError(
            f"the environment variable {variable} is not set",
            place="data.sql.connection",
            cure="Set it to the address of the database, postgresql://USER:PASSWORD@HOST/NAME or duckdb:///FILE",
        )
    return found


@contextmanager
def asking(variable: str) -> Iterator[Ask]:
    """Queries of one database, all of which see the same state of it.

    Args:
        variable: the environment variable that holds its address.

    Raises:
        UserError: no address, a library that is missing, or a database that cannot be reached or refuses a query; no
            part of the address is in it.
    """
    url = address(variable)
    scheme = url.partition(":")[0]
    if scheme not in _KINDS:
        raise UserError(
            f"what {variable} holds begins with no known kind of database",
            place="data.sql.connection",
            cure="It must begin with postgresql:// or duckdb:///",
        )
    connect, ask = _KINDS[scheme]
    try:
        connection = connect(url)
    except ImportError:
        raise UserError(f"a library for {scheme} is missing", place="data.source=sql", cure=_EXTRA) from None
    except Exception as error:
        # Without its cause: a traceback would quote the address.
        raise UserError(
            f"the database {_kind_of(error)}", place=f"data.sql.connection={variable}", cure="Check the address in it"
        ) from None
    with closing(connection):
        yield lambda query: _told(ask(connection, query), url)


def _told(batches: Iterator[pa.RecordBatch], url: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except MemoryError:
        raise
    except Exception as error:
        raise UserError(
            f"the database refuses the query ({_without(url, error)})", place="data.sql", cure="Correct the query"
        ) from None


def _kind_of(error: Exception) -> str:
    said = str(error)
    return next((told for pattern, told in _KNOWN if re.search(pattern, said, re.I)), "cannot be reached")


def _without(url: str, error: Exception) -> str:
    """The first line of what an error says, without the address or a part of it."""
    parts = urlsplit(url)
    secret = {url, parts.netloc, parts.path, parts.query}
    secret |= {parts.username or "", parts.password or "", parts.hostname or ""}
    secret |= {unquote(each) for each in secret}
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    for each in sorted(filter(None, secret), key=len, reverse=True):
        said = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", "…", said) if len(each) > 1 else said
    return said


def _open_postgres(url: str) -> Any:
    dbapi = importlib.import_module("adbc_driver_postgresql.dbapi")
    connection = dbapi.connect(url)
    with connection.cursor() as cursor:
        cursor.execute(_ONE_STATE)
    return connection


def _ask_postgres(connection: Any, query: str) -> Iterator[pa.RecordBatch]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        yield from _batches(cursor.fetch_record_batch())


def _open_duckdb(url: str) -> Any:
    duckdb = importlib.import_module("duckdb")
    # duckdb:///FILE, as SQLAlchemy has it: a fourth slash begins a path from the root.
    path = unquote(url.removeprefix("duckdb://").removeprefix("/"))
    if not path:
        raise ValueError("file does not exist")
    return duckdb.connect(path, read_only=True, config=_LOCAL_ONLY)


def _ask_duckdb(connection: Any, query: str) -> Iterator[pa.RecordBatch]:
    found = connection.sql(query)
    if found is None:
        raise ValueError("it gives no rows")
    yield from _batches(found.to_arrow_reader(_BATCH))


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pylist([], schema=reader.schema)
    yield from reader


_KINDS: dict[str, tuple[Callable[[str], Any], Callable[[Any, str], Iterator[pa.RecordBatch]]]] = {
    "postgresql": (_open_postgres, _ask_postgres),
    "postgres": (_open_postgres, _ask_postgres),
    "duckdb": (_open_duckdb, _ask_duckdb),
}
"""How to connect, and to ask, by the beginning of an address."""
