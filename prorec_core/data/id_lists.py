"""Item ids in a file: one a line in a text, or a column of a table. Knows files; knows nothing of what ids are for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from prorec_core.data.columns import EMPTY, as_ids, need_columns, shown
from prorec_core.data.formats import RULES, TABLES, TextRules, ends_in, is_file, open_file
from prorec_core.data.opening import format_of
from prorec_core.data.tables import reading
from prorec_core.errors import UserError

LINES = (".txt",)
"""Suffixes of files that hold an item id a line."""


def read_ids(
    file: Path,
    column: str,
    setting: str | None,
    *,
    missing: Sequence[str] = EMPTY,
    tables: Collection[str] = tuple(TABLES),
    rules: TextRules = RULES,
) -> list[str]:
    """The ids in a file, in its order, each once; none where it is empty.

    Args:
        file: a text of `LINES`, or a table.
        column: where a table has them.
        setting: what names the column, for messages; None: it has to be this one.
        missing: texts that mean that there is no id, in a table.
        tables: suffixes of tables.
        rules: what quotes mean in texts of these.

    Raises:
        UserError: no such file, another format, no such column, or a value that is no id.
    """
    lines = file.suffix.lower() in LINES
    if not lines and format_of(file) not in tables:
        cure = f"Give a text with an id a line (.txt), or a table that {ends_in(tables)}"
        raise UserError("a file of this kind is not read", place=str(file), cure=cure)
    if not is_file(file):
        raise UserError("there is no such file", place=str(file), cure="Check the name")
    with reading(str(file)):
        if lines:
            # Lines end as they do in a file; what else Python ends them at may be part of an id.
            found = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
            return list(dict.fromkeys(line for line in found if line))
        table = open_file(file, rules)
        if setting is not None:
            need_columns(table, {column: setting})
        elif column not in (there := table.columns()):
            problem = f"there is no column {shown(column)} but {', '.join(map(shown, there))}"
            raise UserError(problem, place=table.place, cure=f"Name the items in a column {shown(column)}")
        return as_ids(table.collect(column)[column], table.place, missing).unique(maintain_order=True).to_list()
