"""Compressed files, Python's literals and Arrow's files against the contract of readers, and how each is refused."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.formats import table_of
from prorec_core.data.python_literals import NoLiteralError, as_json
from prorec_core.data.stage import preprocess, source_digest
from prorec_core.errors import UserError
from tests.prorec_core.data.reader_contract import ReaderContract, Rows
from tests.prorec_core.data.test_readers import TestCsv as CsvContract
from tests.prorec_core.data.test_readers import TestJsonLines as JsonLinesContract
from tests.prorec_core.data.test_sources import config, read, shop

_NOT_PACKED = (b"", b"a,b\n1,2\n", b"\x1f\x8b", b"(\xb5/\xfd", bytes(range(256)) * 3)


def packed(raw: bytes, how: str) -> bytes:
    if how == ".gz":
        return gzip.compress(raw, mtime=0)
    return bytes(pa.compress(raw, codec="zstd", asbytes=True))


class _Packed:
    """Damage to the packed bytes is the archive's to tell, and rows have their lines in what is unpacked."""

    broken = _NOT_PACKED
    test_a_row_is_named_by_its_line = None

    def count(self, raw: bytes) -> None:
        return None


class TestCsvGz(_Packed, CsvContract):
    suffix = ".csv.gz"

    def encode(self, names: list[str], rows: Rows) -> bytes:
        return packed(super().encode(names, rows), ".gz")


class TestJsonLinesZst(_Packed, JsonLinesContract):
    suffix = ".jsonl.zst"
    test_no_rows_are_no_rows = None

    def encode(self, names: list[str], rows: Rows) -> bytes:
        return packed(super().encode(names, rows), ".zst")


class TestPythonLines(JsonLinesContract):
    suffix = ".json"

    def encode(self, names: list[str], rows: Rows) -> bytes:
        return "".join(f"{dict(zip(names, row, strict=True))!r}\n" for row in rows).encode()


class TestArrowStream(ReaderContract):
    suffix = ".arrow"
    has_lines = False
    broken = (*ReaderContract.broken, b"ARROW1", b"\xff" * 4 + b"\0" * 4)

    def encode(self, names: list[str], rows: Rows) -> bytes:
        file = io.BytesIO()
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
        table = pa.table([pa.array(column, pa.string()) for column in columns], names=names)
        with self.writer(file, table.schema) as writer:
            writer.write_table(table, 3)
        return file.getvalue()

    def writer(self, file: Any, schema: pa.Schema) -> Any:
        return pa.ipc.new_stream(file, schema)


class TestFeather(TestArrowStream):
    suffix = ".feather"

    def writer(self, file: Any, schema: pa.Schema) -> Any:
        return pa.ipc.new_file(file, schema)


def refusal(path: Path, raw: bytes) -> str:
    path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        table = table_of(path)
        table.collect(*table.columns())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_archive_is_told_with_the_line_and_several_in_one_are_read(tmp_path: Path, suffix: str) -> None:
    lines = b"".join(b'{"a": %d}\n' % (n * n) for n in range(20_000))
    raw = packed(lines, suffix)
    path = tmp_path / f"t.jsonl{suffix}"
    for size in (len(raw) - 1, len(raw) - 9, len(raw) // 2, 12):
        assert "is cut or damaged after line" in refusal(path, raw[:size])
    assert "is cut or damaged after line" in refusal(path, packed(b'{"a": 1}\n', suffix) + b"more"), "not of no kind"
    path.write_bytes(raw + raw)
    assert table_of(path).collect("a").height == 40_000


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("raw", [b"a,b\n1,2\n", b"x"])
def test_a_file_that_is_not_packed_as_its_name_says(tmp_path: Path, suffix: str, raw: bytes) -> None:
    assert f"Take {suffix} off its name" in refusal(tmp_path / f"t.csv{suffix}", raw)


def test_two_encodings_in_one_file_are_told_apart(tmp_path: Path) -> None:
    both = "a\nx\nä\n".encode() + "ö\n".encode("latin-1")
    assert "in two encodings: line 3 is UTF-8, and line 4 is not" in refusal(tmp_path / "t.csv", both)
    assert "line 2 is not UTF-8" in refusal(tmp_path / "t.csv", b"a\n\xf6\n\xf6\n")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{'a': 'it\\'s \"so\"', u'b': (1, -2.5), 'c': [None, True, False,], 'd': {'e': ()}}", None),
        ("{\"it's\": 'x\\x41\\u00e9\\n', 'ä': '\\U0001f600', 'e': 1e5}", None),
        ("{'pair': u'\\ud83d\\ude00'}", {"pair": "\U0001f600"}),
    ],
)
def test_pythons_way_means_what_python_means(line: str, value: Any) -> None:
    import ast

    expected = value or json.loads(json.dumps(ast.literal_eval(line)))
    assert json.loads(as_json(line.encode())) == expected


