"""Archives that hold what they should, and archives that were made to do harm."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from prorec.flows.datasets.unpack import unpack
from prorec_core.errors import UserError

MOST = 1_000_000


def zipped(path: Path, files: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return path


def tarred(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for info, content in members:
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def refusal(archive: Path) -> str:
    folder = archive.parent / "out"
    with pytest.raises(UserError) as caught:
        unpack(archive, folder, MOST)
    assert not folder.exists() and not list(archive.parent.glob(".*begun*")), "nothing of it is left"
    assert not (archive.parent / "evil").exists() and not (archive.parent.parent / "evil").exists()
    return str(caught.value)


def test_files_and_folders_and_an_archive_within(tmp_path: Path) -> None:
    inner = tarred(tmp_path / "i.tar.gz", [(member("review.json"), b"{}")]).read_bytes()
    archive = zipped(tmp_path / "a.zip", {"ml/ratings.dat": b"1::2", "ml/README": b"r", "Yelp JSON/data.tar.gz": inner})
    found = unpack(archive, tmp_path / "out", MOST)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in found]
    assert names == ["Yelp JSON/review.json", "ml/README", "ml/ratings.dat"]
    unpack(zipped(archive, {"x": b"y"}), tmp_path / "out", MOST)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"], "what was there is replaced"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "a/..", "x" * 2000])
def test_nothing_lands_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert "lies outside" in refusal(zipped(tmp_path / "in" / "a.zip", {"good": b"1", name: b"2"}))
    assert "lies outside" in refusal(tarred(tmp_path / "in" / "a.tar.gz", [(member(name), b"2")]))


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    assert "no plain file" in refusal(zipped(tmp_path / "a.zip", {"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        assert "no plain file" in refusal(tarred(tmp_path / "a.tar", [(member("x", kind, "/etc/passwd"), b"")]))


def test_bombs_and_damage_are_told(tmp_path: Path) -> None:
    assert "more than 1,000,000 bytes" in refusal(zipped(tmp_path / "a.zip", {"big": b"\0" * (MOST + 1)}))
    assert "more than 1,000,000 bytes" in refusal(
        zipped(tmp_path / "a.zip", {f"{n}": b"\0" * 300_000 for n in range(4)})
    )
    inner = zipped(tmp_path / "i.zip", {"big": b"\0" * (MOST + 1)}).read_bytes()
    assert "more than" in refusal(zipped(tmp_path / "a.zip", {"i.zip": inner}))
    inner = zipped(tmp_path / "i.zip", {"big": b"\0" * 600_000}).read_bytes()
    assert "more than" in refusal(zipped(tmp_path / "a.zip", {"i.zip": inner, "j/i.zip": inner})), "in all"
    whole = zipped(tmp_path / "a.zip", {"x": b"abc" * 1000}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refusal(tmp_path / "a.zip")
    damaged = bytearray(whole)
    damaged[45] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(damaged)
    assert "damaged" in refusal(tmp_path / "a.zip")
    # A size in the directory that is not that of the content.
    lying = whole.replace(struct.pack("<I", 3000), struct.pack("<I", 2000))
    (tmp_path / "a.zip").write_bytes(lying)
    assert "damaged" in refusal(tmp_path / "a.zip") or "has not the 2,000 bytes" in refusal(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(b"<html>")
    assert "damaged" in refusal(tmp_path / "a.zip")
    tar = tarred(tmp_path / "a.tar.gz", [(member("x"), b"abc" * 10_000)]).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(tar[: len(tar) // 2])
    assert "damaged" in refusal(tmp_path / "a.tar.gz")


def test_a_file_that_is_there_twice_is_told(tmp_path: Path) -> None:
    assert "twice" in refusal(tarred(tmp_path / "a.tar", [(member("x"), b"1"), (member("x"), b"2")]))
