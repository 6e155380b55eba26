"""What is declared of public data sets holds together, and is found wherever the package is."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from prorec.flows.configuration.experiments import load, preset_files
from prorec.flows.datasets import kept
from prorec.flows.datasets.declared import DataSet, data_sets, find
from prorec_core.data.layouts import LAYOUTS
from prorec_core.errors import UserError

ALL = data_sets()


def test_those_that_papers_report_on_are_there() -> None:
    wanted = "amazon-beauty amazon-toys amazon-sports amazon-cds amazon-beauty-raw amazon-2018-instruments "
    wanted += "amazon-2023-games ml-100k ml-1m ml-20m ml-32m yelp yelp-open steam "
    wanted += "lastfm delicious goodreads-poetry hm mind-small "
    assert not {*wanted.split(), "amazon-m2"} - ALL.keys()


@pytest.mark.parametrize("dataset", ALL.values(), ids=ALL)
def test_each_can_be_had_read_and_cited(dataset: DataSet) -> None:
    assert dataset.data["source"] in {*LAYOUTS, "letter"} and dataset.citation and dataset.title
    text = dataset.model_dump_json()
    assert "{slug}" not in text and "{category" not in text
    for file in dataset.files:
        assert all(urlsplit(address).scheme == "https" for address in file.addresses)
        assert all(address.endswith(f"/{file.name}") for address in file.addresses)
    assert dataset.by_hand or (dataset.licence.accept and dataset.licence.forbids), "nothing is fetched unasked"


def test_a_key_of_a_licence_stands_for_the_same_terms() -> None:
    terms = {(each.licence.key, each.licence.model_dump_json()) for each in ALL.values()}
    assert len(terms) == len({key for key, _ in terms})


@pytest.mark.parametrize("name", ["amazon-toys", "ml-1m", "lastfm", "amazon-beauty", "ml-100k", "yelp"])
def test_each_is_an_experiment(name: str) -> None:
    experiment = load(name)
    assert experiment.name == name and experiment.data.path == str(kept.folder_of(find(name)))
    like = find(name).like
    if like is not None:
        assert experiment.model_copy(update={"name": like, "data": None}) == load(like).model_copy(
            update={"data": None}
        )


def test_a_preset_whose_folder_is_named_is_what_it_was() -> None:
    for name, file in preset_files().items():
        settings = ["data.path=/somewhere"]
        assert load(name, settings) == load(str(file), settings)


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(UserError, match="Did you mean 'amazon-toys'"):
        find("amazon-toy")
    with pytest.raises(UserError, match="Did you mean 'amazon-toys'"):
        load("amazon-toy")


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"name": "../x", "addresses": ["https://a.example/x"]}]},
        {"files": [{"name": "x", "addresses": ["ftp://a.example/x"]}]},
        {"files": [{"name": "x", "addresses": ["https://user:word@a.example/x"]}]},
        {"files": [{"name": "x"}]},
        {"files": [{"name": "x", "addresses": ["https://a.example/x"], "sha256": "abc"}]},
        {"data": {"source": "nowhere"}},
        {"name": "Not A Name"},
        {"extra": 1},
    ],
)
def test_a_declaration_that_does_not_hold_together_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DataSet.model_validate({**find("ml-1m").model_dump(), **change})
