"""What every reader of tables must do. A new one's tests inherit `ReaderContract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prorec_core.data.formats import table_of
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError

_EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
ODD_NAMES = [
    "^u.*$",
    "*",
    "",
    " ",
    "a.b",
    "a",
    "user_id",
    'q"uote',
    "com,ma",
    "tab\there",
    "ключ",
    "line\nend",
    "x" * 300,
]
ODD_FOLDERS = ["shop[1]", "shop*", "shop?", "{a,b}", "~", "%2F%20", "a b", "s3:", "$HOME", "ключ", "-", "x\ny"]
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff"), max_size=6)
ODD_TEXTS = st.text(st.sampled_from("a7,;\"'\\ \t\r\n\u2028"), max_size=6)
Rows = list[tuple[str, ...]]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], Rows]:
    """Names of columns and rows of texts, with much of what delimits fields in them."""
    text = TEXTS | ODD_TEXTS
    names = draw(st.lists(text.filter(str.strip), min_size=1, max_size=4, unique=True))
    return names, draw(st.lists(st.tuples(*[text] * len(names)), max_size=8))


class ReaderContract:
    """Rows counted are rows read, names are literal, nothing is lost in silence."""

    suffix = ".csv"
    has_lines = True
    """Whether rows have numbers of lines."""
    broken: tuple[bytes, ...] = (b"", b"\n\r\n", "a,b\n1,2\n".encode("utf-16"), b"\0" * 100, bytes(range(256)) * 3)
    """Files that are none of this format."""

    def encode(self, names: list[str], rows: Rows) -> bytes:
        """A file of this format with columns of texts; the ways to do so may differ from call to call."""
        raise NotImplementedError

    def open(self, path: Path) -> RawTable:
        return table_of(path)

    def write(self, folder: Path, names: list[str], rows: Rows, stem: str = "table") -> Path:
        path = folder / f"{stem}{self.suffix}"
        path.write_bytes(self.encode(names, rows))
        return path

    def test_reads_columns_in_the_order_asked_for_and_rows_in_that_of_the_file(self, tmp_path: Path) -> None:
        table = self.open(self.write(tmp_path, ["a", "b", "c"], [(f"{n}", "x", f"-{n}") for n in range(50)]))
        assert table.columns() == ["a", "b", "c"]
        found = table.collect("c", "a")
        assert found.columns == ["c", "a"] and found.rows() == [(f"-{n}", f"{n}") for n in range(50)]
        assert table.collect("a", "a").columns == ["a"]

    def test_batches_are_the_same_rows(self, tmp_path: Path) -> None:
        table = self.open(self.write(tmp_path, ["a", "b"], [(f"{n}", "x") for n in range(50)]))
        batches = list(table.batches("b", "a"))
        assert batches and all(batch.columns == ["b", "a"] for batch in batches)
        assert [row for batch in batches for row in batch.rows()] == table.collect("b", "a").rows()

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_names_of_columns_are_literal(self, tmp_path: Path, name: str) -> None:
        names = [name, *(other for other in ("user", "b") if other != name)]
        table = self.open(self.write(tmp_path, names, [("1", "2", "3"), ("4", "5", "6")]))
        assert table.columns() == names
        assert table.collect(name).to_dict(as_series=False) == {name: ["1", "4"]}
        assert table.collect("b", name).rows() == [("3", "1"), ("6", "4")]

    @pytest.mark.parametrize("name", ODD_FOLDERS)
    def test_names_of_folders_and_files_are_literal(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for decoy in ("shop1", "shopx", "a", "b"):
            Path(decoy).mkdir()
            self.write(Path(decoy), ["a"], [("wrong",)], "shop1")
        Path(name).mkdir(exist_ok=True)
        for folder in (Path(name), tmp_path / name):
            path = self.write(folder, ["a"], [("right",)], name)
            assert self.open(path).collect("a").rows() == [("right",)]

    def test_a_column_that_is_not_there_or_twice_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no column 'z'"):
            self.open(self.write(tmp_path, ["a", "b"], [("1", "2")])).collect("z")

    def test_no_rows_are_no_rows(self, tmp_path: Path) -> None:
        if self.encode(["a", "b"], []):
            found = self.open(self.write(tmp_path, ["a", "b"], [])).collect("b", "a")
            assert found.height == 0 and found.columns == ["b", "a"]

    def test_a_row_is_named_by_its_line(self, tmp_path: Path) -> None:
        rows: Rows = [("x", "y")] * 5
        path = self.write(tmp_path, ["a", "b"], rows)
        lines = path.read_bytes().splitlines()
        first = next((n for n, line in enumerate(lines, start=1) if b"x" in line), 0)
        place = self.open(path).place
        expected = [f"line {first + n}" if self.has_lines else f"row {n + 1}" for n in range(5)]
        assert [place.row(n) for n in range(5)] == expected
        assert place == str(path)

    def test_what_is_no_such_file_is_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / f"broken{self.suffix}"
        for raw in self.broken:
            path.write_bytes(raw)
            with pytest.raises(UserError) as caught:
                table = self.open(path)
                table.collect(*table.columns()[:1])
            assert str(path) in str(caught.value) and "\n" not in str(caught.value).replace(str(path), "")

    @_EXAMPLES
    @given(tables())
    def test_what_was_written_is_read_or_refused(self, tmp_path_factory: Any, written: tuple[list[str], Rows]) -> None:
        names, rows = written
        path = self.write(tmp_path_factory.mktemp("contract"), names, rows)
        table = self.open(path)
        try:
            found = table.collect(*names)
        except UserError as error:
            self.check_refusal(error, path, names, rows)
            return
        assert table.columns() == names
        assert [tuple(value or "" for value in row) for row in found.rows()] == rows

    def check_refusal(self, error: UserError, path: Path, names: list[str], rows: Rows) -> None:
        """A file that was written well may be refused only where the format leaves a doubt."""
        raise error

    @_EXAMPLES
    @given(st.binary(max_size=30) | tables(), st.data())
    def test_damage_is_told_or_no_row_is_lost(self, tmp_path_factory: Any, written: Any, data: st.DataObject) -> None:
        raw = bytearray(written if isinstance(written, bytes) else self.encode(*written))
        for _ in range(data.draw(st.integers(0, 3))):
            if raw:
                place = data.draw(st.integers(0, len(raw) - 1))
                raw[place] = data.draw(st.sampled_from([*b',"\n\r\\{}[]:a7\t\0', 0xFF, 0x80]))
        path = tmp_path_factory.mktemp("damage") / f"table{self.suffix}"
        path.write_bytes(raw)
        table = self.open(path)
        try:
            columns = table.columns()
            once = [name for name in dict.fromkeys(columns) if columns.count(name) == 1]
            found = table.collect(*once) if once else None
        except UserError as error:
            assert "\n" not in str(error)
            return
        counted = self.count(bytes(raw))
        assert found is None or counted is None or found.height == counted

    def count(self, raw: bytes) -> int | None:
        """Rows of a file by a simple reader of another make; None where it cannot tell."""
        return None