ODD = st.text(st.sampled_from("\\'\"\n\x00\x07\xa0\u00e9x0u{N}\U0001f600"), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | ODD,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(ODD, VALUES, max_size=4))
def test_whatever_python_writes_is_read(written: dict[str, Any]) -> None:
    expected = json.loads(json.dumps(written))
    for line in (repr(written), ascii(written)):
        assert json.loads(as_json(line.encode())) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'a': __import__('os').system('true')}", "holds the name '__import__'"),
        ("{'a': open('/etc/passwd')}", "holds the name 'open'"),
        ("{'a': b'x'}", "holds the name 'b'"),
        ("{'a': nan}", "holds the name 'nan'"),
        ("{'a': '\\x4'}", "cannot be read"),
        ("{'a': '\\ud800'}", "is no JSON object"),
        ("{'a': '\\ud800\\a'}", "cannot be read"),
        ("{'a': 'never", "never closed"),
        ("{'a': 1 + 1}", "is no JSON object"),
        ("{'a': {1, 2}}", "is no JSON object"),
        ("{'a': 9**9**9}", "is no JSON object"),
        ("{'a': " + "[" * 100_000 + "]" * 100_000 + "}", "is no JSON object"),
        ("{'a': " + "(" * 100_000, "is no JSON object"),
        ("{" + "'\\'" * 100_000, "never closed"),
        ("{'a': " + "-" * 100_000 + "1}", "is no JSON object"),
    ],
)
def test_what_is_no_plain_value_is_refused_and_never_run(tmp_path: Path, line: str, said: str) -> None:
    told = refusal(tmp_path / "meta.json", b"{'a': 'x'}\n" + line.encode() + b"\n")
    assert "line 2 " in told and said in told and len(told) < 1000


def test_a_name_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(NoLiteralError):
        as_json(b"{'a': name}")


def test_lines_of_both_kinds_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_bytes(b"{'asin': 'a', 'title': 'it\\'s'}\n\n{\"asin\": \"b\"}\n{\"it's\": 1, 'asin': 'c'}\n")
    table = table_of(path)
    assert table.collect("asin", "title").rows() == [("a", "it's"), ("b", None), ("c", None)]
    assert table.place.row(2) == "line 4"


def test_arrow_that_is_cut_or_followed_is_told(tmp_path: Path) -> None:
    whole = TestArrowStream().encode(["a"], [("x",)] * 9)
    path = tmp_path / "t.arrow"
    for size in range(0, len(whole), 7):
        refusal(path, whole[:size])
    assert "follow the end" in refusal(path, whole + whole)
    footed = TestFeather().encode(["a"], [("x",)] * 9)
    for size in range(0, len(footed), 7):
        refusal(path, footed[:size])


def saved(folder: Path, parts: int) -> Path:
    """A folder as Hugging Face's `datasets` saves one."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05}-of-{parts:05}.arrow" for n in range(parts)]
    for n, name in enumerate(names):
        rows: Rows = [(f"u{user}", f"i{(user + n + step) % 6}", str(step)) for user in range(8) for step in range(2)]
        (folder / name).write_bytes(TestArrowStream().encode(["user_id", "item_id", "timestamp"], rows))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_folders_of_datasets(tmp_path: Path) -> None:
    shop(tmp_path)
    (tmp_path / "interactions.csv").unlink()
    log = saved(tmp_path / "interactions", 3)
    assert read(preprocess(config(tmp_path))) == (48, 8)
    (log / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(UserError, match=r"there is no file 'data-00001.*', which it names"):
        preprocess(config(tmp_path))
    (log / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../items.csv"}]}))
    with pytest.raises(UserError, match="there is no file"):
        preprocess(config(tmp_path))
    (log / "state.json").write_text("{}")
    with pytest.raises(UserError, match="names no files"):
        preprocess(config(tmp_path))
    saved(tmp_path / "both" / "train", 2)
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(UserError, match="several tables: train"):
        preprocess(config(tmp_path, interactions_file="both"))
    assert read(preprocess(config(tmp_path, interactions_file="both/train"))) == (32, 8)


def test_a_folder_of_many_files(tmp_path: Path) -> None:
    shop(tmp_path)
    folder = tmp_path / "interactions"
    (folder / "2024").mkdir(parents=True)
    text = (tmp_path / "interactions.csv").read_bytes()
    (tmp_path / "interactions.csv").unlink()
    header, *lines = text.splitlines(keepends=True)
    for n, name in enumerate(("2024/a.csv.gz", "b.csv.gz")):
        (folder / name).write_bytes(gzip.compress(header + b"".join(lines[n::2])))
    (folder / "_SUCCESS").touch()
    (folder / ".part.csv").touch()
    (folder / "README.md").touch()
    assert read(preprocess(config(tmp_path))) == (32, 8)
    before = source_digest(config(tmp_path))
    (folder / "c.csv.gz").write_bytes(gzip.compress(header))
    assert source_digest(config(tmp_path)) != before
    (folder / "d.jsonl").touch()
    with pytest.raises(UserError, match="of several formats"):
        preprocess(config(tmp_path))
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt in it is of no known format"):
        preprocess(config(tmp_path))
