"""All readers of tables against their contract, and what is special to each."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.delimited import DelimitedReader
from prorec_core.data.formats import RULES, TextRules, open_file, table_of
from prorec_core.data.quotes import Dialect
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from tests.prorec_core.data.reader_contract import ReaderContract, Rows, tables


class DelimitedContract(ReaderContract):
    separator = ","
    quoting: Any = csv.QUOTE_MINIMAL
    line_end = "\r\n"  # With "\n", Python's writer leaves carriage returns without quotes.

    def encode(self, names: list[str], rows: Rows) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.separator, quoting=self.quoting, lineterminator=self.line_end)
        writer.writerows([names, *rows])
        return text.getvalue().encode()

    def check_refusal(self, error: UserError, path: Path, names: list[str], rows: Rows) -> None:
        if "separated by" in str(error):
            assert len(names) == 1
            return
        assert "line " in str(error) and "looks like a row" in str(error)
        found = table_of(path, TextRules(multiline=True)).collect(*names)
        assert [tuple(value or "" for value in row) for row in found.rows()] == rows

    def count(self, raw: bytes) -> int | None:
        text = io.StringIO(raw.decode("utf-8-sig"), newline="")
        return sum(bool(row) for row in csv.reader(text, delimiter=self.separator)) - 1


class TestCsv(DelimitedContract):
    pass


class TestCsvQuoted(DelimitedContract):
    quoting = csv.QUOTE_ALL
    line_end = "\n"


class TestTsv(DelimitedContract):
    suffix = ".TSV"
    separator = "\t"


class TestAtomic(ReaderContract):
    suffix = ".inter"

    def open(self, path: Path) -> RawTable:
        return open_file(path, RULES)

    def encode(self, names: list[str], rows: Rows) -> bytes:
        lines = ["\t".join(f"{name}:token" for name in names), *("\t".join(row) for row in rows)]
        return "".join(f"{line}\n" for line in lines).encode()

    @pytest.mark.parametrize("name", ["^u.*$", "*", "a.b", 'q"uote', "com,ma"])
    def test_names_of_columns_are_literal(self, tmp_path: Path, name: str) -> None:
        super().test_names_of_columns_are_literal(tmp_path, name)

    @settings(max_examples=50)
    @given(st.lists(st.tuples(*[st.text('a"7, ', min_size=1)] * 2), max_size=8))
    def test_what_was_written_is_read_or_refused(self, tmp_path_factory: Any, rows: Rows) -> None:
        path = self.write(tmp_path_factory.mktemp("contract"), ["a", "b"], rows)
        assert self.open(path).collect("a", "b").rows() == rows


class TestJsonLines(ReaderContract):
    suffix = ".jsonl"
    broken = (*ReaderContract.broken, b"[1]", b'{"a": 1}\n{"a"', b"PAR1")

    def encode(self, names: list[str], rows: Rows) -> bytes:
        dumps = json.JSONEncoder(ensure_ascii=len(rows) % 2 == 0).encode
        return "".join(f"{dumps(dict(zip(names, row, strict=True)))}\n" for row in rows).encode()

    def check_refusal(self, error: UserError, path: Path, names: list[str], rows: Rows) -> None:
        assert not rows and "holds no keys" in str(error)

    def count(self, raw: bytes) -> int | None:
        return sum(bool(line.strip()) for line in raw.split(b"\n"))


class TestParquet(ReaderContract):
    suffix = ".parquet"
    has_lines = False
    broken = (*ReaderContract.broken, b"PAR1", b"PAR1" * 3)

    def encode(self, names: list[str], rows: Rows) -> bytes:
        file = io.BytesIO()
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
        pq.write_table(pa.table([pa.array(column, pa.string()) for column in columns], names=names), file)
        return file.getvalue()


def csv_of(tmp_path: Path, raw: bytes, rules: TextRules = RULES, suffix: str = "csv") -> RawTable:
    path = tmp_path / f"table.{suffix}"
    path.write_bytes(raw)
    return table_of(path, rules)


def everything(table: RawTable) -> list[tuple[Any, ...]]:
    return table.collect(*table.columns()).rows()


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (b'a,b\nx,7" wide\ny,z\n', [("x", '7" wide'), ("y", "z")]),
        (b'a,b\nx,"7"" wide"\n', [("x", '7" wide')]),
        (b'a,b\n7",8"\n9",10\n', [('7"', '8"'), ('9"', "10")]),
        (b'a,b\n"x\ny",z\n', [("x\ny", "z")]),
        (b'a,b\n"x\n\ny, and more",z\n', [("x\n\ny, and more", "z")]),
        (b'a,b\r\nx,"p\r\nq"\r\n', [("x", "p\r\nq")]),
        (b"a,b\nx,y", [("x", "y")]),
        (b'a,b\nx,""\ny,', [("x", ""), ("y", None)]),
        (b"\xef\xbb\xbfa,b\nx,y\n", [("x", "y")]),
        (b'\xef\xbb\xbf"a",b\nx,y\n', [("x", "y")]),
        (b"\n\na,b\n\n\nx,y\n\r\n", [("x", "y")]),
        (b"sep=,\r\na,b\r\nx,y\r\n", [("x", "y")]),
        (b"a,b\n" + b"x" * 9_000_000 + b",y\nz,w\n", [("x" * 9_000_000, "y"), ("z", "w")]),
        (b'a,b\n"' + b"x\n" * 4_000_000 + b'",y\nz,w\n', [("x\n" * 4_000_000, "y"), ("z", "w")]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_delimited_text_is_read_right(tmp_path: Path, raw: bytes, rows: list[tuple[Any, ...]]) -> None:
    table = csv_of(tmp_path, raw)
    assert table.columns() == ["a", "b"] and everything(table) == rows


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'a,b\nx,"p \\"q\\" r"\n', "line 2: a quoted field goes on after its closing quote.*backslash"),
        (b'a,b\n\nx,"Best" thing\n', "line 3: a quoted field goes on after its closing quote"),
        (b'a,b\nx,"p\nq,r\ns,"t"\n', "line 4: a quoted field, which began in line 2, goes on"),
        (b'a,b\nx,"p\nq,r\ns,t"\n', "line 3 lies in a quoted field that begins in line 2, but looks like a row"),
        (b'a,b,c\nx,"p,1\nq",r,2\n', "line 3 lies in a quoted field that begins in line 2"),
        (b'a,b\nx,"p\nq\n', "line 2: the quoted field that begins here is never closed"),
        (b"a,b\nx,y\nz\n", "line 3 has 1 field, and the header 2"),
        (b"a,b\nx,y\n\nz,1,2\n", "line 4 has 3 fields, and the header 2"),
        (b'a,b\n"x\n",y\n"1\n2"\n', "line 4 has 1 field, and the header 2"),
        (b"a,b\rx,y\rz,w\r", "line 1 holds a carriage return"),
        (b"a,b\nx,y\rz\n", "line 2 holds a carriage return"),
        (b"a,b\nx,y\n\0,z\n", "line 3 holds a NUL byte"),
        (
            gzip.compress(b"a,b\nx,y\n", mtime=0),
            r"the file is compressed by gzip, and not text\. Unpack it, or let its name end in \.gz",
        ),
        (bz2.compress(b"a,b\nx,y\n"), "the file is compressed by bzip2"),
        (lzma.compress(b"a,b\nx,y\n"), "the file is compressed by xz"),
        (bytes(pa.compress(b"a,b\nx,y\n", "zstd")), "the file is compressed by Zstandard"),
        (b"PK\3\4\x14\0", "a ZIP archive or an Excel workbook, and not text.* save the sheet as CSV"),
        (b"PAR1,b\nx,\xe9\n", "line 2 is not UTF-8"),
        (b"PAR1\x15\4\0\x15\x10\n", "the file is a Parquet file"),
        ("a,b\nx,y\n".encode("utf-16"), "UTF-16"),
        ("a,b\nx,y\n".encode("utf-16-le"), "UTF-16"),
        ("a,b\nx,y\ncafé,z\n".encode("latin-1"), "line 3 is not UTF-8 .byte 0xe9; perhaps Latin-1"),
        (b"a;b\nx;y\n", "separated by semicolons, and not by commas"),
        (b"a\tb\nx\ty\n", "separated by tabs, and not by commas"),
        (b"sep=;\na;b\nx;y\n", "separated by semicolons"),
        (b"", "holds no column names"),
        (b"\r\n\n", "holds no column names"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("size", [3, None])
def test_delimited_text_that_leaves_a_doubt_names_the_line(raw: bytes, said: str, size: int | None) -> None:
    reader = DelimitedReader(lambda: io.BytesIO(raw), "table.csv", Dialect(","), block_size=size)
    with pytest.raises(UserError, match=said) as caught:
        everything(RawTable(reader, "table.csv"))
    assert str(caught.value).startswith("table.csv: ") and "\n" not in str(caught.value)


def test_names_that_stand_twice_matter_only_where_one_is_read(tmp_path: Path) -> None:
    table = csv_of(tmp_path, b"a,,b,,b\n1,2,3,4,5\n")
    assert table.collect("a").rows() == [("1",)]
    for name in ("b", ""):
        with pytest.raises(UserError, match=f"2 columns have the name '{name}'"):
            table.collect(name)


def test_lines_that_look_like_rows_may_be_declared(tmp_path: Path) -> None:
    raw = b'a,b\nx,"p\nq,r\ns,t"\nu,v\n'
    assert everything(csv_of(tmp_path, raw, TextRules(multiline=True))) == [("x", "p\nq,r\ns,t"), ("u", "v")]


def test_quotes_may_be_declared_to_be_text(tmp_path: Path) -> None:
    raw = b'a\tb\nx\t"Best" thing\ny\t"p\nz\t""\n'
    rows = [("x", '"Best" thing'), ("y", '"p'), ("z", '""')]
    assert everything(csv_of(tmp_path, raw, TextRules(quotes=False), "tsv")) == rows


def test_every_row_is_named_by_the_line_where_it_begins(tmp_path: Path) -> None:
    place = csv_of(tmp_path, b'\nsep=,\na,b\n\n"x\ny",1\n\r\nz,"\n\n"\nw,2').place
    assert [place.row(row) for row in range(3)] == ["line 5", "line 8", "line 11"]


@settings(max_examples=400)
@given(tables(), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.integers(1, 20))
def test_any_quoting_and_any_size_of_blocks(table: tuple[list[str], Rows], quoting: Any, size: int) -> None:
    names, rows = table
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting).writerows([names, *rows])
    raw = text.getvalue().encode()
    found = RawTable(DelimitedReader(lambda: io.BytesIO(raw), "f", Dialect(",", multiline=True), block_size=size), "f")
    try:
        got = found.collect(*names)
    except UserError as error:
        assert "separated by" in str(error) and len(names) == 1
        return
    assert [tuple(value or "" for value in row) for row in got.rows()] == rows


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        (b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n', [1, 2]),
        (b'\n{"a": 1}\r\n  \n{"b": 2}\n\n{"a": null}', [1, None, None]),
        (b'{"a": 1}\n{"a": 2.5}', [1.0, 2.5]),
        (b'{"a": true}\n{"a": false}', [True, False]),
        (b'{"a": [1, 2]}\n{"a": []}\n{"a": null}', [[1, 2], [], None]),
        (b'{"a": ["x"]}\n{"a": [null]}\n{}', [["x"], [None], None]),
        (b'{"a": 18446744073709551615}\n{"a": -1}', [2**64 - 1, -1]),
        (b'{"a": "\\u0000\\n\xc3\xa9"}', ["\0\n\u00e9"]),
        (b'{"a": 1, "m": {"a": 2}, "t": "\\"a\\""}\n{"a": 3}', [1, 3]),
    ],
    ids=repr,
)
def test_json_values_stay_what_they_are(tmp_path: Path, raw: bytes, values: list[Any]) -> None:
    path = tmp_path / "table.jsonl"
    path.write_bytes(raw)
    found = table_of(path).collect("a")["a"].to_list()
    assert found == values and list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": 1}\n\n[1]\n', "line 3 holds a list and no object"),
        (b'{"a": 1}\n7\n', "line 2 holds a number and no object"),
        (b'{"a": 1}\nnull\n', "line 2 holds null and no object"),
        (b'[{"a": 1},\n{"a": 2}]\n', "line 1 is no JSON object .*without brackets"),
        (b'{"a": 1}\n{"a": 2', "line 2 is no JSON object"),
        (b'{"a": 1} {"a": 2}\n', "line 1 is no JSON object"),
        (b'{"a": 1}\n{"a": NaN}\n', "line 2 is no JSON object"),
        (b'{"a": 1}\n{"a": Infinity}\n', "line 2 is no JSON object"),
        (b'{"a": 1}\n{"a": 1, "a": 2}\n', "line 2 has the key 'a' twice"),
        (b'{"b": 1}\n{"a": 1, "a": 2}\n', "line 2 has the key 'a' twice"),
        (b'{"a": 1}\n{"a": "1"}\n', "column 'a' holds a text in line 2, and a number above it"),
        (b'{"a": "x"}\n{"a": true}\n', "column 'a' holds true or false in line 2, and a text above it"),
        (b'{"a": "x"}\n\n{"a": ["x"]}\n', "column 'a' holds a list in line 3, and a text above it"),
        (b'{"a": ["x"]}\n{"a": ["y", 1]}\n', "column 'a' holds a number in line 2, and a text above it"),
        (b'{"a": 1}\n{"a": {"b": 1}}\n', "column 'a' holds an object in line 2"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "line 1 is no JSON object"),
        (b'{"a": "\xe9"}\n', "line 1 is not UTF-8"),
        (b"", "holds no keys"),
        (b"{}\n{}\n", "holds no keys"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_json_lines_that_leave_a_doubt_name_the_line(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "table.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=said) as caught:
        table_of(path).collect("a")
    assert "\n" not in str(caught.value)


def test_json_values_of_two_kinds_in_far_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"a": 1}\n' * 600_000 + '{"a": "x"}\n')
    with pytest.raises(UserError, match=r"column 'a' holds a text in line 600,001, and a number above it"):
        table_of(path).collect("a")
    path.write_text('{"a": null}\n' * 600_000 + '{"a": ["x"]}\n')
    assert table_of(path).collect("a")["a"].to_list()[-1] == ["x"]


def parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def test_parquet_types_are_those_of_the_file(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, None], dtype=pl.Int16),
            "u": pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
            "f": [1.5, float("nan")],
            "s": ["x", None],
            "b": [True, None],
            "d": pl.Series([0, 1], dtype=pl.Date),
            "t": pl.Series([0, 1], dtype=pl.Datetime("ms")),
            "z": pl.Series([0, 1], dtype=pl.Datetime("us", "Europe/Berlin")),
            "l": [["x"], []],
            "n": [[["x"]], None],
        }
    )
    (tmp_path / "table.parquet").write_bytes(parquet(frame))
    found = table_of(tmp_path / "table.parquet").collect(*frame.columns)
    assert found.equals(frame.with_columns(pl.col("z").dt.convert_time_zone("UTC")))
    # Names of zones that nobody knows mean nothing either: the values are UTC.
    column = pa.array([0, 1], pa.timestamp("us", "Nowhere/Town"))
    pq.write_table(pa.table({"z": column}), tmp_path / "table.parquet")
    assert table_of(tmp_path / "table.parquet").collect("z").to_series().dt.epoch("us").to_list() == [0, 1]


def test_flipped_bytes_of_parquet_are_told_or_change_values_alone(tmp_path: Path, capfd: Any) -> None:
    frame = pl.DataFrame(
        {"user": [f"u{n % 7}" for n in range(60)], "item": [n % 11 for n in range(60)], "list": [["a", "b"]] * 60}
    )
    good, path, chance = parquet(frame), tmp_path / "table.parquet", random.Random(0)
    told = 0
    for place in range(len(good)):
        raw = bytearray(good)
        raw[place] ^= chance.choice([255, 1 << chance.randrange(8)])
        path.write_bytes(raw)
        try:
            found = table_of(path).collect("user", "item", "list")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 500 + len(str(path))
            told += 1
        else:
            assert found.height == frame.height
    assert told > len(good) // 10
    assert "panicked" not in capfd.readouterr().err


def test_texts_of_parquet_that_are_no_utf8_are_told(tmp_path: Path) -> None:
    texts = pa.array([b"x", b"caf\xe9"], pa.binary()).view(pa.string())
    for column in (texts, pa.ListArray.from_arrays([0, 1, 2], texts), texts.dictionary_encode()):
        pq.write_table(pa.table({"a": column}), tmp_path / "table.parquet")
        with pytest.raises(UserError, match="the file cannot be read"):
            table_of(tmp_path / "table.parquet").collect("a")


def test_what_panics_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: Any) -> None:
        raise pl.exceptions.PanicException("called `Result::unwrap()` on an `Err` value\nat line 7")

    (tmp_path / "table.parquet").write_bytes(parquet(pl.DataFrame({"a": [1]})))
    monkeypatch.setattr("prorec_core.data.parquet.as_series", panic)
    with pytest.raises(UserError, match=r"cannot be read \(called `Result::unwrap\(\)` on an `Err` value at line 7"):
        table_of(tmp_path / "table.parquet").collect("a")


class Losing:
    """A reader that loses a row."""

    def columns(self) -> list[str]:
        return ["a"]

    def rows(self) -> int:
        return 3

    def batches(self, columns: Any) -> Any:
        yield pl.DataFrame({"0": [1, 2]})

    def where(self, row: int) -> str:
        return "nowhere"


def test_a_reader_that_loses_rows_is_found_out() -> None:
    with pytest.raises(UserError, match="f: the file holds 3 rows, and 2 were read"):
        RawTable(Losing(), "f").collect("a")
