"""Finished pieces of long work: found again by what they are made of, and only while they are whole."""

from __future__ import annotations

from pathlib import Path

from prorec_core.kept import find_piece, keep_piece


def test_a_piece_is_found_again_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    assert find_piece(tmp_path / "none", "aa", ".npy") is None
    kept = keep_piece(tmp_path, "aa", ".npy", b"content")
    assert find_piece(tmp_path, "aa", ".npy") == kept and kept.read_bytes() == b"content"
    assert find_piece(tmp_path, "a", ".npy") is None and find_piece(tmp_path, "aa", ".parquet") is None
    kept.write_bytes(b"conten")
    assert find_piece(tmp_path, "aa", ".npy") is None and list(tmp_path.iterdir()) == []
