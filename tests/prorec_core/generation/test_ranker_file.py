"""A ranker that goes from one model to another in a file, and what is refused of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorec_core.config import GeneratorConfig
from prorec_core.data.sequences import from_lists
from prorec_core.errors import UserError
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.choice import choose
from prorec_core.generation.ranker import FOLDS, Ranker
from prorec_core.generation.ranker_file import GivenRanker, digest, given_ranker, save_ranker
from prorec_core.generation.ranker_net import Examples, Network
from prorec_core.generation.relations import FEATURES, OWN, Relations
from prorec_core.generation.trained import TrainedGenerator, ranker_tensors
from prorec_core.reports.tables import RANKER_FILE

USERS, CANDIDATES = 30, 12
WEIGHTS = np.array([1.0, 0.5, -0.25, 2.0, 0.125])
RANDOM = np.random.default_rng(3)
FOUND = Candidates(
    np.stack([RANDOM.permutation(CANDIDATES) for _ in range(USERS)]).astype(np.int32),
    *RANDOM.normal(size=(2, USERS, CANDIDATES)).astype(np.float32),
    CANDIDATES,
)
HISTORIES = from_lists([np.array([user % CANDIDATES], np.int32) for user in range(USERS)], CANDIDATES)
RELATIONS = Relations.of(HISTORIES, RANDOM.normal(size=(CANDIDATES, 3)).astype(np.float32))


def _network() -> Network:
    features = RELATIONS.features(FOUND, HISTORIES, np.arange(USERS))
    examples = Examples.of(features, FOUND.items_UC >= 0, RANDOM.integers(CANDIDATES, size=USERS))
    each = np.arange(USERS)
    return Network.stacked([examples.train(WEIGHTS, each[each % (fold + 2) > 0], fold) for fold in range(FOLDS + 1)])


def _given(path: Path) -> GivenRanker:
    found = given_ranker(GeneratorConfig(ranker_file=str(path)))
    assert found is not None
    return found


def _saved(folder: Path, network: Network | None) -> Path:
    path = folder / "ranker.json"
    save_ranker(path, {"features": list(FEATURES), "weights": WEIGHTS.tolist()}, network)
    return path


@pytest.mark.parametrize("with_network", [True, False])
def test_it_ranks_as_it_did_where_it_was_fitted(with_network: bool, tmp_path: Path) -> None:
    network = _network() if with_network else None
    fitted = Ranker(RELATIONS, WEIGHTS, np.tile(WEIGHTS, (FOLDS, 1)), network)
    given = _given(_saved(tmp_path, network))
    choice, again = choose(lambda: pytest.fail("asked"), [2.0], RELATIONS, HISTORIES, np.zeros(USERS, np.int32), given)
    about = choice["ranker"]
    assert choice["recommended"] == "ranked" and about["network"] is with_network
    other = Ranker(RELATIONS, np.array(about["weights"]), np.array(about["folds"]), again)
    for mine, theirs in zip(other.rank(FOUND, HISTORIES, 10), fitted.rank(FOUND, HISTORIES, 10), strict=True):
        assert np.array_equal(mine, theirs), "to the bit"
    assert np.array_equal(other.rank_held_out(FOUND, HISTORIES, 10)[0], fitted.rank(FOUND, HISTORIES, 10)[0])


def test_a_generator_leaves_its_own_where_weights_do_not_say_it_all(tmp_path: Path) -> None:
    about = {"features": list(FEATURES), "weights": WEIGHTS.tolist(), "folds": [WEIGHTS.tolist()]}
    for network in (_network(), None):
        folder = tmp_path / str(network is None)
        config = {"generator": {}, "ranker": about}
        TrainedGenerator(ranker_tensors(RELATIONS, network), config, []).save(folder)
        if network is None:
            assert not (folder / RANKER_FILE).exists()
        else:
            assert (folder / RANKER_FILE).read_bytes() == _saved(tmp_path, network).read_bytes()


def test_weights_alone_are_a_ranker_and_nothing_is_none() -> None:
    assert given_ranker(GeneratorConfig()) is None
    assert given_ranker(GeneratorConfig(ranker_weights=[1.0] * 5)) == GivenRanker([1.0] * 5)


def test_its_content_tells_it_from_another(tmp_path: Path) -> None:
    first, second = (_saved(tmp_path, each) for each in (None, None))
    assert first.read_bytes() == second.read_bytes() and len(digest(GeneratorConfig(ranker_file=str(first)))) == 64
    assert digest(GeneratorConfig()) == ""
    before = digest(GeneratorConfig(ranker_file=str(first)))
    assert digest(GeneratorConfig(ranker_file=str(_saved(tmp_path, _network())))) != before


def _set(values: Any, place: str, value: Any) -> None:
    *above, last = place.split(".")
    for name in above:
        values = values[name]
    values[last] = value


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("features", ["dense"], "it ranks by dense, and this version by generative, dense"),
        ("features", [*FEATURES, *OWN], "7 features have 5 weights"),
        ("weights", [1.0], "5 features have 1 weights"),
        ("weights", [1.0, 2.0, 3.0, 4.0, "five"], r"weights\.4"),
        ("network.last", [1.0] * 7, r"network\.first has not the shape 5 × 7"),
        ("network.first", [[1.0] * 32] * 4, r"network\.first has not the shape 5 × 32"),
        ("network.second", [[1.0] * 32] * 31 + [[1.0]], r"network\.second has not the shape 32 × 32"),
        ("network.spread", [1.0, 1.0, 0.0, 1.0, 1.0], r"network\.spread\.2"),
        ("network.centre", [1.0], r"network\.centre has not the shape 5"),
        ("network.linear", [[1.0]] * 5, r"network\.linear\.0"),
        ("other", 1, "no ranker"),
    ],
)
def test_what_is_no_ranker_is_told_in_a_line(place: str, value: Any, told: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, _network())
    values = json.loads(path.read_text())
    _set(values, place, value)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=told) as error:
        _given(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"features": NaN}', "\x00"])
def test_what_is_no_json_is_told_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="this is no ranker"):
        _given(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"generator\.ranker_file=.*there is no such file"):
        _given(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="it cannot be read"):
        _given(tmp_path)
