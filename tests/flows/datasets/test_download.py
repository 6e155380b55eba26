"""Files from a server that cuts, lies, refuses and changes its mind."""

from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from prorec.flows.datasets import download as download_module
from prorec.flows.datasets.download import Fetched, download
from prorec_core.errors import UserError
from prorec_core.progress import Progress
from tests.flows.datasets.conftest import Site

CONTENT = random.Random(5).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = ("md5", hashlib.md5(CONTENT).hexdigest())


def get(site: Site, folder: Path, path: str = "/f.gz", **options: Any) -> Fetched:
    found = download([site.url + path], folder / "f.gz", pause=lambda _: None, **options)
    assert (folder / "f.gz").read_bytes() == CONTENT and found.sha256 == SHA256 and found.bytes == len(CONTENT)
    assert sorted(path.name for path in folder.iterdir()) == ["f.gz"], "nothing else is left"
    return found


def refusal(site: Site, folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        download([site.url + "/f.gz"], folder / "f.gz", pause=lambda _: None, **options)
    assert not (folder / "f.gz").exists() and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _one_file(site: Site) -> None:
    site.files["/f.gz"] = CONTENT


def test_a_file_comes_and_its_progress_is_told(site: Site, tmp_path: Path) -> None:
    told: list[Progress] = []
    get(site, tmp_path, report=told.append, checksum=MD5)
    assert told[-1].step == told[-1].total == len(CONTENT) and site.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("checksum", [None, MD5])
def test_a_connection_that_is_cut_is_gone_on_with(site: Site, tmp_path: Path, checksum: Any) -> None:
    site.cut_after = [100_000, 0, 50_000]
    get(site, tmp_path, checksum=checksum)
    begun = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for _, asked in site.asked]
    assert begun == [0, 100_000, 100_000, 150_000]


def test_what_an_earlier_process_began_is_gone_on_with_or_begun_anew(site: Site, tmp_path: Path) -> None:
    site.cut_after = [100_000] + [0] * 9
    refusal(site, tmp_path)
    site.cut_after, site.asked = [], []
    get(site, tmp_path)
    assert site.asked == [("/f.gz", "bytes=100000-")]
    (tmp_path / "f.gz").unlink()
    site.files["/f.gz"] = CONTENT[::-1]
    site.cut_after = [100_000] + [0] * 9
    refusal(site, tmp_path)
    site.files["/f.gz"], site.cut_after = CONTENT, []
    get(site, tmp_path)


def test_what_had_come_whole_is_not_fetched_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        # Stopped before it had its name.
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download([site.url + "/f.gz"], tmp_path / "f.gz", pause=lambda _: None, checksum=MD5)
    # What the server knows the version by was written beside it, or not yet: a checksum decides then.
    (tmp_path / ".f.gz.part").write_bytes(CONTENT)
    site.asked = []
    get(site, tmp_path, checksum=MD5)
    assert site.asked == [("/f.gz", f"bytes={len(CONTENT)}-")]


def test_a_part_that_got_its_name_meanwhile_is_not_touched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".f.gz.part").write_bytes(CONTENT)
    lock = download_module.flock

    def late(file: Any, kind: int) -> None:
        monkeypatch.setattr(download_module, "flock", lock)
        (tmp_path / ".f.gz.part").replace(tmp_path / "other")
        lock(file, kind)

    monkeypatch.setattr(download_module, "flock", late)
    download([site.url + "/f.gz"], tmp_path / "f.gz", pause=lambda _: None)
    assert (tmp_path / "other").read_bytes() == CONTENT and site.asked == [("/f.gz", "")]


def test_without_a_name_for_the_version_only_a_checksum_lets_halves_meet(site: Site, tmp_path: Path) -> None:
    site.no_tags = True
    site.cut_after = [100_000]
    get(site, tmp_path)
    assert [asked for _, asked in site.asked] == ["", ""]
    (tmp_path / "f.gz").unlink()
    site.asked, site.cut_after = [], [100_000]
    get(site, tmp_path, checksum=MD5)
    assert [asked for _, asked in site.asked] == ["", "bytes=100000-"]
    (tmp_path / "f.gz").unlink()
    (tmp_path / ".f.gz.part").write_bytes(b"the beginning of another file")
    get(site, tmp_path, checksum=MD5)


def test_a_server_without_ranges_gives_all_again(site: Site, tmp_path: Path) -> None:
    site.no_ranges = True
    site.cut_after = [100_000]
    get(site, tmp_path)


def test_lies_about_lengths_and_places_are_found_out(site: Site, tmp_path: Path) -> None:
    site.says_longer = 7
    assert "no address gives the file" in refusal(site, tmp_path)
    site.says_longer = -7
    assert "another one than is published" in refusal(site, tmp_path, checksum=MD5)
    site.says_longer, site.goes_on_elsewhere = 0, True
    site.cut_after = [1000]
    get(site, tmp_path)


def test_a_wrong_checksum_leaves_nothing_and_the_next_address_is_asked(site: Site, tmp_path: Path) -> None:
    assert "another one than is published" in refusal(site, tmp_path, checksum=("sha256", "0" * 64))
    assert [path.stat().st_size for path in tmp_path.glob(".f.gz.part")] == [0]
    site.files["/other.gz"] = b"something else"
    addresses = [site.url + path for path in ("/missing.gz", "/other.gz", "/f.gz")]
    found = download(addresses, tmp_path / "f.gz", checksum=MD5, pause=lambda _: None)
    assert found.address == addresses[2] and (tmp_path / "f.gz").read_bytes() == CONTENT


def test_busy_servers_are_asked_again_and_others_are_not(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429, 500]
    get(site, tmp_path)
    (tmp_path / "f.gz").unlink()
    site.statuses, site.asked = [403], []
    assert "status 403" in refusal(site, tmp_path) and len(site.asked) == 1
    site.statuses, site.asked = [503] * 20, []
    assert "status 503" in refusal(site, tmp_path) and len(site.asked) == 6


def test_what_is_no_such_file_is_told(site: Site, tmp_path: Path) -> None:
    site.kind = "text/html; charset=utf-8"
    assert "a web page and no file" in refusal(site, tmp_path)
    site.kind = "application/gzip"
    assert "more than the 1,000 that it may have" in refusal(site, tmp_path, most=1000)
    site.files["/f.gz"] = b""
    assert "empty" in refusal(site, tmp_path)
    dead = Site(url="http://127.0.0.1:9")
    assert "no address gives the file" in refusal(dead, tmp_path)
    site.redirects["/f.gz"] = "/f.gz"
    assert "no address gives the file" in refusal(site, tmp_path)


def test_redirections_are_followed(site: Site, tmp_path: Path) -> None:
    site.redirects["/old.gz"] = "/f.gz"
    get(site, tmp_path, "/old.gz")


def test_two_at_once_do_not_mix(site: Site, tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        said.append(refusal(site, tmp_path))

    def report(_: Progress) -> None:
        if not said:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    get(site, tmp_path, report=report)
    assert "another process fetches this file" in said[0]


def test_proxies_of_the_environment_are_used(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", site.url)
    monkeypatch.setenv("http_proxy", site.url)
    site.files["http://data.example/f.gz"] = CONTENT
    download(["http://data.example/f.gz"], tmp_path / "f.gz", pause=lambda _: None)
    assert site.asked == [("http://data.example/f.gz", "")]
