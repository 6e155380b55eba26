"""The tables of the preprocessed data as MLflow shows data sets. Knows Parquet files and column types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prorec_core.artifacts import sha256_file

_TABLES = ("sequences", "items")
_KINDS = {"int32": "integer", "int64": "long", "string": "string", "large_string": "string"}


@dataclass(frozen=True)
class DataSet:
    """A table that a stage reads.

    Attributes:
        name: its name.
        digest: sha256 of its content (hex).
        source: URI of the file.
        columns: MLflow's name of the type, by column.
        rows: how many it has, or None where it was not counted.
    """

    name: str
    digest: str
    source: str
    columns: dict[str, str]
    rows: int | None


def data_sets(experiment: str, folder: Path, uri: str) -> Iterator[DataSet]:
    """The tables in an artifact of `preprocess`, which is at `folder` here and at `uri` in the store."""
    import pyarrow.parquet as pq

    for table in _TABLES:
        path = folder / f"{table}.parquet"
        if not path.is_file():
            continue
        schema = pq.read_schema(path)
        yield DataSet(
            name=f"{experiment}/{table}",
            digest=sha256_file(path),
            source=f"{uri}/{table}.parquet",
            columns={field.name: _KINDS.get(str(field.type), str(field.type)) for field in schema},
            rows=pq.read_metadata(path).num_rows,
        )
