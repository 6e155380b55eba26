"""Data sets fetched from a local server and by hand, read and run by name."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prorec.flows.configuration.experiments import load
from prorec.flows.datasets import declared, kept, presets
from prorec.flows.datasets.declared import DataSet, Licence
from prorec.flows.datasets.fetching import fetch
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError
from prorec_core.progress import silent
from tests.flows.datasets.conftest import Site
from tests.prorec_core.data.test_published import KINDS

Make = Callable[..., DataSet]


@pytest.fixture
def declare(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Declares a data set of small files that the server has, under a name of its own."""

    def make(kind: str = "2014", *, archive: bool = False, **changes: Any) -> DataSet:
        source, write, settings, _ = KINDS[kind]
        folder = tmp_path / f"published {kind}"
        write(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        if archive:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as writer:
                for path in paths:
                    writer.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes())
            contents = {"data.zip": packed.getvalue()}
        else:
            contents = {path.name: path.read_bytes() for path in paths}
        site.files.update({f"/{name}": content for name, content in contents.items()})
        small = {"source": source, "min_user_interactions": 3, "min_item_interactions": 1, **settings}
        files = [{"name": name, "addresses": [f"{site.url}/{name}"], "unpack": archive} for name in contents]
        values: dict[str, Any] = {
            "name": "small-shop", "title": "t", "family": "f", "page": site.url, "citation": "c", "files": files,
            "licence": {"key": "k", "name": "L", "url": site.url, "forbids": "much", "accept": True}, "data": small,
        }  # fmt: skip
        made = DataSet.model_validate({**values, **changes})
        monkeypatch.setattr(declared, "data_sets", lambda: {made.name: made})
        monkeypatch.setattr(presets, "data_sets", lambda: {made.name: made})
        return made

    return make


def had(dataset: DataSet, given: Path | None = None) -> list[str]:
    told: list[str] = []
    fetch(dataset, told.append, lambda _: silent, given)
    return told


def accepted(dataset: DataSet) -> DataSet:
    kept.accept(dataset.licence)
    return dataset


@pytest.mark.parametrize(
    ("kind", "archive"), [("2014", False), ("1m", True), ("100k", True), ("lastfm", True), ("steam", False)]
)
def test_what_is_fetched_is_read_by_its_name(declare: Make, kind: str, archive: bool) -> None:
    dataset = accepted(declare(kind, archive=archive))
    assert not kept.is_whole(dataset)
    had(dataset)
    assert kept.is_whole(dataset)
    experiment = load("small-shop")
    assert preprocess(experiment.data).sequences.n_users == 6


def test_a_licence_is_accepted_once_and_as_it_stands(declare: Make) -> None:
    dataset = declare()
    with pytest.raises(UserError, match="--accept-licence"):
        had(dataset)
    assert not kept.folder_of(dataset).exists()
    accepted(dataset)
    had(dataset)
    other = Licence.model_validate({**dataset.licence.model_dump(), "forbids": "more"})
    assert kept.accepted(dataset.licence) and not kept.accepted(other)


def test_what_is_here_is_not_fetched_again(declare: Make, site: Site) -> None:
    dataset = accepted(declare())
    had(dataset)
    site.asked = []
    assert all("there" in line for line in had(dataset)) and not site.asked
    (kept.folder_of(dataset) / dataset.files[0].name).unlink()
    assert not kept.is_whole(dataset)
    assert "the same as before" in " ".join(had(dataset)) and len(site.asked) == 1


def test_an_archive_is_unpacked_once_and_again_where_a_file_is_gone(declare: Make) -> None:
    dataset = accepted(declare("1m", archive=True))
    assert "files unpacked" in " ".join(had(dataset))
    record = json.loads((kept.folder_of(dataset) / kept.RECORD).read_text())
    assert "unpacked" not in " ".join(had(dataset))
    again = json.loads((kept.folder_of(dataset) / kept.RECORD).read_text())
    assert again["files"] == record["files"] and record["files"][0]["from"] == dataset.files[0].addresses[0]
    unpacked = dataset.files[0].unpacked_in(kept.folder_of(dataset))
    next(path for path in unpacked.rglob("*") if path.is_file()).unlink()
    assert "files unpacked" in " ".join(had(dataset))


