"""Tables that two queries give, kept as a snapshot before anything else is done with them.

Knows the section `data.sql`. Knows nothing of databases' libraries or of how snapshots are written.

A process asks once: all that it makes of the same queries is made of the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from prorec_core.config_data import DataConfig, SqlConfig
from prorec_core.data import snapshots
from prorec_core.data.databases import address, asking
from prorec_core.data.formats import RULES, open_file
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from prorec_core.paths import path_of

_TABLES = ("interactions", "items")
_asked: dict[str, str] = {}
"""By folder, address and queries, unreadable, the digest of what they gave in this process."""
_lock = Lock()


@dataclass(frozen=True)
class SqlSource:
    """A snapshot, taken when it is first needed."""

    config: SqlConfig
    folder: Path
    """Where snapshots are kept."""

    def interactions(self) -> RawTable:
        return self._table("interactions")

    def items(self) -> RawTable:
        return self._table("items")

    def facts(self) -> dict[str, Any]:
        return {"snapshot": self.digest()}

    def digest(self) -> str:
        if self.config.snapshot is not None:
            return self.config.snapshot
        asked = (str(self.folder.absolute()), address(self.config.connection), *self._queries.values())
        key = snapshots.name_of(asked)
        with _lock:
            if key not in _asked:
                _asked[key] = self._take()
            return _asked[key]

    @property
    def _queries(self) -> dict[str, str]:
        return {"interactions": self.config.interactions, "items": self.config.items}

    def _take(self) -> str:
        with asking(self.config.connection) as ask:
            return snapshots.keep(self.folder, {name: ask(query) for name, query in self._queries.items()})

    def _table(self, name: str) -> RawTable:
        folder = snapshots.kept(self.folder, self.digest(), _TABLES)
        return open_file(folder / f"{name}.parquet", RULES)


def sql(config: DataConfig) -> SqlSource:
    """What the queries of the configuration give; the database is asked when the rows are.

    Raises:
        UserError: there is no folder to keep snapshots in.
    """
    if config.path is None:
        raise UserError(
            "the source 'sql' keeps what it read, and needs a folder for that",
            place="data.path",
            cure="Set data.path to a folder",
        )
    return SqlSource(config.sql, path_of(config.path))
