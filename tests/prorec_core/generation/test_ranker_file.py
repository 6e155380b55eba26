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
from prorec_core.generation.features import EARLIER, FEATURES, OWN
from prorec_core.generation.ranker import FOLDS, Ranker
from prorec_core.generation.ranker_file import RANKER_FILE, GivenRanker, digest, given_ranker, save_ranker
from prorec_core.generation.ranker_net import Examples, Network
from prorec_core.generation.relations import Relations

USERS, CANDIDATES = 30, 12
WEIGHTS = np.array([1.0, 0.5, -0.25, 2.0, 0.125, 0.75, -0.5])
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


def _given(path: Path, *, own: bool = False) -> GivenRanker:
    found = given_ranker(GeneratorConfig(ranker_file=str(path)), own=own)
    assert found is not None
    return found


def _saved(folder: Path, network: Network) -> Path:
    path = folder / RANKER_FILE
    save_ranker(path, {"features": list(FEATURES), "weights": WEIGHTS.tolist()}, network.of_all())
    return path


def _without_network(path: Path) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), "network": None}))
    return path


@pytest.mark.parametrize("with_network", [True, False])
def test_it_ranks_as_it_did_where_it_was_fitted(with_network: bool, tmp_path: Path) -> None:
    network = _network()
    path = _saved(tmp_path, network)
    given = _given(path if with_network else _without_network(path))
    fitted = Ranker(RELATIONS, WEIGHTS, np.tile(WEIGHTS, (FOLDS, 1)), network if with_network else None)
    choice, again = choose(lambda: pytest.fail("asked"), [2.0], RELATIONS, HISTORIES, np.zeros(USERS, np.int32), given)
    about = choice["ranker"]
    assert choice["recommended"] == "ranked" and about["network"] is with_network
    other = Ranker(RELATIONS, np.array(about["weights"]), np.array(about["folds"]), again)
    for mine, theirs in zip(other.rank(FOUND, HISTORIES, 10), fitted.rank(FOUND, HISTORIES, 10), strict=True):
        assert np.array_equal(mine, theirs), "to the bit"
    assert np.array_equal(other.rank_held_out(FOUND, HISTORIES, 10)[0], fitted.rank(FOUND, HISTORIES, 10)[0])


def test_a_feature_that_hardly_differs_makes_no_ranker_that_cannot_be_kept(tmp_path: Path) -> None:
    network = _network().scaled(np.array([1e-20, 1.0, 1e-9, 1.0, 1.0, 1.0, 1.0]))
    save_ranker(
        tmp_path / "x", {"features": FEATURES, "weights": [1e20, 1.0, 1e9, 0.0, -1.0, 1.0, 1.0]}, network.of_all()
    )
    given = _given(tmp_path / "x")
    assert given.weights[0] == 1e20 and given.network is not None
    assert Network.from_numbers(given.network.model_dump()).of_all() == network.of_all()


def test_weights_alone_are_a_ranker_and_nothing_is_none() -> None:
    assert given_ranker(GeneratorConfig(), own=False) is None
    for own, names in (
        (False, FEATURES),
        (True, (*FEATURES, *OWN)),
        (False, EARLIER),
        (True, (*EARLIER, *OWN)),
        (True, EARLIER),
    ):
        weights = [1.0] * len(names)
        found = given_ranker(GeneratorConfig(ranker_weights=weights), own=own)
        assert found == GivenRanker(features=list(names), weights=weights)
    for count, own in ((6, False), (9, False), (8, True)):
        with pytest.raises(
            UserError, match=f"there are {count} weights, and this experiment ranks by generative, dense"
        ):
            given_ranker(GeneratorConfig(ranker_weights=[1.0] * count), own=own)
    assert given_ranker(GeneratorConfig(ranker=False).model_copy(update={"ranker_file": "none"}), own=False) is None


def test_its_content_tells_it_from_another(tmp_path: Path) -> None:
    config = GeneratorConfig(ranker_file=str(_saved(tmp_path, _network())))
    assert len(first := digest(config)) == 64 and digest(GeneratorConfig()) == ""
    _without_network(tmp_path / RANKER_FILE)
    assert digest(config) != first


def test_it_is_of_a_history_that_is_recommended_again_or_is_not(tmp_path: Path) -> None:
    path = _saved(tmp_path, _network())
    with pytest.raises(UserError, match=r"with evaluate\.mask_history=false by .*own_recency"):
        _given(path, own=True)
    names = [*FEATURES, *OWN]
    path.write_text(json.dumps({"features": names, "weights": [1.0] * len(names)}))
    assert _given(path, own=True).features == names
    with pytest.raises(UserError, match=r"with evaluate\.mask_history=true by .*popularity"):
        _given(path)


def _set(values: Any, place: str, value: Any) -> None:
    *above, last = place.split(".")
    for name in above:
        values = values[name]
    values[last] = value


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("features", ["dense"], "it ranks by dense, and this experiment"),
        ("weights", [1.0], "7 features have 1 weights"),
        ("weights", [1.0, 2.0, 3.0, 4.0, "five"], r"weights\.4"),
        ("network.last", [1.0] * 5, r"network\.first has not the shape 7 × 5"),
        ("network.first", [[1.0] * 32] * 6, r"network\.first has not the shape 7 × 32"),
        ("network.second", [[1.0] * 32] * 31 + [[1.0]], r"network\.second has not the shape 32 × 32"),
        ("network.spread", [1.0, 1.0, 0.0, 1.0, 1.0], r"network\.spread\.2"),
        ("network.last", [], r"network\.last"),
        ("network.centre", [1.0], r"network\.centre has not the shape 7"),
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
    assert f"generator.ranker_file={path}: " in str(error.value) and "\n" not in str(error.value)


def test_a_byte_order_mark_is_passed_over_and_a_folder_may_be_named_like_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _saved(tmp_path, _network())
    wanted = _given(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert _given(path) == wanted
    monkeypatch.chdir(tmp_path)
    path.rename(tmp_path / "~")
    assert given_ranker(GeneratorConfig(ranker_file="./~"), own=False) == wanted


@pytest.mark.parametrize("text", ["", "[]", "{", '{"features": NaN}', "\x00"])
def test_what_is_no_json_is_told_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="this is no ranker"):
        _given(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"generator\.ranker_file=.*there is no such file"):
        _given(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="it cannot be read"):
        _given(tmp_path)