def test_two_at_once_take_turns(declare: Make, site: Site) -> None:
    dataset = accepted(declare())
    told: list[str] = []
    with kept.at_work(dataset, lambda: None):
        other = threading.Thread(target=lambda: told.extend(had(dataset)))
        other.start()
        other.join(0.3)
        assert other.is_alive() and not site.asked
    other.join(30)
    assert told[0] == "Another process fetches small-shop; waiting for it." and kept.is_whole(dataset)


def test_what_is_handed_over_is_checked_before_it_takes_the_place_of_another(declare: Make, tmp_path: Path) -> None:
    plain = declare()
    folder = tmp_path / "published 2014"
    right = (folder / plain.files[0].name).read_bytes()
    files = [file.model_dump() for file in plain.files]
    dataset = accepted(declare(files=[{**files[0], "sha256": hashlib.sha256(right).hexdigest()}, *files[1:]]))
    had(dataset)
    (folder / plain.files[0].name).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"published 2014/.*: its sha256 is .* and should be"):
        had(dataset, folder)
    assert (kept.folder_of(dataset) / plain.files[0].name).read_bytes() == right and kept.is_whole(dataset)


def test_another_file_than_the_first_time_is_told(declare: Make, site: Site) -> None:
    dataset = accepted(declare())
    had(dataset)
    (kept.folder_of(dataset) / dataset.files[0].name).unlink()
    site.files[f"/{dataset.files[0].name}"] = gzip.compress(b"{}\n", mtime=0)
    with pytest.raises(UserError, match="another file than on") as caught:
        had(dataset)
    assert "known.json" in str(caught.value) and not kept.is_whole(dataset)


def test_what_is_declared_again_has_the_same_bytes(declare: Make, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for clock in (1_000_000_000.0, 2_000_000_000.0):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        site.files.clear()
        for archive in (False, True):
            declare(archive=archive)
        found.append(dict(site.files))
    assert found[0] == found[1]


def test_a_published_checksum_decides(declare: Make, site: Site) -> None:
    plain = declare()
    files = [file.model_dump() for file in plain.files]
    content = site.files[f"/{plain.files[0].name}"]
    wrong = accepted(declare(files=[{**files[0], "sha256": "0" * 64}, *files[1:]]))
    with pytest.raises(UserError, match="another one than is published"):
        had(wrong)
    right = declare(files=[{**files[0], "md5": hashlib.md5(content).hexdigest()}, *files[1:]])
    assert "checksum right" in " ".join(had(right))
    (kept.folder_of(right) / right.files[0].name).write_bytes(b"damaged")
    with pytest.raises(UserError, match="and should be"):
        had(right)


def test_what_needs_a_login_is_told_and_taken_over(declare: Make, tmp_path: Path) -> None:
    files = [{"name": "transactions_train.csv"}, {"name": "articles.csv"}]
    plain = declare("hm", by_hand="Open https://example.org , sign in", files=files)
    dataset = accepted(plain)
    with pytest.raises(UserError, match=r"cannot be fetched without you\. Open https://example\.org"):
        had(dataset)
    with pytest.raises(UserError, match="--from FOLDER"):
        presets.have("small-shop", load("small-shop"), print, lambda _: silent)
    told = had(dataset, tmp_path / "published hm")
    assert "copied" in told[0] and preprocess(load("small-shop").data).sequences.n_users == 6


def test_a_run_fetches_what_was_accepted_and_tells_of_what_was_not(declare: Make, site: Site) -> None:
    dataset = declare()
    experiment = load("small-shop")
    with pytest.raises(UserError, match="prorec data fetch small-shop --accept-licence"):
        presets.have("small-shop", experiment, print, lambda _: silent)
    accepted(dataset)
    told: list[str] = []
    presets.have("small-shop", experiment, told.append, lambda _: silent)
    assert kept.is_whole(dataset) and "is fetched: L" in told[0]
    site.asked = []
    presets.have("small-shop", experiment, told.append, lambda _: silent)
    presets.have("demo", load("demo"), told.append, lambda _: silent)
    assert not site.asked


def test_records_that_cannot_be_read_are_told(declare: Make, cache: Path) -> None:
    dataset = accepted(declare())
    had(dataset)
    (kept.folder_of(dataset) / ".record.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        kept.is_whole(dataset)
    assert json.loads((cache / "accepted.json").read_text())["k"]["terms"].startswith("L (")
