"""Pieces of a log read by tasks of Ray Data, and its rows brought together by part: Ray Data shares out and shuffles.

Knows Ray Data; knows nothing of what is read, counted or filtered. A task whose worker dies is made again by Ray, and
so is what was lost with a machine. What a task makes, mistakes of the user's among it, travels as a value, between
Ray's own processes and behind the cluster's token; none of that is kept.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
import pyarrow as pa

from prorec.tasks.execution.cluster import cluster
from prorec.tasks.execution.worker import Failed, attempted
from prorec_core.config_compute import ComputeConfig
from prorec_core.data.in_parts import Arrange, Arranged, Read
from prorec_core.data.partition import NO_ROWS, ROW, Rows
from prorec_core.data.pieces import PART
from prorec_core.errors import UserError, one_line

if TYPE_CHECKING:
    from ray.data import Dataset

Given = TypeVar("Given")
Made = TypeVar("Made")
_NUMBER, _MADE = "number", "made"
_DEATHS = 3
"""Workers that may die of a task."""
_WRONG = -1
"""The item of a row that tells what is wrong."""


@contextmanager
def by_ray_data(compute: ComputeConfig) -> Iterator[Crew]:
    """Have tasks of a cluster read and filter while the context lasts.

    Raises:
        UserError: there is no such cluster; its workers die again and again; or one of them met it.
    """
    with cluster(compute), warnings.catch_warnings():
        import ray

        # The number of tries has no name of its own yet.
        warnings.filterwarnings("ignore", message="`ray_remote_args`")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        cores = compute.workers * compute.cpus_per_worker
        context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(cpu=cores)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield Crew(compute)
        except ray.exceptions.RayError as error:
            raise UserError(
                f"the workers are gone ({one_line(error)})",
                place="compute",
                cure="Look at the cluster (ray status) and at their memory (dmesg tells what the kernel ended)",
            ) from error


class Crew:
    """Tasks of a cluster that this process is connected to."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.workers = compute.workers
        cores = compute.cpus_per_worker
        self._options: dict[str, Any] = {"batch_format": "pyarrow", "num_cpus": cores, "max_retries": _DEATHS}

    def each(self, do: Callable[[Given], Made], given: Sequence[Given]) -> Iterator[tuple[int, Made]]:
        """What is made of each, by its place, in whatever order."""
        made = self._spread(given).map_batches(partial(_numbered, do=do, given=given), batch_size=1, **self._options)
        yield from _results(made)

    def in_parts(
        self, read: Read[Given], given: Sequence[Given], parts: int, make: Arrange
    ) -> tuple[HeldParts, Iterator[Arranged]]:
        """Read all, bring together the rows of each part, and hold what is made of them; each told as it comes.

        Raises:
            UserError: the one that was met in the first of what was given.
        """
        rows = self._spread(given).map_batches(partial(_rows, read=read, given=given), batch_size=1, **self._options)
        grouped = rows.groupby(PART, num_partitions=parts)
        held = grouped.map_groups(partial(_part, make=make), **self._options).materialize()
        told = _results(held.select_columns([_NUMBER, _MADE]))
        return HeldParts(held, self._options), (made for _, made in told)

    def _spread(self, given: Sequence[Any]) -> Dataset:
        import ray

        return ray.data.from_items([{_NUMBER: place} for place in range(len(given))], override_num_blocks=len(given))


@dataclass(frozen=True)
class HeldParts:
    """Parts in the object stores of a cluster, and on its disks where these are full: a row a part."""

    parts: Any
    options: dict[str, Any]

    def each(self, do: Callable[[Rows], Made]) -> Iterator[tuple[int, Made]]:
        """What is made of each part, by its number, in whatever order."""
        yield from _results(self.parts.map_batches(partial(_of_part, do=do), batch_size=1, **self.options))


def _results(made: Any) -> Iterator[tuple[int, Any]]:
    """Numbers and results of a data set, as they come.

    Raises:
        UserError: the one that was met in the first of what was given.
    """
    failed: list[tuple[int, Failed]] = []
    for batch in made.iter_batches(batch_size=None, batch_format="pyarrow"):
        for number, found in zip(batch[_NUMBER].to_pylist(), batch[_MADE].to_pylist(), strict=True):
            if isinstance(found, Failed):
                failed.append((number, found))
            elif not failed:
                yield number, found
    if failed:
        raise min(failed, key=lambda each: each[0])[1].raised


def _objects(values: Sequence[Any]) -> pa.Array:
    from ray.data.extensions import ArrowPythonObjectArray

    return ArrowPythonObjectArray.from_objects(list(values))


def _numbered(batch: pa.Table, do: Callable[[Any], Any], given: Sequence[Any]) -> pa.Table:
    number = batch[_NUMBER][0].as_py()
    return pa.table({_NUMBER: [number], _MADE: _objects([attempted(do, given[number])])})


def _rows(batch: pa.Table, read: Read[Any], given: Sequence[Any]) -> Iterator[pa.Table]:
    """The rows of what was given, or as far as it goes and a row that says what is wrong (`_failed`)."""
    number = batch[_NUMBER][0].as_py()
    frames = iter(read(given[number]))
    empty = next(frames).clear()
    while (found := attempted(lambda rows: next(rows, None), frames)) is not None:
        frame = _failed(number, found, empty) if isinstance(found, Failed) else found
        yield frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _failed(number: int, failed: Failed, empty: pl.DataFrame) -> pl.DataFrame:
    """A row of the first part that tells what is wrong with what was given, in the place of a user's id."""
    error = failed.error
    told = [failed.traceback] if error is None else [error.problem, error.place, error.cure]
    columns = {PART: [0], "user": [json.dumps(told)], "item": [_WRONG], ROW: [number]}
    return pl.concat([empty, pl.DataFrame(columns)], how="diagonal_relaxed").cast(empty.schema)


def _first_failed(frame: pl.DataFrame) -> Failed | None:
    wrong = frame.filter(item=_WRONG).sort(ROW)
    if wrong.is_empty():
        return None
    told = json.loads(wrong["user"][0])
    return Failed(None, told[0]) if len(told) == 1 else Failed(UserError(told[0], place=told[1], cure=told[2]), "")


def _part(batch: pa.Table, make: Arrange) -> pa.Table:
    number, frame = batch[PART][0].as_py(), pl.DataFrame(pl.from_arrow(batch))
    wrong = _first_failed(frame)
    made = attempted(make, frame) if wrong is None else wrong
    rows, told = (NO_ROWS, made) if isinstance(made, Failed) else made
    return rows.to_arrow().append_column(_NUMBER, pa.array([number])).append_column(_MADE, _objects([told]))


def _of_part(batch: pa.Table, do: Callable[[Rows], Any]) -> pa.Table:
    number = batch[_NUMBER][0].as_py()
    return pa.table({_NUMBER: [number], _MADE: _objects([attempted(do, Rows.of_arrow(batch))])})
