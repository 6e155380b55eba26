"""A file that holds one JSON object, read whole. Knows its keys and values; knows nothing of what they mean.

A key that stands there twice is refused, since one of both would be lost.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from prorec_core.data.columns import shown
from prorec_core.data.opening import DAMAGED, opener, refuse_damaged
from prorec_core.data.tables import reading
from prorec_core.errors import UserError

_LARGEST = 1 << 30
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


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
        except UnicodeError:
            raise
        except ValueError as error:
            # Python bounds the digits that it reads as a number.
            raise UserError(
                "it holds a number of thousands of digits", place=place, cure="Write it as a text"
            ) from error
    if not isinstance(found, Members):
        raise UserError("it holds no object", place=place, cure="Write one object, with a key each")
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise UserError(f"the key '{twice}' stands there twice", place=place, cure="Keep one of them")
    if _SURROGATE.search(raw) and (odd := [key for key, value in found if not _is_text([key, value])]):
        problem = f"what stands under the key {shown(odd[0])} is no text: it holds half of a pair of surrogates"
        raise UserError(problem, place=place, cure="Write it as UTF-8, or correct what wrote it")
    return found


def _is_text(value: Any) -> bool:
    """Whether all texts in a value can be written."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
