from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core import artifacts
from prorec_core.artifacts import (
    MANIFEST,
    Manifest,
    read_json,
    read_parquet,
    sha256_file,
    sha256_json,
    verify,
    write_bytes,
    write_json,
    write_manifest,
    write_parquet,
)
from prorec_core.errors import UserError

FILES = {"a.bin": b"first", "b.json": b"{}", "deep/er/c.bin": b"third" * 100}


def _artifact(folder: Path, names: list[str] | None = None) -> Manifest:
    for name in names or list(FILES):
        write_bytes(folder / name, FILES[name])
    return write_manifest(folder, "quantize", {"levels": 3}, {"align": "abc"})


@given(st.permutations(list(FILES)))
@settings(max_examples=6)
def test_the_digest_does_not_know_the_order_of_writing(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    first, second = (_artifact(tmp_path_factory.mktemp("artifact"), order) for order in (list(FILES), names))
    assert first.digest == second.digest
    assert Manifest.model_validate(first.model_dump() | {"files": first.files[::-1]}).digest == first.digest


def test_the_digest_knows_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    plain = _artifact(tmp_path)
    assert write_manifest(tmp_path, "quantize", {"levels": 4}, {}).digest == plain.digest
    write_bytes(tmp_path / "a.bin", b"First")
    changed = write_manifest(tmp_path, "quantize", {}, {})
    (tmp_path / "a.bin").rename(tmp_path / "z.bin")
    renamed = write_manifest(tmp_path, "quantize", {}, {})
    assert len({plain.digest, changed.digest, renamed.digest}) == 3


def test_a_manifest_says_what_there_is(tmp_path: Path) -> None:
    written = _artifact(tmp_path)
    read = Manifest.model_validate_json((tmp_path / MANIFEST).read_bytes())
    assert read == written
    assert [entry.path for entry in read.files] == sorted(FILES)
    assert {entry.path: entry.bytes for entry in read.files} == {name: len(content) for name, content in FILES.items()}
    assert read.stage == "quantize"
    assert read.schema_version == 1
    assert write_manifest(tmp_path, "quantize", {}, {}, version=2).schema_version == 2
    assert read.config == {"levels": 3}
    assert read.upstream == {"align": "abc"}
    assert "torch" in read.libraries
    assert verify(tmp_path) == []


@pytest.mark.parametrize("name", FILES)
def test_verify_names_what_is_damaged_or_missing(tmp_path: Path, name: str) -> None:
    _artifact(tmp_path)
    content = bytearray(FILES[name])
    content[0] ^= 1
    (tmp_path / name).write_bytes(content)
    (problem,) = verify(tmp_path)
    assert str(tmp_path / name) in problem
    assert "sha256 differs" in problem
    (tmp_path / name).write_bytes(FILES[name] + b"x")
    (problem,) = verify(tmp_path)
    assert str(tmp_path / name) in problem
    assert f"has {len(FILES[name]) + 1} bytes" in problem
    (tmp_path / name).unlink()
    (problem,) = verify(tmp_path)
    assert str(tmp_path / name) in problem
    assert "missing" in problem


def test_verify_names_every_problem_and_a_manifest_that_is_none(tmp_path: Path) -> None:
    assert "manifest is missing" in verify(tmp_path)[0]
    _artifact(tmp_path)
    for name in FILES:
        (tmp_path / name).unlink()
    assert len(verify(tmp_path)) == len(FILES)
    for wrong in (b"", b"{", b"[]", b'{"stage": 1}', b"\xff\xfe"):
        (tmp_path / MANIFEST).write_bytes(wrong)
        (problem,) = verify(tmp_path)
        assert "cannot be read" in problem


def test_a_machine_without_git_leaves_out_the_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    artifacts._git_commit.cache_clear()
    try:
        assert _artifact(tmp_path / "artifact").git_commit is None
    finally:
        artifacts._git_commit.cache_clear()


def test_bytes_are_written_whole_with_their_folders_and_leave_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["file.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("of", "call"), [(os, "fsync"), (Path, "write_bytes")])
def test_a_failed_write_leaves_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: object, call: str
) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"before")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(of, call, fail)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"after")
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["file.bin"]


_WRITER = """
import sys
from pathlib import Path
from prorec_core.artifacts import write_bytes
number = 0
while True:
    number = (number + 1) % 256
    write_bytes(Path(sys.argv[1]), bytes([number]) * 3_000_000)
"""


def test_a_kill_in_the_middle_of_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    for wait in (0.01, 0.05):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], cwd=Path(__file__).parents[2]) as process:
            while not path.exists() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        content = path.read_bytes()
        assert content == content[:1] * 3_000_000
        path.unlink()


def test_equal_values_give_equal_json(tmp_path: Path) -> None:
    write_json(tmp_path / "1.json", {"b": [1.5, None], "a": "é"})
    write_json(tmp_path / "2.json", {"a": "é", "b": [1.5, None]})
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert read_json(tmp_path / "1.json") == {"a": "é", "b": [1.5, None]}
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 1, "b": 3})


def _table(rows: int = 1000) -> pa.Table:
    return pa.table({"item": pa.array(range(rows), pa.int32()), "title": [f"item {row % 7}" for row in range(rows)]})


def test_equal_tables_give_equal_parquet(tmp_path: Path) -> None:
    chunked = pa.concat_tables([_table().slice(0, 300), _table().slice(300)])
    for name, table in (("1", _table()), ("2", _table()), ("chunked", chunked)):
        write_parquet(tmp_path / name, table)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert sha256_file(tmp_path / "1") == sha256_file(tmp_path / "2")
    for name in ("1", "chunked"):
        assert read_parquet(tmp_path / name, "quantize").equals(_table())


def test_a_table_of_another_version_is_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "codes.parquet"
    write_parquet(path, _table())
    assert pq.read_schema(path).metadata[b"prorec_schema_version"] == b"1"
    with pytest.raises(UserError, match=r"codes.parquet: .* version 1, .* reads 2\. Run the stage 'quantize' again"):
        read_parquet(path, "quantize", 2)
    write_parquet(path, _table(), 2)
    assert read_parquet(path, "quantize", 2).equals(_table())
    with pytest.raises(UserError, match=r"codes.parquet: .* version 2, .* reads 1\. Use the version that made it"):
        read_parquet(path, "quantize")
    pq.write_table(_table(), path)
    with pytest.raises(UserError, match="schema version \\?"):
        read_parquet(path, "quantize")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None])
def test_a_table_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "codes.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"codes\.parquet: the table cannot be read .* Run the stage 'quantize' again"):
        read_parquet(path, "quantize")
