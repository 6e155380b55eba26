"""Item ids in a text: one a line, whatever signs they have."""

from __future__ import annotations

from pathlib import Path

from prorec_core.data.id_lists import read_ids


def test_a_line_is_an_id_and_an_id_is_never_two(tmp_path: Path) -> None:
    ids = ["9007199254740993", "Ärmel 1 ☂", "a,b 3", "x\u2028y", "x\u0085y", "x\x0cy", '"q"']
    (tmp_path / "ids.txt").write_bytes("\ufeff".encode() + "\r\n".join([*ids, "", ids[0]]).encode())
    assert read_ids(tmp_path / "ids.txt", "item_id", None) == ids
