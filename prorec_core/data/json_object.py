"""A file that holds one JSON object, read whole. Knows its keys and values; knows nothing of what they mean.

A key that stands there twice is refused, since one of both would be lost.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from prorec_core.data.opening import DAMAGED, opener, refuse_damaged
from prorec_core.data.tables import reading
from prorec_core.errors import UserError

_LARGEST = 1 << 30


class Members(list[tuple[str, Any]]):
    """The keys and values of an object, as they stand there."""


def read_members(path: Path) -> Members:
    """The members of the one object in a file, in their order, objects in it likewise.

    Raises:
        UserError: it cannot be read, is no JSON, holds no object, or is larger than a gigabyte; a key is there twice.
    """
    place = str(path)
    with reading(place):
        try:
            with opener(path)() as file:
                raw = file.read(_LARGEST + 1)
        except DAMAGED as error:
            refuse_damaged(error, place, 1)
        if len(raw) > _LARGEST:
            raise UserError(
                f"it has more than {_LARGEST >> 30} GB, and is read whole",
                place=place,
                cure="Write the same as Parquet, CSV or JSON Lines, and read it with data.source=tables",
            )
        try:
            found = json.loads(raw, object_pairs_hook=Members)
        except json.JSONDecodeError as error:
            raise UserError(
                f"it is no JSON: {error.msg} in line {error.lineno:,}, column {error.colno:,}",
                place=place,
                cure="Check that the file is complete",
            ) from error
        except RecursionError as error:
            raise UserError("it is nested too deep", place=place, cure="Write one object, with a key each") from error
    if not isinstance(found, Members):
        raise UserError("it holds no object", place=place, cure="Write one object, with a key each")
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise UserError(f"the key '{twice}' stands there twice", place=place, cure="Keep one of them")
    return found
